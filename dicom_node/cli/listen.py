"""Receive only: C-STORE SCP, Orthanc feed, health and wake-up. Pair it with `work`.

hydrops-node listen --config config/node.toml
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dicom_node.cli.service import add_service_arguments, until_told_to_stop


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `listen`."""
    add_service_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Receive until SIGTERM or Ctrl-C."""
    from dicom_node.cli.logs import start_logging
    from dicom_node.cli.node_audit import audited_run
    from dicom_node.cli.receiving import Receiving
    from dicom_node.cli.state_folder import listening_role, only_one, prepare
    from dicom_node.cli.wiring import audit_forwarder, audit_trail, load_settings

    start_logging(arguments.log_level)
    path = Path(arguments.config)
    loaded = load_settings(path)
    with (
        only_one(prepare(loaded.state_dir), listening_role(loaded)),
        audited_run(audit_trail(loaded), "receiving", forwarder=audit_forwarder(loaded)),
        until_told_to_stop() as stop,
        Receiving(loaded, path),
    ):
        stop.wait_until_set()
    return 0
