"""Examine this installation and everything it talks to, and say in plain words what to do about each problem.

  hydrops-node doctor --config config/node.toml

Checks in this order, each by doing the thing and not only by reading about it:
  configuration   every key of node.toml, the series rules, secrets that must be in the environment
  ports           each port is free, or held by our own running node
  users           somebody may sign in where dashboard or viewer are shown to a network
  callers         our listener lets every allowed AE in (C-ECHO in its name) and keeps a stranger out
  receivers       every destination answers, knows our AE title and is called by its right name
  tls             certificates and protocol of every connection that is encrypted, and which ones are not
  names           Japanese, Korean, Chinese and French names come through reader, SEG and SR unharmed
  disk            space, kind of file system, writing speed with the flush that every image waits for
  clock           the year makes sense, and Orthanc's clock agrees with ours
  processor       CPU cores, memory, GPU
  model           the weights are the described ones, and they measure a synthetic ear whose truth is known
  orthanc         version, plug-ins, and settings that lose images or let strangers in
  forms           which kinds of result each destination accepts, and so what it will get
  commitment      destinations with done = "committed" take requests for storage commitment and could call us back
  study           one synthetic study through a listener and a worker of its own to a receiver of its own

examples:
  hydrops-node doctor                            everything; a few minutes on two cores
  hydrops-node doctor --only receivers           one check; may be given several times
  hydrops-node doctor --json > doctor.json       for a ticket: holds no secret and no patient
  hydrops-node doctor --orthanc-config /etc/orthanc/orthanc.json    also the settings that Orthanc tells nobody
  hydrops-node doctor --only study --through     the synthetic study goes to the real destinations; asks first
  hydrops-node doctor --test-notice              send one test notice by mail and webhook, and nothing else

Nothing real is changed: without --through no object leaves this machine, and the synthetic study lives in a temporary
folder. Run it as the user that runs the node, with the same environment.

Exit status: 0 no problem (there may be warnings), 1 at least one problem, 2 the command line cannot be used.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dicom_node.cli.doctor.checkup import Check
    from dicom_node.cli.doctor.report import Report

CHECKS: Final = {
    "configuration": "configuration",
    "ports": "ports",
    "users": "users",
    "callers": "callers",
    "receivers": "receivers",
    "tls": "certificates",
    "names": "character_sets",
    "disk": "storage",
    "clock": "clocks",
    "processor": "processor",
    "model": "model",
    "orthanc": "archive",
    "forms": "object_forms",
    "commitment": "commitment",
    "study": "trial_study",
}
"""What is checked, in this order, and the module here that checks it; each is imported when its turn comes."""

EXIT_PROBLEM: Final = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hydrops-node doctor`."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config/node.toml"),
        metavar="NODE_TOML",
        help="configuration of the node to examine (default: %(default)s)",
    )
    parser.add_argument("--only", action="append", choices=tuple(CHECKS), metavar="NAME", help="only this check")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    parser.add_argument(
        "--orthanc-config", type=Path, metavar="ORTHANC_JSON", help="also read Orthanc's own configuration file"
    )
    parser.add_argument(
        "--through", action="store_true", help="let the test objects go to Orthanc and the real destinations"
    )
    parser.add_argument("--yes", action="store_true", help="with --through: do not ask")
    parser.add_argument("--test-notice", action="store_true", help="send a test notice and do nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Run the checks and print what they found; the exit status."""
    import logging

    from dicom_node.cli.doctor.report import Report
    from dicom_node.cli.logs import silence_quotations

    silence_quotations()
    for name in ("pynetdicom", "highdicom", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what they would complain of is said here, in words
    if arguments.through and not _agreed(arguments):
        return EXIT_PROBLEM
    report = Report(as_json=arguments.json)
    _examine(arguments, report)
    report.close()
    return EXIT_PROBLEM if report.problems else 0


def _examine(arguments: argparse.Namespace, report: Report) -> None:
    from dicom_node.cli.doctor import configuration
    from dicom_node.cli.doctor.checkup import Site
    from dicom_node.settings import read_settings

    wanted = [name for name in CHECKS if not arguments.only or name in arguments.only]
    report.begin("configuration")
    problems = configuration.problems(arguments.config)
    if problems or "configuration" in wanted:
        report.add("configuration", configuration.lines(arguments.config, problems))
    if problems:
        return  # every other check would examine something else than what is meant
    site = Site(
        loaded=read_settings(arguments.config, os.environ),
        config=arguments.config,
        through=arguments.through,
        orthanc_config=arguments.orthanc_config,
        say=report.progress,
    )
    for name, check in _checks(arguments, wanted):
        report.begin(name)
        report.add(name, check(site))


def _checks(arguments: argparse.Namespace, wanted: list[str]) -> Iterator[tuple[str, Check]]:
    """Name and function of every check to run after the configuration's."""
    if arguments.test_notice:
        yield "notices", importlib.import_module("dicom_node.cli.doctor.trial_notice").check
        return
    for name in wanted:
        if name != "configuration":
            yield name, importlib.import_module(f"dicom_node.cli.doctor.{CHECKS[name]}").check


def _agreed(arguments: argparse.Namespace) -> bool:
    """Whether the operator wants test objects in real archives."""
    if arguments.yes:
        return True
    print(
        "--through sends a synthetic patient named HYDROPS^TEST to the configured Orthanc and to every destination.\n"
        "Its results stay there until somebody deletes them.",
        file=sys.stderr,
    )
    if not sys.stdin.isatty():
        print("Nobody is here to be asked; add --yes if that is what you want.", file=sys.stderr)
        return False
    print("Send it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
