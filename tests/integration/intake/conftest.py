"""A running listener on a free port, and DCMTK."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from patience import STUDY_S

from dicom_node.database import open_database
from dicom_node.intake.listener import AllowedPeer, Listener, ListenerOptions
from dicom_node.intake.spool import Spool

SCANNER = AllowedPeer(ae_title="SCANNER", networks=("127.0.0.0/8",))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An empty spool on SQLite."""
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    yield Spool(tmp_path / "spool", engine)
    engine.dispose()


@pytest.fixture
def start_listener(spool: Spool) -> Iterator[Callable[..., Listener]]:
    """Start a listener on a free port; keywords are options, `into` another spool. Stopped after the test."""
    started: list[Listener] = []

    def start(*, into: Spool = spool, ae_title: str = "HYDROPS", **options: object) -> Listener:
        chosen: dict[str, object] = {"port": 0, "allowed": (SCANNER,), **options}
        listener = Listener(ListenerOptions(ae_title=ae_title, **chosen), into)  # type: ignore[arg-type]
        listener.start()
        started.append(listener)
        return listener

    yield start
    for listener in started:
        if listener.is_running:
            listener.stop(drain_s=0)


@pytest.fixture
def dcmtk() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a DCMTK program; without TCP_NODELAY every image would cost 40 ms."""

    def run(*command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TCP_NODELAY": "1"}
        words = [str(word) for word in command]
        return subprocess.run(words, env=environment, check=check, capture_output=True, text=True, timeout=STUDY_S)

    return run
