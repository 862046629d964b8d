"""Run the node: receive, compute, deliver, answer health checks.

  hydrops-node serve --config config/node.toml

Receiving runs in this process and answers a C-ECHO within two seconds of the start; computing runs in a child, so
that nothing a study does to it can touch receiving. A child that dies is started again; work in flight goes on where
it was. Stop with SIGTERM or Ctrl-C: nobody new is let in, associations that are open have 30 s to finish, and so has
the worker.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dicom_node.cli.service import add_service_arguments, until_told_to_stop

log = logging.getLogger(__name__)

FIRST_RESTART_S: Final = 1.0
MAX_RESTART_S: Final = 60.0
HEALTHY_AFTER_S: Final = 60.0
"""A child that lived this long was not a failed start: the next restart waits for the first delay again."""

WORKER_STOP_S: Final = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serve`."""
    add_service_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    from dicom_node.cli.logs import start_logging
    from dicom_node.cli.node_audit import audited_run
    from dicom_node.cli.receiving import Receiving
    from dicom_node.cli.state_folder import listening_role, only_one, prepare
    from dicom_node.cli.wiring import audit_forwarder, audit_trail, load_settings
    from dicom_node.cli.worker_ends import note_worker_end

    start_logging(arguments.log_level)
    path = Path(arguments.config)
    loaded = load_settings(path)
    with (
        only_one(prepare(loaded.state_dir), listening_role(loaded)),
        audited_run(audit_trail(loaded), "receiving", forwarder=audit_forwarder(loaded)),
        until_told_to_stop() as stop,
    ):
        with Receiving(loaded, path) as receiving:

            def ended(exit_status: int, lived_s: float) -> None:
                note_worker_end(receiving.engine, loaded.settings.node.worker_id, exit_status, lived_s=lived_s)

            keeper = threading.Thread(target=_keep_worker, args=(arguments, stop, ended), name="WorkerKeeper")
            keeper.start()
            stop.wait_until_set()
        # After the receiver, which lets in nobody from the first moment on while the worker is still at its study.
        keeper.join()
    return 0


def _keep_worker(arguments: argparse.Namespace, stop: threading.Event, ended: Callable[[int, float], None]) -> None:
    """Start the worker, and again whenever it dies, until `stop`; `ended` gets its exit status and seconds of life."""
    delay_s = FIRST_RESTART_S
    while not stop.is_set():
        began = time.monotonic()
        exit_status = _run_worker(arguments, stop)
        if stop.is_set():
            return
        lived_s = time.monotonic() - began
        if exit_status:
            ended(exit_status, lived_s)
        delay_s = FIRST_RESTART_S if lived_s > HEALTHY_AFTER_S else min(2 * delay_s, MAX_RESTART_S)
        log.error("event=worker_died restart_in_s=%.0f", delay_s)
        stop.wait(delay_s)


def _run_worker(arguments: argparse.Namespace, stop: threading.Event) -> int:
    command = [sys.executable, "-m", "dicom_node.cli", "work", "--until-stdin-ends"]
    command += ["--config", arguments.config, "--log-level", arguments.log_level]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as worker:  # noqa: S603 - our own program, no shell
        while worker.poll() is None and not stop.wait(0.2):
            pass
        if worker.poll() is None:
            worker.terminate()
            try:
                worker.wait(WORKER_STOP_S)
            except subprocess.TimeoutExpired:
                worker.kill()
    return worker.returncode
