"""`hydrops-node`: one module per command, imported only when its command runs, so that help is instant."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final

from dicom_node import __version__
from dicom_node.errors import NodeError

COMMANDS: Final = {
    "serve": "run the node: receive, compute, deliver, answer health checks",
    "listen": "receive only (C-STORE SCP and Orthanc feed); pair it with `work`",
    "work": "compute and deliver only; pair it with `listen`",
    "status": "show every study and what became of it, or one study with its whole history",
    "user": "add, list, change or remove who may use the dashboard",
    "study": "have a study retried, replayed, forced, canceled, or its results sent again",
    "retention": "show what is kept how long, what goes next, and what is held and why",
    "erase": "erase everything that the node has of a study, or of a patient",
    "audit": "check the trail of who did what, or show it",
    "process": "compute studies from folders, DICOM or NIfTI, without any network; a table of all of them",
    "phantom": "write a synthetic hydrops study with known truth as DICOM",
    "train": "train the network: on synthetic ears, on your labeled ears, or on both",
    "evaluate": "judge a model against known truth: synthetic patients or your labeled ears",
    "send": "send a folder of DICOM files to an AE (C-STORE)",
    "echo": "ask an AE whether it is there and lets us in (C-ECHO)",
    "calibrate": "read a model's intervals again on whole studies that were evaluated",
    "import-weights": "turn IE-Vnet's published weights into a model folder",
    "install-viewer": "fetch the OHIF viewer that the node serves, pinned and checked",
    "doctor": "examine this installation and everything it talks to; each problem with the next step",
    "parts": "list the parts of this installation with their versions (SBOM)",
    "conformance": "write the DICOM conformance statement and the IHE AIR sheet from this program",
    "check-config": "check config/node.toml and say what is wrong, key by key",
}

_EPILOG: Final = """\
a first run without any scanner:
  hydrops-node phantom --seed 1 --out /tmp/study          a synthetic patient
  hydrops-node process /tmp/study/dicom --out /tmp/result  seg.dcm, sr.dcm, findings.json
  hydrops-node COMMAND --help                              every option, with examples

Research use only. Not for diagnostic use. Not a medical device.
"""

EXIT_UNUSABLE: Final = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 2 unusable input or configuration, others per command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in arguments if not word.startswith("-")), "")
    parser = _parser(name)
    if not arguments:
        parser.print_help()
        return EXIT_UNUSABLE
    parsed = parser.parse_args(arguments)
    try:
        return int(_module(name).run(parsed))
    except NodeError as error:
        print(f"hydrops-node {name}: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        return 130


def _parser(name: str) -> argparse.ArgumentParser:
    """The parser with the arguments of command `name`, and one line about each of the others."""
    parser = argparse.ArgumentParser(
        prog="hydrops-node",
        description="Inner-ear hydrops MRI in, segmentation overlay and EH ratios out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hydrops-node {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, summary in COMMANDS.items():
        module = _module(command) if command == name else None
        sub = commands.add_parser(
            command,
            help=summary,
            description=(module.__doc__ if module else summary),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module:
            module.add_arguments(sub)
    return parser


def _module(command: str) -> Any:
    return importlib.import_module(f"dicom_node.cli.{command.replace('-', '_')}")


if __name__ == "__main__":
    sys.exit(main())
