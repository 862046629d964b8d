"""Send DICOM files to a DICOM application (C-STORE), as they are.

  hydrops-node send /data/study --to ORTHANC@127.0.0.1:4242

Every file below DIR is sent in its own transfer syntax; files that are not DICOM are left out and counted.
Exit status: 0 everything was taken, 1 something was not (each reason is printed), 2 there is nothing to send.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.cli.peer_address import EXAMPLE, add_calling_ae, peer_address

if TYPE_CHECKING:
    from dicom_node.delivery.store_scu import FileOutcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hydrops-node send`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder (searched to its depths) or one file")
    parser.add_argument(
        "--to", type=peer_address, required=True, metavar="AE@host:port", help=f"the receiver, for example {EXAMPLE}"
    )
    add_calling_ae(parser)


def run(arguments: argparse.Namespace) -> int:
    """Send everything, show progress, sum up."""
    import logging

    from rich.console import Console
    from rich.progress import Progress

    from dicom_node.delivery.outcome import Destination, OutcomeKind
    from dicom_node.delivery.store_scu import read_part10, send_folder
    from dicom_node.errors import UnusableInput

    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # every outcome is printed below, in words
    found = _files(arguments.folder)
    if not found:
        raise UnusableInput(f"{arguments.folder}: no such file or folder, or nothing in it")
    paths = [path for path in found if read_part10(path) is not None]
    if not paths:
        raise UnusableInput(f"{arguments.folder}: none of its {len(found)} files is a DICOM file")
    peer = arguments.to
    destination = Destination(
        name=peer.ae_title,
        kind="dicom",
        host=peer.host,
        port=peer.port,
        called_ae=peer.ae_title,
        calling_ae=arguments.calling,
        timeout_s=arguments.timeout,
    )
    console = Console()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(f"to {peer.ae_title}", total=len(paths))
        outcomes = send_folder(paths, destination, lambda _: bar.advance(task))
    refused = [one for one in outcomes if one.outcome.kind is not OutcomeKind.DELIVERED]
    for line in _summary(outcomes, refused, left_out=len(found) - len(paths)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 1 if refused else 0


def _files(folder: Path) -> list[Path]:
    """Every file, in an order that does not depend on the file system."""
    if folder.is_file():
        return [folder]
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _summary(outcomes: list[FileOutcome], refused: list[FileOutcome], *, left_out: int) -> Iterable[str]:
    """One line for each reason, not for each file: a refused association refuses them all the same way."""
    yield f"{len(outcomes) - len(refused)} of {len(outcomes)} DICOM files taken" + (
        f"; {left_out} without DICOM left out" if left_out else ""
    )
    warnings = {one.outcome.detail for one in outcomes if one not in refused and one.outcome.status}
    yield from sorted(f"note: {detail}" for detail in warnings)
    by_reason: dict[str, list[Path]] = {}
    for one in refused:
        by_reason.setdefault(one.outcome.detail, []).append(one.path)
    for reason, paths in by_reason.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        yield f"not taken: {paths[0]}{more}: {reason}"
