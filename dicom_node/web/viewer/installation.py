"""OHIF's prebuilt files: which release, how it gets here, and where it lies.

The release is pinned by version and by the SHA-512 that its package index publishes; a file with another digest is
thrown away. Only what a browser loads is unpacked, without source maps.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import requests
import urllib3

from dicom_node.errors import ConfigError

PUBLIC_REGISTRY: Final = "https://registry.npmjs.org"
DOWNLOAD_TIMEOUT_S: Final = 600.0
CONNECT_TIMEOUT_S: Final = 10.0
AS_IT_IS: Final = {"Accept-Encoding": "identity"}
MAX_PACKAGE_BYTES: Final = 200_000_000
"""Four times the size of the pinned package: an answer larger than this is not it."""

PACKED_KINDS: Final = frozenset({".js", ".css", ".wasm", ".json", ".svg"})
PACKED_FROM_BYTES: Final = 10_000
"""A smaller file fits a few packets of the network as it is."""


@dataclass(frozen=True, kw_only=True)
class OhifRelease:
    """One published package; `integrity` is its Subresource Integrity string, "sha512-" and base64."""

    package: str
    version: str
    integrity: str

    @property
    def archive_name(self) -> str:
        """The file name under which npm publishes it."""
        return f"{self.package.rpartition('/')[2]}-{self.version}.tgz"


PINNED: Final = OhifRelease(
    package="@ohif/app",
    version="3.13.2",
    integrity="sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA==",
)


class ViewerUnavailableError(ConfigError):
    """OHIF cannot be installed here; the message says why and what to do."""


def viewer_folder(release: OhifRelease = PINNED, prefix: Path | None = None) -> Path:
    """Where the release lies: beside the program, so that it goes when the program's environment goes."""
    return (prefix or Path(sys.prefix)) / "share" / "hydrops-node" / f"ohif-{release.version}"


def is_installed(folder: Path) -> bool:
    """Whether a complete OHIF lies there; `install` moves it into place in one step."""
    return (folder / "index.html").is_file()


def install(archive: Path, folder: Path, release: OhifRelease = PINNED) -> int:
    """Check the package against its pinned digest and unpack it to `folder`; the number of files.

    Raises
    ------
    ViewerUnavailableError
        If the file is not the pinned package.
    """
    _check_integrity(archive, release)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="ohif-unpacking-") as temporary:
        count = _unpack(archive, Path(temporary) / "dist")
        _add_packed(Path(temporary) / "dist")
        shutil.rmtree(folder, ignore_errors=True)
        (Path(temporary) / "dist").rename(folder)
    return count


def fetch(into: Path, environment: Mapping[str, str], release: OhifRelease = PINNED) -> Path:
    """The package as a file in `into`: by npm where there is one (it knows proxy and credentials), else over HTTPS.

    Raises
    ------
    ViewerUnavailableError
        If neither way works.
    """
    npm = shutil.which("npm", path=environment.get("PATH"))
    return _fetch_by_npm(npm, into, release) if npm else _fetch_over_https(into, environment, release)


def _fetch_by_npm(npm: str, into: Path, release: OhifRelease) -> Path:
    command = [npm, "pack", "--silent", "--pack-destination", str(into), f"{release.package}@{release.version}"]
    try:
        done = subprocess.run(  # noqa: S603 - npm with fixed arguments, no shell
            command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False, cwd=into
        )
    except subprocess.TimeoutExpired:
        raise ViewerUnavailableError(_advice(release, f"npm gave no answer in {DOWNLOAD_TIMEOUT_S:.0f} s")) from None
    archives = list(into.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        said = " ".join(done.stderr.split())[-300:] or f"exit status {done.returncode}"
        raise ViewerUnavailableError(_advice(release, f"npm failed: {said}"))
    return archives[0]


def _fetch_over_https(into: Path, environment: Mapping[str, str], release: OhifRelease) -> Path:
    registry = environment.get("NPM_CONFIG_REGISTRY") or environment.get("npm_config_registry") or PUBLIC_REGISTRY
    url = f"{registry.rstrip('/')}/{release.package}/-/{release.archive_name}"
    target = into / release.archive_name
    try:
        with (
            requests.get(url, stream=True, timeout=(CONNECT_TIMEOUT_S, 60.0), headers=AS_IT_IS) as answer,
            target.open("wb") as file,
        ):
            answer.raise_for_status()
            size = 0
            # The bytes of the wire: unzipping what claims to be zipped could turn one chunk into gigabytes.
            while chunk := answer.raw.read1(1 << 20):
                size += len(chunk)
                if size > MAX_PACKAGE_BYTES:
                    raise ViewerUnavailableError(_advice(release, f"more than {MAX_PACKAGE_BYTES} bytes came"))
                file.write(chunk)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise ViewerUnavailableError(_advice(release, f"download failed: {type(error).__name__}")) from None
    return target


def _advice(release: OhifRelease, problem: str) -> str:
    return (
        f"{release.package} {release.version} could not be fetched ({problem}). "
        "Set NPM_CONFIG_REGISTRY to a registry that this machine reaches, or bring the file "
        f"{release.archive_name} here and run: hydrops-node install-viewer --package FILE"
    )


def _check_integrity(archive: Path, release: OhifRelease) -> None:
    algorithm, _, expected = release.integrity.partition("-")
    with archive.open("rb") as file:
        found = base64.b64encode(hashlib.file_digest(file, algorithm).digest()).decode()
    if found != expected:
        raise ViewerUnavailableError(
            f"{archive.name} is not {release.package} {release.version}: expected {algorithm} {expected[:16]}..., "
            f"found {found[:16]}...; it was not installed"
        )


def packed_file(file: Path) -> Path:
    """Where the gzip of one of OHIF's files lies, if it has one."""
    return file.with_name(f"{file.name}.gz")


def _add_packed(folder: Path) -> None:
    """A gzip beside each large text or program: a first visit loads 5 MB over the network instead of 26 MB."""
    for file in [one for one in folder.rglob("*") if one.suffix in PACKED_KINDS]:
        content = file.read_bytes()
        if len(content) >= PACKED_FROM_BYTES:
            packed_file(file).write_bytes(gzip.compress(content, mtime=0))
            packed_file(file).chmod(0o644)


def _unpack(archive: Path, folder: Path) -> int:
    """The package's dist/ without source maps. Dates are today's: npm writes 1985, which browsers keep for years."""
    count = 0
    with tarfile.open(archive, "r:gz") as package:
        for member in package:
            path = PurePosixPath(member.name)
            if not member.isfile() or path.parts[:2] != ("package", "dist") or path.suffix == ".map":
                continue
            if ".." in path.parts:
                raise ViewerUnavailableError(f"{archive.name} holds a path that leaves its folder: {member.name}")
            target = folder.joinpath(*path.parts[2:])
            target.parent.mkdir(parents=True, exist_ok=True)
            source = package.extractfile(member)
            if source is not None:
                with source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
                os.chmod(target, 0o644)  # noqa: PTH101 - a file to serve, whatever the umask
                count += 1
    if not is_installed(folder):
        raise ViewerUnavailableError(f"{archive.name} holds no dist/index.html; it was not installed")
    return count
