"""Every HTTP body that the node takes, from a peer that lies about it: length, chunks, compression, time (S18).

Answers of an Orthanc have their tests in test_orthanc_client.py.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from dashboard_parts import Dashboard, make_parts, serving
from patience import PATIENCE_S

from dicom_node.notices.channels import NoticeNotSent, WebhookChannel
from dicom_node.notices.digest import Digest
from dicom_node.web import headers
from dicom_node.web.headers import MAX_BODY_BYTES
from dicom_node.web.viewer import archive as archive_module
from dicom_node.web.viewer import installation
from dicom_node.web.viewer.access import Doors, Onlooker
from dicom_node.web.viewer.archive import Archive
from dicom_node.web.viewer.installation import OhifRelease, ViewerUnavailableError, fetch
from dicom_node.web.viewer.origin import ViewerParts, create_viewer_app

MIB = 1 << 20
SMALL_GROWTH_KIB = 32 * 1024
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
BOMB = gzip.compress(bytes(256 * MIB))
"""A quarter of a megabyte that wants to be 256."""


class RawServer:
    """Answers every connection by a function that gets the socket after the request's head was read."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            self._answer(connection)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def hostile() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Start a server that answers as told; its address."""
    started: list[RawServer] = []

    def start(answer: Callable[[socket.socket], None]) -> str:
        started.append(RawServer(answer))
        return started[-1].url

    yield start
    for one in started:
        one.close()


def send_chunks_for_ever(connection: socket.socket) -> None:
    connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"100000\r\n" + bytes(MIB) + b"\r\n")


def send_bomb(connection: socket.socket) -> None:
    connection.sendall(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB)


def resident_kib() -> int:
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[Dashboard]:
    with serving(make_parts(tmp_path)) as started:
        yield started


def ask(dashboard: Dashboard, head: str, *body: bytes) -> bytes:
    """What comes back to a POST of the sign-in form, written by hand, until the node closes."""
    host, port = dashboard.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as peer:
        form = "Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n"
        peer.sendall(f"POST /sign-in HTTP/1.1\r\nHost: {host}\r\n{form}{head}\r\n\r\n".encode())
        received = b""
        with contextlib.suppress(OSError):  # the node may hang up while we are still sending
            for piece in body:
                peer.sendall(piece)
        with contextlib.suppress(ConnectionResetError):
            while piece := peer.recv(65536):
                received += piece
        return received


def is_well(dashboard: Dashboard) -> bool:
    return httpx.get(f"{dashboard.url}/sign-in", timeout=PATIENCE_S).status_code == 200


@pytest.mark.parametrize(
    "announced", [str(MAX_BODY_BYTES + 1), "99999999999999999999", "-1", "1e3", "0x10"], ids=lambda text: text
)
def test_s18_a_length_that_is_too_large_or_none_is_refused_before_the_body_is_read(dashboard, announced):
    assert ask(dashboard, f"Content-Length: {announced}").split(b" ", 2)[1] in (b"400", b"413")
    assert is_well(dashboard)


def test_s18_more_than_the_announced_length_is_not_part_of_the_form(dashboard):
    answer = ask(dashboard, "Content-Length: 6", b"name=a" + b"x" * MIB)
    assert answer.startswith(b"HTTP/1.1 4")
    assert is_well(dashboard)


def test_s18_a_chunked_body_without_an_end_is_cut_off_at_the_limit(dashboard):
    before = resident_kib()
    pieces = [b"10000\r\n" + b"x" * 65536 + b"\r\n"] * (64 * MIB // 65536)
    answer = ask(dashboard, "Transfer-Encoding: chunked", *pieces)
    assert not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 3"))
    assert resident_kib() - before < SMALL_GROWTH_KIB
    assert is_well(dashboard)


def test_s18_a_zipped_form_is_not_unzipped(dashboard):
    before = resident_kib()
    answer = ask(dashboard, f"Content-Encoding: gzip\r\nContent-Length: {len(BOMB)}", BOMB)
    assert answer.startswith(b"HTTP/1.1 4")
    assert resident_kib() - before < SMALL_GROWTH_KIB


def test_s18_a_body_that_drips_is_hung_up_on(dashboard, monkeypatch):
    monkeypatch.setattr(headers, "MAX_BODY_S", 1.0)
    answer = ask(dashboard, "Content-Length: 1000", b"name=a")  # comes back: the node has closed
    assert not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 3"))
    assert is_well(dashboard)


def test_s18_the_wake_up_reads_no_body_at_all(tmp_path: Path):
    woken = []
    with serving(make_parts(tmp_path, wake=lambda: woken.append(True))) as node:
        pieces = (b"x" * 65536 for _ in range(2 * MAX_BODY_BYTES // 65536))
        with contextlib.suppress(httpx.TransportError):
            httpx.post(f"{node.url}/wake/orthanc", content=pieces, timeout=PATIENCE_S)
        assert is_well(node)
    assert len(woken) <= 1


@contextlib.contextmanager
def window_to(url: str, folder: Path) -> Iterator[str]:
    """The viewer's server over HTTP, in front of an archive at `url`; the address of its DICOMweb."""
    (folder / "index.html").write_text("<html></html>")
    doors = Doors(host="127.0.0.1", dashboard_url=lambda name: f"http://{name}:8080/")
    parts = ViewerParts(
        files=folder,
        archive=Archive(url=url),
        doors=doors,
        onlooker=lambda _request: Onlooker(name="vera", session_id="1"),
        opened=lambda _who, _study, _address: None,
        searched=lambda _who, _query, _address: None,
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_viewer_app(parts), log_config=None, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/dicom-web"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(PATIENCE_S)
        listening.close()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(send_bomb, id="zipped"),
        pytest.param(
            lambda peer: peer.sendall(OK + b"Content-Length: 99999999999\r\n\r\n" + bytes(MIB)), id="too long"
        ),
    ],
)
def test_s18_an_archives_answer_that_is_zipped_or_too_long_is_not_passed_on(hostile, tmp_path, answer):
    before = resident_kib()
    with window_to(hostile(answer), tmp_path) as window:
        assert httpx.get(f"{window}/studies", timeout=PATIENCE_S).status_code == 502
    assert resident_kib() - before < SMALL_GROWTH_KIB


def test_s18_an_archive_that_never_ends_is_cut_off_and_never_held_in_memory(hostile, tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_ANSWER_BYTES", 64 * MIB)
    before = resident_kib()
    taken: list[int] = []
    with window_to(hostile(send_chunks_for_ever), tmp_path) as window:
        with pytest.raises(httpx.RemoteProtocolError):
            read_on(f"{window}/studies", taken)
        assert 32 * MIB < sum(taken) <= 64 * MIB
        assert resident_kib() - before < SMALL_GROWTH_KIB


def read_on(url: str, taken: list[int]) -> None:
    with httpx.stream("GET", url, timeout=PATIENCE_S) as answer:
        taken.extend(len(piece) for piece in answer.iter_raw())


def test_s18_half_an_answer_of_the_archive_is_not_taken_for_a_whole_one(hostile, tmp_path):
    short = OK + b"Content-Length: 1000\r\n\r\n" + b"[]"
    url = hostile(lambda peer: peer.sendall(short))
    with window_to(url, tmp_path) as window, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{window}/studies", timeout=PATIENCE_S)


def message() -> Digest:
    return Digest(subject="One study refused", text="", document={}, identification="1")


@pytest.mark.parametrize("answer", [send_chunks_for_ever, send_bomb], ids=["without end", "zipped"])
def test_s18_what_a_webhook_answers_is_not_read(hostile, answer):
    before = resident_kib()
    WebhookChannel(url=hostile(answer)).send(message())  # comes back, though the answer may have no end
    assert resident_kib() - before < SMALL_GROWTH_KIB


def test_s18_a_webhook_whose_head_never_ends_is_given_up(hostile):
    def endless_head(connection: socket.socket) -> None:
        connection.sendall(OK)
        while True:
            connection.sendall(b"X-More: " + b"x" * 4000 + b"\r\n")

    with pytest.raises(NoticeNotSent):
        WebhookChannel(url=hostile(endless_head)).send(message())


RELEASE = OhifRelease(package="@ohif/app", version="1.2.3", integrity="sha512-none")


def test_s18_a_package_without_an_end_is_not_taken(hostile, tmp_path, monkeypatch):
    monkeypatch.setattr(installation, "MAX_PACKAGE_BYTES", 8 * MIB)
    with pytest.raises(ViewerUnavailableError, match="more than 8388608 bytes"):
        fetch(tmp_path, {"NPM_CONFIG_REGISTRY": hostile(send_chunks_for_ever), "PATH": ""}, RELEASE)
    assert all(path.stat().st_size <= 8 * MIB for path in tmp_path.rglob("*"))


def test_s18_a_package_that_was_zipped_once_more_is_not_unzipped_on_the_way(hostile, tmp_path):
    before = resident_kib()
    path = fetch(tmp_path, {"NPM_CONFIG_REGISTRY": hostile(send_bomb), "PATH": ""}, RELEASE)
    assert path.stat().st_size == len(BOMB)
    assert resident_kib() - before < SMALL_GROWTH_KIB
