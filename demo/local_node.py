"""`hydrops-node serve` in a folder of its own on free loopback ports: the node of the demo and of the tests.

with LocalNode(folder, orthanc=orthanc, entrance="orthanc") as node:
    node.wait_until_finished(study_instance_uid)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from free_ports import free_port
from local_orthanc import LocalOrthanc

from dicom_node.database import open_database
from dicom_node.delivery.outbox import DeliveryState, Outbox
from dicom_node.ledger import Ledger, StudyRecord, StudyState
from dicom_node.owed_failures import OwedFailures
from dicom_node.owed_pictures import OwedPictures
from dicom_node.web.viewer.links import viewer_link

REPOSITORY: Final = Path(__file__).resolve().parent.parent
START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 120.0
FINISHED: Final = (StudyState.COMPUTED, StudyState.REFUSED, StudyState.FAILED, StudyState.NOT_OURS)


class NodeFailedError(RuntimeError):
    """The node did not start, or did not finish in time; the message ends with its log."""


class LocalNode:
    """Runs one node; a context manager.

    Parameters
    ----------
    folder
        Where configuration, state and log go and stay.
    orthanc
        The PACS: source of images (entrance "orthanc"), sender (entrance "dicom") and receiver of results.
    entrance
        "orthanc": read over REST from a stored cursor; "dicom": C-STORE only.
    callers
        AE titles that may send to the node from this machine.
    overrides
        TOML text added to sections, by section name, e.g. ``{"assembly": "quiet_s = 2.0"}``.
    dicom_port, web_port
        Free ones are taken when None; chosen beforehand where the PACS must know them first.
    environment
        Variables beside those of this process.
    command
        "serve", or "listen" for a node that receives only and starts in a second.
    """

    def __init__(
        self,
        folder: Path,
        *,
        orthanc: LocalOrthanc | None = None,
        entrance: str = "orthanc",
        callers: Sequence[str] = ("ORTHANC", "SCANNER"),
        overrides: Mapping[str, str] | None = None,
        dicom_port: int | None = None,
        web_port: int | None = None,
        command: str = "serve",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.dicom_port = dicom_port or free_port()
        self.web_port = web_port or free_port()
        self.viewer_port = free_port()
        self._orthanc = orthanc
        self._entrance = entrance
        self._callers = tuple(callers)
        self._overrides = dict(overrides or {})
        self._command = command
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        """Its node.toml."""
        return self.folder / "config" / "node.toml"

    @property
    def log_path(self) -> Path:
        """What it logged, over all its starts."""
        return self.folder / "node.log"

    @property
    def state_dir(self) -> Path:
        """Its spool, databases and outbox."""
        return self.folder / "state"

    @property
    def wake_url(self) -> str:
        """Where Orthanc's hook knocks."""
        return f"http://127.0.0.1:{self.web_port}/wake/orthanc"

    @property
    def health_url(self) -> str:
        """GET it for the node's state as JSON."""
        return f"http://127.0.0.1:{self.web_port}/health"

    def viewer_url(self, study: str) -> str:
        """Where OHIF shows one study, if OHIF is installed and the PACS has DICOMweb."""
        return viewer_link(f"http://127.0.0.1:{self.viewer_port}", "127.0.0.1", study)

    @property
    def ledger(self) -> Ledger:
        """What became of every study."""
        return Ledger(open_database(f"sqlite:///{self.state_dir / 'node.db'}"))

    @property
    def outbox(self) -> Outbox:
        """What is delivered."""
        return Outbox(self.state_dir / "outbox", open_database(f"sqlite:///{self.state_dir / 'node.db'}"))

    def pids(self) -> list[int]:
        """Process id of the receiving parent, if it runs."""
        return [] if self._process is None else [self._process.pid]

    def worker_pids(self) -> list[int]:
        """Process ids of the computing child."""
        if self._process is None:
            return []
        # The kernel lists children by the thread that started them, and the worker is started by a thread of its own.
        pids: list[int] = []
        for children in Path(f"/proc/{self._process.pid}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
                pids += map(int, children.read_text().split())
        return pids

    def start(self) -> None:
        """Start it, on the same state as before if it ran before, and wait until it listens.

        Raises
        ------
        NodeFailedError
            If it ends at once or does not listen within two minutes.
        """
        self._write_configuration()
        environment = os.environ | self._environment
        if self._orthanc is not None:
            environment["HYDROPS_ORTHANC_PASSWORD"] = self._orthanc.password
            environment["HYDROPS_DESTINATION_PACS_PASSWORD"] = self._orthanc.password
        command = [sys.executable, "-m", "dicom_node.cli", self._command, "--config", str(self.config)]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _accepts(self.dicom_port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NodeFailedError(f"the node did not start:\n{self.log_tail()}")
            time.sleep(0.05)

    def stop(self) -> int:
        """End it in good order (SIGTERM); its exit status."""
        return self._end(signal.SIGTERM)

    def wait_for_its_end(self) -> int:
        """Its exit status, once it has ended by itself or because somebody else told it to."""
        return self._end(None)

    def kill(self) -> None:
        """End it, parent and child, as a power failure would (SIGKILL)."""
        workers = self.worker_pids()
        self._end(signal.SIGKILL)
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):  # it may have noticed by itself that its parent has gone
                os.kill(pid, signal.SIGKILL)

    def wait_until_finished(
        self, study: str, *, timeout_s: float = 600.0, on_change: Callable[[str], None] = lambda _text: None
    ) -> StudyRecord:
        """Follow one study until it has an outcome, all of it is drawn, and nothing of it waits to be delivered.

        Raises
        ------
        NodeFailedError
            If that takes longer than `timeout_s`.
        """
        engine = open_database(f"sqlite:///{self.state_dir / 'node.db'}")
        ledger, outbox, owed, failures = self.ledger, self.outbox, OwedPictures(engine), OwedFailures(engine)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            record = ledger.get(study)
            if record is not None:
                on_change(record.step or record.detail or record.state.value)
                drawn = (lacking := owed.of_work(record.work_id)) is None or lacking.given_up
                told = not failures.owes(study)  # asked before the deliveries, to which the report adds its own
                waiting = [one for one in outbox.deliveries(study) if one.state is DeliveryState.WAITING]
                if record.state in FINISHED and drawn and told and not waiting:
                    return record
            time.sleep(0.1)
        raise NodeFailedError(f"study {study} was not finished within {timeout_s:.0f} s:\n{self.log_tail()}")

    def log_tail(self, characters: int = 3000) -> str:
        """The end of its log."""
        return self.log_path.read_text(errors="replace")[-characters:] if self.log_path.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals | None) -> int:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        if how is not None and process.poll() is None:
            process.send_signal(how)
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _write_configuration(self) -> None:
        self.config.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / "config" / "series_rules.toml", self.config.parent)
        sections = {
            "node": f'state_dir = "{self.state_dir}"',
            "listener": f"port = {self.dicom_port}\nmin_free_bytes = 500000000",
            "web": f"port = {self.web_port}",
            "viewer": f"port = {self.viewer_port}",
            "assembly": "quiet_s = 5.0",
        }
        if self._orthanc is not None and self._entrance == "orthanc":
            sections["orthanc"] = f'url = "{self._orthanc.url}"\nusername = "{self._orthanc.username}"'
        for name, text in self._overrides.items():
            kept = [line for line in sections.get(name, "").splitlines() if line.split(" ")[0] not in text]
            sections[name] = "\n".join([*kept, text])
        parts = [f"[{name}]\n{text}\n" for name, text in sections.items()]
        parts += [
            f'[[listener.allowed]]\nae_title = "{caller}"\nnetworks = ["127.0.0.1/32"]\n' for caller in self._callers
        ]
        if self._orthanc is not None:
            parts.append(
                f'[[destinations]]\nname = "pacs"\nkind = "orthanc"\nurl = "{self._orthanc.url}"\n'
                f'username = "{self._orthanc.username}"\n'
            )
        self.config.write_text("\n".join(parts), encoding="utf-8")


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
