"""Both hooks inside a real Orthanc: they wake the node, and storing never notices whether the node is there."""

from __future__ import annotations

import ast
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from free_ports import free_port
from local_orthanc import LocalOrthanc
from orthanc_parts import get_json, mr_series, put, stable_events, storescu
from patience import PATIENCE_S, wait_until
from pydicom.uid import SegmentationStorage

from dicom_node.database import open_database
from dicom_node.intake.orthanc_feed import FeedCondition, FeedOptions, OrthancFeed
from dicom_node.intake.spool import Spool
from dicom_node.orthanc_client import OrthancClient

pytestmark = [pytest.mark.orthanc]

PLUGIN = Path(__file__).resolve().parents[2] / "orthanc_plugin"
HOOKS = {
    "lua": {"lua_scripts": [PLUGIN / "route_to_node.lua"]},
    "python": {"python_script": PLUGIN / "route_to_node.py"},
}
TOKEN = "a-token-for-the-test"
ORTHANC_TIMEOUT_S = round(2 * PATIENCE_S)  # a call to a node that never answers ends after any test's patience


class WakeServer(ThreadingHTTPServer):
    """Stands where the node's web server stands and notes (path, token, body); calls `on_call` if there is one."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None, bytes]] = []
        self.on_call: Any = None
        super().__init__(("127.0.0.1", 0), _WakeHandler)


class _WakeHandler(BaseHTTPRequestHandler):
    server: WakeServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls.append((self.path, self.headers["X-Hydrops-Token"], body))
        self.send_response(202)
        self.end_headers()
        if self.server.on_call:
            self.server.on_call()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def wake_server() -> Iterator[WakeServer]:
    with WakeServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def orthanc_with(hook: str, wake_port: int, *, stable_age_s: int = 1) -> LocalOrthanc:
    settings = {
        "StableAge": stable_age_s,
        "HttpTimeout": ORTHANC_TIMEOUT_S,
        "HydropsNode": {"WakeUrl": f"http://127.0.0.1:{wake_port}/wake/orthanc", "WakeToken": "${HYDROPS_WAKE_TOKEN}"},
    }
    return LocalOrthanc(extra=settings, environment={"HYDROPS_WAKE_TOKEN": TOKEN}, **HOOKS[hook])  # type: ignore[arg-type]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_stable_mr_series_wakes_the_node_and_says_nothing_about_the_patient(
    hook: str, wake_server: WakeServer
) -> None:
    with orthanc_with(hook, wake_server.server_port) as orthanc:
        put(orthanc, mr_series(1, modality="SEG", sop_class=SegmentationStorage)[2])
        series = put(orthanc, mr_series(3)[2])[0]["ParentSeries"]
        wait_until(lambda: len(wake_server.calls) == 2 and stable_events(orthanc) == 2)
    assert {(path, token) for path, token, _ in wake_server.calls} == {("/wake/orthanc", TOKEN)}
    said = [json.loads(body) for _, _, body in wake_server.calls]
    assert said == [{"event": "NewSeries", "series": series}, {"event": "StableSeries", "series": series}]


@pytest.mark.parametrize("hook", HOOKS)
def test_series_whose_images_alternate_are_each_told_of_once_as_begun(hook: str, wake_server: WakeServer) -> None:
    first, second = mr_series(4)[2], mr_series(4)[2]
    with orthanc_with(hook, wake_server.server_port) as orthanc:
        stored = put(orthanc, [one for pair in zip(first, second, strict=True) for one in pair])
        wait_until(lambda: len(wake_server.calls) >= 4 and stable_events(orthanc) == 2)
    said = [json.loads(body) for _, _, body in wake_server.calls]
    series = {one["ParentSeries"] for one in stored}
    assert len(said) == 4
    for event in ("NewSeries", "StableSeries"):
        assert {one["series"] for one in said if one["event"] == event} == series


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("stable_age_s", [1, round(10 * PATIENCE_S)], ids=["stable", "arriving"])
def test_the_hook_brings_a_series_into_the_spool_long_before_the_next_poll(
    hook: str, stable_age_s: int, wake_server: WakeServer, tmp_path: Path
) -> None:
    with orthanc_with(hook, wake_server.server_port, stable_age_s=stable_age_s) as orthanc:
        engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
        spool = Spool(tmp_path / "spool", engine)
        client = OrthancClient(orthanc.url, username=orthanc.username, password=orthanc.password)
        feed = OrthancFeed(client, spool, engine, options=FeedOptions(poll_interval_s=600))
        wake_server.on_call = feed.wake
        stop = threading.Event()
        thread = threading.Thread(target=feed.run, args=(stop,))
        thread.start()
        try:
            wait_until(lambda: feed.status().condition is FeedCondition.READING)
            put(orthanc, mr_series(1)[2])
            wait_until(lambda: spool.studies())
            assert [study.instances for study in spool.studies()] == [1]
        finally:
            stop.set()
            thread.join(PATIENCE_S)


@pytest.mark.dcmtk
@pytest.mark.parametrize("hook", HOOKS)
def test_images_are_stored_while_the_hook_waits_for_a_hung_node(hook: str, tmp_path: Path) -> None:
    with socket.socket() as hung:  # accepts and never answers
        hung.bind(("127.0.0.1", 0))
        hung.listen()
        hung.settimeout(PATIENCE_S)
        with orthanc_with(hook, hung.getsockname()[1]) as orthanc:
            put(orthanc, mr_series(1)[2])
            call, _ = hung.accept()
            storescu(orthanc, mr_series(50)[2], tmp_path / "sent")
            assert is_waiting(call)
            call.close()
            assert get_json(orthanc, "/statistics")["CountInstances"] == 51


def is_waiting(call: socket.socket) -> bool:
    """Whether who called has not hung up."""
    call.setblocking(False)
    try:
        while call.recv(65536):
            pass
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize("hook", HOOKS)
def test_a_node_that_is_down_is_reported_once_and_nothing_fails(hook: str) -> None:
    with orthanc_with(hook, free_port()) as orthanc:
        for _ in range(3):
            put(orthanc, mr_series(1)[2])
        wait_until(lambda: stable_events(orthanc) == 3)
        wait_until(lambda: "Hydrops Node does not answer" in orthanc.log_path.read_text())
        time.sleep(0.5)  # two more calls would have been refused by now
        assert orthanc.log_path.read_text().count("Hydrops Node does not answer") == 1


def test_the_hooks_use_nothing_but_the_standard_library_and_orthanc() -> None:
    tree = ast.parse((PLUGIN / "route_to_node.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"orthanc"}
    lua = re.sub(r"--.*", "", (PLUGIN / "route_to_node.lua").read_text())
    assert set(re.findall(r"\b(?:os|io)\.\w+", lua)) == {"os.time"}  # runs no program and opens no file
    assert not re.search(r"\b(?:require|dofile|loadstring|load)\b", lua)
