"""Receivers of images to compare: this node, Orthanc, DCMTK's storescp, and pynetdicom as one first writes it.

Each runs as a process of its own and is a context manager that gives a `Running`. With a certificate it speaks TLS.
What "kept" means differs, and is what the comparison is about:

- node: file, folder and index row are flushed before success is said
- orthanc: each file is flushed (`SyncStorageArea`), its index is not (SQLite with synchronous=NORMAL)
- storescp, pynetdicom: written to the page cache; a power cut takes what the kernel had not written by itself
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from machine import REPOSITORY

sys.path[:0] = [str(REPOSITORY / "demo"), str(REPOSITORY / "tests" / "support")]

from free_ports import free_port  # noqa: E402
from local_orthanc import LocalOrthanc  # noqa: E402 - of demo/, made known above

CALLING: Final = "SCANNER"
MAX_ASSOCIATIONS: Final = 64


@dataclass(frozen=True, kw_only=True)
class Running:
    """A receiver that listens: AE title, port and process."""

    called: str
    port: int
    pid: int

    def resident_mib(self) -> float:
        """Its memory now."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


@dataclass(frozen=True, kw_only=True)
class Pair:
    """PEM files of a certificate, its key, and the authority that signed it."""

    certificate: Path
    key: Path
    authority: Path


Receiver = Callable[[Path, Pair | None], AbstractContextManager[Running]]


@contextmanager
def node(folder: Path, pair: Pair | None) -> Iterator[Running]:
    """This node's listener, spool and index."""
    with _python("node", folder, pair) as running:
        yield running


@contextmanager
def pynetdicom(folder: Path, pair: Pair | None) -> Iterator[Running]:
    """Stock pynetdicom; its handler writes the bytes as they came, which is the fastest that it offers."""
    with _python("pynetdicom", folder, pair) as running:
        yield running


@contextmanager
def orthanc(folder: Path, pair: Pair | None) -> Iterator[Running]:
    """Orthanc with the settings that we ship, and every file flushed."""
    extra: dict[str, Any] = {"SyncStorageArea": True}
    if pair is not None:
        extra |= {
            "DicomTlsEnabled": True,
            "DicomTlsRemoteCertificateRequired": False,
            "DicomTlsCertificate": str(pair.certificate),
            "DicomTlsPrivateKey": str(pair.key),
            "DicomTlsTrustedCertificates": str(pair.authority),
        }
    with LocalOrthanc(folder, aet="ORTHANC", extra=extra, callers=(CALLING,)) as started:
        if started.pid is None:
            raise RuntimeError(f"Orthanc does not run; see {started.log_path}")
        yield Running(called="ORTHANC", port=started.dicom_port, pid=started.pid)


@contextmanager
def storescp(folder: Path, pair: Pair | None) -> Iterator[Running]:
    """DCMTK's receiver, a process for each association."""
    port = free_port()
    tls = [] if pair is None else ["+tls", str(pair.key), str(pair.certificate), "-ic"]
    command = ["storescp", "--fork", "-aet", "STORESCP", "-od", str(folder), "+B", *tls, str(port)]
    process = subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"}, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield Running(called="STORESCP", port=port, pid=process.pid)
    finally:
        process.terminate()
        process.wait()


RECEIVERS: Final[Mapping[str, Receiver]] = {
    "node": node,
    "orthanc": orthanc,
    "storescp": storescp,
    "pynetdicom": pynetdicom,
}


def names() -> Mapping[str, str]:
    """Rivals with their versions, and what they do not do, as tables name them."""
    orthanc_version = subprocess.run(["Orthanc", "--version"], capture_output=True, text=True, check=False).stdout
    dcmtk_version = subprocess.run(["storescp", "--version"], capture_output=True, text=True, check=False).stdout
    return {
        "orthanc": f"Orthanc {orthanc_version.split()[1]} (flushes files)",
        "storescp": f"storescp {dcmtk_version.split()[2].removeprefix('v')} (flushes nothing)",
        "pynetdicom": f"pynetdicom {version('pynetdicom')} (flushes nothing)",
    }


@contextmanager
def _python(name: str, folder: Path, pair: Pair | None) -> Iterator[Running]:
    told = {"name": name, "folder": str(folder), **({} if pair is None else vars(pair))}
    command = [sys.executable, __file__, json.dumps(told, default=str)]
    # Its log stays in its folder: a line for each image, as in a real node.
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError("no pipe")
        yield Running(called=name.upper(), port=int(process.stdout.readline()), pid=process.pid)
    finally:
        process.kill()
        process.communicate()


def _serve_node(folder: Path, pair: Pair | None) -> int:
    from dicom_node.cli.lasting_objects import keep_out_of_collections
    from dicom_node.cli.logs import start_logging
    from dicom_node.database import open_database
    from dicom_node.dicom_tls import ListenerTls, ListenerTlsFiles
    from dicom_node.intake.listener import AllowedPeer, Listener, ListenerOptions
    from dicom_node.intake.spool import Spool

    start_logging("INFO")
    spool = Spool(folder / "spool", open_database(f"sqlite:///{folder / 'node.db'}"))
    options = ListenerOptions(
        ae_title="NODE",
        port=0,
        allowed=(AllowedPeer(ae_title=CALLING, networks=("127.0.0.1/32",)),),
        max_associations=MAX_ASSOCIATIONS,
        max_associations_per_ae=MAX_ASSOCIATIONS,
        tls=None if pair is None else ListenerTls(ListenerTlsFiles(certificate=pair.certificate, key=pair.key)),
    )
    listener = Listener(options, spool)
    listener.start()
    keep_out_of_collections()
    return listener.port


def _serve_pynetdicom(folder: Path, pair: Pair | None) -> int:
    from pydicom.uid import MRImageStorage
    from pynetdicom import AE, evt

    def on_store(event: evt.Event) -> int:
        path = folder / f"{event.request.AffectedSOPInstanceUID}.dcm"
        path.write_bytes(event.encoded_dataset())
        return 0x0000

    context = None
    if pair is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
    entity = AE("PYNETDICOM")
    entity.maximum_associations = MAX_ASSOCIATIONS
    entity.add_supported_context(MRImageStorage)
    handlers: list[Any] = [(evt.EVT_C_STORE, on_store)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=context)
    return int(server.server_address[1])


def _serve(told: Mapping[str, str]) -> None:
    """Be a receiver until killed; prints its port first."""
    files = {one: Path(told[one]) for one in ("certificate", "key", "authority") if one in told}
    pair = Pair(**files) if files else None
    serve = {"node": _serve_node, "pynetdicom": _serve_pynetdicom}[told["name"]]
    print(serve(Path(told["folder"]), pair), flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
