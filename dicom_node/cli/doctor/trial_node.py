"""A second node for one study: our program and settings, with a state folder, ports and destinations of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import tomlkit

from dicom_node.cli.doctor.checkup import Site
from dicom_node.cli.doctor.result_receiver import ResultReceiver
from dicom_node.cli.wiring import SHIPPED_MODEL, THRESHOLD
from dicom_node.database import open_database
from dicom_node.delivery.outbox import Delivery, DeliveryState, Outbox
from dicom_node.delivery.outcome import Destination
from dicom_node.ledger import Ledger, StudyRecord, StudyState
from dicom_node.owed_failures import OwedFailures
from dicom_node.owed_pictures import OwedPicture, OwedPictures

CALLER: Final = "DOCTOR"
START_S: Final = 30.0
STOP_S: Final = 60.0
LOOK_S: Final = 0.25
LOG_LINES: Final = 5
NEEDED_BYTES: Final = 500_000_000
FINISHED: Final = (StudyState.COMPUTED, StudyState.REFUSED, StudyState.FAILED, StudyState.NOT_OURS)

ELSEWHERE: Final = ("HYDROPS_DATABASE_URL", "HYDROPS_WORKFLOW_URL")
"""With these the trial would write into the real node's database."""


class TrialNodeFailed(Exception):
    """The trial node did not start or did not finish in time; the message ends with its last log lines."""


class TrialNode:
    """Runs `hydrops-node serve` while the block runs.

    Parameters
    ----------
    folder
        Where its configuration, state and log go.
    receiver
        Where results go; None: to the configured destinations.
    """

    def __init__(self, site: Site, folder: Path, *, receiver: ResultReceiver | None) -> None:
        self._log = folder / "node.log"
        self._state = folder / "state"
        self._config = folder / "node.toml"
        self._process: subprocess.Popen[bytes] | None = None
        self._title = site.loaded.settings.node.ae_title
        self._port = free_port()
        content = trial_settings(site, state=self._state, port=self._port, receiver=receiver)
        self._config.write_text(tomlkit.dumps(content), encoding="utf-8")

    @property
    def door(self) -> Destination:
        """How to send to it."""
        return Destination(
            name="trial",
            kind="dicom",
            host="127.0.0.1",
            port=self._port,
            called_ae=self._title,
            calling_ae=CALLER,
        )

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "dicom_node.cli", "serve", "--config", str(self._config)]
        environment = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        while not _accepts(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise TrialNodeFailed(f"a trial node with these settings did not start:\n{self.log_tail()}")
            time.sleep(LOOK_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def wait_until_finished(self, study_uid: str, *, timeout_s: float, say: Callable[[str], None]) -> StudyRecord:
        """Follow the study until it has an outcome that is drawn or told, and nothing of it waits to be delivered.

        Raises
        ------
        TrialNodeFailed
            If that takes longer than `timeout_s`.
        """
        ledger = Ledger(self._engine())
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            record = ledger.get(study_uid)
            if record is not None:
                say(record.step or record.detail or record.state.value)
                owed = self._owed(record)  # asked before the deliveries, to which the page adds its own once drawn
                drawn = owed is None or owed.given_up
                told = not OwedFailures(self._engine()).owes(study_uid)
                waiting = [one for one in self._deliveries(study_uid) if one.state is DeliveryState.WAITING]
                if record.state in FINISHED and drawn and told and not waiting:
                    return record
            time.sleep(LOOK_S)
        raise TrialNodeFailed(f"the study was not finished within {timeout_s:.0f} s:\n{self.log_tail()}")

    def undrawn(self, record: StudyRecord) -> str:
        """Why its page is not drawn; empty if it is."""
        owed = self._owed(record)
        return "" if owed is None else owed.given_up

    def undelivered(self, study_uid: str) -> list[Delivery]:
        """What did not arrive."""
        return [one for one in self._deliveries(study_uid) if one.state is not DeliveryState.DELIVERED]

    def delivered(self, study_uid: str) -> dict[str, list[str]]:
        """Destination -> kinds of what arrived there."""
        arrived: dict[str, list[str]] = {}
        for one in self._deliveries(study_uid):
            if one.state is DeliveryState.DELIVERED:
                arrived.setdefault(one.destination, []).append(one.kind)
        return arrived

    def _owed(self, record: StudyRecord) -> OwedPicture | None:
        return OwedPictures(self._engine()).of_work(record.work_id)

    def _deliveries(self, study_uid: str) -> list[Delivery]:
        return Outbox(self._state / "outbox", self._engine()).deliveries(study_uid)

    def _engine(self) -> Any:
        return open_database(f"sqlite:///{self._state / 'node.db'}")

    def _end(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log_tail(self) -> str:
        """The end of its log, which never names a patient."""
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])


def trial_settings(site: Site, *, state: Path, port: int, receiver: ResultReceiver | None) -> dict[str, Any]:
    """node.toml of the trial: everything that changes results as configured, everything that meets others replaced."""
    loaded, settings = site.loaded, site.loaded.settings
    folder = loaded.config_dir
    processing = asdict(settings.processing)
    if processing["model"] not in (SHIPPED_MODEL, THRESHOLD):
        processing["model"] = str(folder / processing["model"])
    content: dict[str, Any] = {
        "node": {"ae_title": settings.node.ae_title, "state_dir": str(state), "worker_id": "doctor"},
        "listener": {
            "host": "127.0.0.1",
            "port": port,
            "min_free_bytes": NEEDED_BYTES,
            "allowed": [{"ae_title": CALLER, "networks": ["127.0.0.1/32"]}],
        },
        "assembly": {"rules_file": str(folder / settings.assembly.rules_file), "quiet_s": 2.0},
        "processing": processing,
        "results": asdict(settings.results),
        "delivery": {"first_retry_s": 2.0, "max_retry_s": 10.0, "give_up_after_h": 0.02},
        "web": {"host": "127.0.0.1", "port": free_port(), "dashboard": False},
        "viewer": {"enabled": False},
    }
    if receiver is None:
        content["destinations"] = [_absolute(asdict(one), folder) for one in settings.destinations]
    else:
        there = receiver.destination(settings.node.ae_title)
        content["destinations"] = [
            {"name": there.name, "kind": "dicom", "host": there.host, "port": there.port, "called_ae": there.called_ae}
        ]
    return content


def _absolute(destination: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A destination whose TLS files are found from another folder, too."""
    files = ("tls_ca", "tls_certificate", "tls_key")
    return {
        key: str(folder / value) if key in files and value else list(value) if isinstance(value, tuple) else value
        for key, value in destination.items()
    }


def free_port() -> int:
    """A TCP port that nobody on this machine listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
