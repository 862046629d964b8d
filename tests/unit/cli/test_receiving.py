"""The receiving process: its feed lives on whatever happens, and its health is known from the start."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from certificates import Authority
from free_ports import free_port
from patience import PATIENCE_S, wait_until
from sqlalchemy.exc import InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dicom_node.cli.receiving import Receiving, run_feed
from dicom_node.database import open_database
from dicom_node.errors import ConfigError
from dicom_node.intake.orthanc_feed import FeedCondition, FeedOptions, OrthancFeed
from dicom_node.intake.spool import Spool
from dicom_node.orthanc_client import OrthancClient
from dicom_node.settings import LoadedSettings, read_settings
from dicom_node.settings.effects import Effect
from dicom_node.web.parts import WebParts


class FeedWithAFault(OrthancFeed):
    """Fails, once; then it is a feed like any other."""

    fault: Exception | None = None

    def poll_once(self) -> int:
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        return super().poll_once()


def feed_with(fault: Exception, folder: Path) -> FeedWithAFault:
    engine = open_database(f"sqlite:///{folder / 'node.db'}")
    nobody = OrthancClient(f"http://127.0.0.1:{free_port()}", timeout_s=1.0)
    feed = FeedWithAFault(
        nobody, Spool(folder / "spool", engine), engine, options=FeedOptions(poll_interval_s=PATIENCE_S)
    )
    feed.fault = fault
    return feed


@pytest.mark.parametrize(
    ("fault", "condition", "detail"),
    [
        (KeyError("Marker^Name"), FeedCondition.FAILED, "a fault of this node (KeyError); its log says where"),
        (
            InterfaceError("SELECT", {}, Exception("Marker^Name")),
            FeedCondition.UNREACHABLE,
            "the state database is away (InterfaceError)",
        ),
        (PoolTimeoutError("busy"), FeedCondition.UNREACHABLE, "the state database is away (TimeoutError)"),
    ],
)
def test_what_stops_the_feed_is_shown_without_its_text(
    tmp_path: Path, fault: Exception, condition: FeedCondition, detail: str
) -> None:
    feed, stop = feed_with(fault, tmp_path), threading.Event()
    thread = threading.Thread(target=run_feed, args=(feed, stop), kwargs={"pause_s": PATIENCE_S})
    thread.start()
    wait_until(lambda: feed.status().condition is not FeedCondition.STARTING)
    status = feed.status()
    stop.set()
    thread.join(PATIENCE_S)
    assert (status.condition, status.detail) == (condition, detail)


def test_a_fault_in_the_feed_is_logged_and_reading_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    feed = feed_with(KeyError("a bug of ours"), tmp_path)
    stop = threading.Event()
    thread = threading.Thread(target=run_feed, args=(feed, stop), kwargs={"pause_s": 0.1})
    with caplog.at_level(logging.ERROR):
        thread.start()
        wait_until(lambda: feed.status().condition is FeedCondition.UNREACHABLE)
        stop.set()
        feed.wake()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert "event=orthanc_feed_failed" in caplog.text


def test_health_answers_on_a_state_folder_that_no_worker_has_seen(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(f"[listener]\nport = {free_port()}\nmin_free_bytes = 0\n[web]\nport = {free_port()}\n")
    loaded = read_settings(config, {})
    program = f"""
        import requests, sys, time
        from pathlib import Path
        from dicom_node.cli.receiving import Receiving
        from dicom_node.settings import read_settings
        assert "fastapi" not in sys.modules  # its import would delay the first C-ECHO
        with Receiving(read_settings(Path({str(config)!r}), {{}})):
            while True:
                try:
                    answer = requests.get("http://127.0.0.1:{loaded.settings.web.port}/health", timeout={PATIENCE_S})
                except requests.ConnectionError:
                    time.sleep(0.05)
                    continue
                print(answer.status_code, answer.json()["problems"])
                break
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert told.stdout == "200 []\n", told.stderr


@pytest.mark.parametrize("lacking", ["web.tls_certificate", "web.tls_key"])
def test_a_wrong_tls_file_of_the_web_ends_the_start_before_a_sender_is_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lacking: str
) -> None:
    names = {"web.tls_certificate": "node.pem", "web.tls_key": "node.key"}
    Authority(tmp_path).sign("node")
    (tmp_path / names[lacking]).unlink()
    config = tmp_path / "node.toml"
    config.write_text(
        f"[listener]\nport = {free_port()}\nmin_free_bytes = 0\n"
        f"[web]\nport = {free_port()}\ntls_certificate = 'node.pem'\ntls_key = 'node.key'\n"
    )
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(ConfigError, match=rf"^{lacking}: expected a PEM file, found nothing at .*{names[lacking]}"),
        Receiving(read_settings(config, {})),
    ):
        pytest.fail("the node started")
    assert "event=listening" not in caplog.text


class Pages:
    """What stands in for the web server: the parts that it was given last."""

    parts: WebParts

    def replace(self, parts: WebParts) -> None:
        self.parts = parts


def test_a_changed_file_opens_no_dashboard_that_the_start_would_have_refused(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"

    def loaded(text: str) -> LoadedSettings:
        config.write_text(text, encoding="utf-8")
        return read_settings(config, {"HYDROPS_WAKE_TOKEN": "secret"})

    pages = Pages()
    receiving = Receiving(loaded("[viewer]\nenabled = false\n[web]\nhost = '0.0.0.0'\ndashboard = false\n"))
    receiving._web, receiving._state = pages, object()  # type: ignore[assignment]  # no server is needed to see it
    changed = "[node]\nstate_dir = 'other'\n[results]\ndevice_name = 'Ear node'\n[web]\ndashboard = true\n"
    receiving._take_over(loaded(changed), frozenset({Effect.RESTART, Effect.WORKER}))
    assert not pages.parts.dashboard
    assert pages.parts.state_dir == (tmp_path / "state").resolve()
    assert pages.parts.node_name == "Ear node"


def test_a_changed_quiet_time_holds_for_what_comes_from_orthanc_without_a_restart(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"

    def loaded(quiet_s: float) -> LoadedSettings:
        config.write_text(f"[orthanc]\nurl = 'http://127.0.0.1:1'\n[assembly]\nquiet_s = {quiet_s}\n")
        return read_settings(config, {"HYDROPS_ORTHANC_PASSWORD": "secret"})

    receiving = Receiving(loaded(7.0))
    assert receiving._feed is not None
    assert receiving._feed._series.quiet_s == 7.0
    receiving._take_over(loaded(12.0), frozenset({Effect.WORKER}))
    assert receiving._feed._series.quiet_s == 12.0
