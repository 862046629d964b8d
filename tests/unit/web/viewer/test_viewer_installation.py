"""OHIF comes from a registry, by npm or without, and only the very package that was pinned is installed."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import shutil
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dicom_node.web.viewer.installation import (
    PINNED,
    OhifRelease,
    ViewerUnavailableError,
    fetch,
    install,
    is_installed,
    packed_file,
    viewer_folder,
)

FILES = {
    "package/dist/index.html": b"<html>",
    "package/dist/assets/logo.svg": b"<svg/>",
    "package/dist/app.bundle.js.map": b"{}",
    "package/README.md": b"read me",
}


def package(path: Path, files: dict[str, bytes] = FILES) -> OhifRelease:
    """A package as npm packs it, and the release that pins it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    return OhifRelease(package="@ohif/app", version="1.2.3", integrity=f"sha512-{digest}")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry with one package, over HTTP."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "registry")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


def test_only_what_a_browser_loads_is_installed(tmp_path: Path) -> None:
    release = package(tmp_path / "app.tgz")
    folder = viewer_folder(release, tmp_path)
    assert install(tmp_path / "app.tgz", folder, release) == 2
    assert is_installed(folder)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == ["assets/logo.svg", "index.html"]
    assert [one.name for one in folder.parent.iterdir()] == ["ohif-1.2.3"]


def test_large_programs_get_a_packed_copy_beside_them(tmp_path: Path) -> None:
    program = b"const a = 1;\n" * 5000
    release = package(tmp_path / "app.tgz", {**FILES, "package/dist/app.js": program, "package/dist/logo.png": program})
    folder = viewer_folder(release, tmp_path)
    assert install(tmp_path / "app.tgz", folder, release) == 4
    packed = packed_file(folder / "app.js")
    assert gzip.decompress(packed.read_bytes()) == program
    assert packed.stat().st_size < len(program) / 10
    assert not packed_file(folder / "logo.png").exists()
    assert not packed_file(folder / "index.html").exists()


def test_another_package_than_the_pinned_one_is_not_installed(tmp_path: Path) -> None:
    release = package(tmp_path / "app.tgz")
    (tmp_path / "app.tgz").write_bytes((tmp_path / "app.tgz").read_bytes() + b"\0")
    folder = viewer_folder(release, tmp_path)
    with pytest.raises(ViewerUnavailableError, match=r"expected sha512 .* found"):
        install(tmp_path / "app.tgz", folder, release)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("files", "complaint"),
    [({**FILES, "package/dist/../../evil": b""}, "leaves its folder"), ({"package/dist/app.js": b""}, "no dist/index")],
)
def test_a_package_that_cannot_be_ohif_leaves_nothing_behind(
    tmp_path: Path, files: dict[str, bytes], complaint: str
) -> None:
    release = package(tmp_path / "app.tgz", files)
    folder = viewer_folder(release, tmp_path)
    with pytest.raises(ViewerUnavailableError, match=complaint):
        install(tmp_path / "app.tgz", folder, release)
    assert list(folder.parent.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_without_npm_the_package_comes_over_http_from_the_configured_registry(tmp_path: Path, registry: str) -> None:
    release = package(tmp_path / "registry" / "@ohif" / "app" / "-" / "app-1.2.3.tgz")
    environment = {"PATH": str(tmp_path), "NPM_CONFIG_REGISTRY": f"{registry}/"}
    archive = fetch(tmp_path, environment, release)
    assert install(archive, viewer_folder(release, tmp_path), release) == 2


def test_a_registry_without_the_package_says_what_to_do(tmp_path: Path, registry: str) -> None:
    release = package(tmp_path / "app.tgz")
    with pytest.raises(ViewerUnavailableError, match=r"NPM_CONFIG_REGISTRY.*install-viewer --package FILE"):
        fetch(tmp_path, {"PATH": str(tmp_path), "NPM_CONFIG_REGISTRY": registry}, release)


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine")
def test_npm_that_reaches_no_registry_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9/")
    monkeypatch.setenv("NPM_CONFIG_FETCH_RETRIES", "0")
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(ViewerUnavailableError, match=r"npm failed.*NPM_CONFIG_REGISTRY"):
        fetch(into, {"PATH": str(Path(shutil.which("npm") or "").parent)}, replace(PINNED, version="1.2.3"))
