"""A small authority and the certificates it signs, made by the openssl program."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from patience import STUDY_S


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """PEM files of one certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates for names; everything lies in `folder`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        subject = f"/CN=test authority {name}"
        self._openssl(
            *("req", "-x509", *_NEW_KEY, "-days", "30", "-subj", subject),
            *("-keyout", self._key, "-out", self.certificate),
        )

    def sign(self, name: str, *, host: str = "localhost", expired: bool = False, ip: str = "127.0.0.1") -> Certificate:
        """A certificate made out to `host` and `ip`; `expired` ended in 2021."""
        made = Certificate(certificate=self._folder / f"{name}.pem", key=self._folder / f"{name}.key")
        request = self._folder / f"{name}.csr"
        names = f"subjectAltName=DNS:{host}" + (f",IP:{ip}" if ip else "")
        self._openssl(
            *("req", *_NEW_KEY, "-subj", f"/CN={host}", "-addext", names, "-keyout", made.key, "-out", request)
        )
        dates = ("-not_before", "20200101000000Z", "-not_after", "20210101000000Z")
        if expired:
            self._sign_by_register(request, made.certificate, dates, names)
        else:
            self._openssl(
                *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial"),
                *("-days", "30", "-copy_extensions", "copy", "-out", made.certificate),
            )
        return made

    def _sign_by_register(self, request: Path, out: Path, dates: tuple[str, ...], names: str) -> None:
        """`openssl ca`, because `openssl x509` of OpenSSL 3.0 cannot choose dates in the past."""
        register = self._folder / "register"
        register.mkdir(exist_ok=True)
        (register / "index.txt").touch()
        settings = self._folder / "register.cnf"
        settings.write_text(
            f"[ca]\ndefault_ca=here\n[here]\ndatabase={register}/index.txt\nnew_certs_dir={register}\nrand_serial=yes\n"
            f"default_md=sha256\npolicy=any\nx509_extensions=names\n[any]\ncommonName=supplied\n[names]\n{names}\n"
        )
        start, end = dates[1], dates[3]
        self._openssl(
            *("ca", "-batch", "-config", settings, "-cert", self.certificate, "-keyfile", self._key, "-in", request),
            *("-out", out, "-startdate", start, "-enddate", end, "-notext"),
        )

    def _openssl(self, *words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=STUDY_S)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
