"""Erase everything that the node has of a study, or of every study of a patient.

hydrops-node erase --study UID           says what is here of it; changes nothing
hydrops-node erase --study UID --yes     erases it
hydrops-node erase --patient ID --yes    erases every study under this Patient ID

Images, results, pictures, numbers, history, reviews and requests go. What was delivered is not touched, and results
that wait are not sent any more. The audit trail keeps its entries, and gets one about this. The node may be running. A
study that a worker is at has to be canceled first. Exit status: 0 done or shown, 1 something was not erased.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_node.retention import StudyInventory
    from dicom_node.settings import LoadedSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `erase`."""
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--study", metavar="UID", help="Study Instance UID")
    whose.add_argument("--patient", metavar="ID", help="Patient ID, as the list of studies shows it")
    parser.add_argument("--yes", action="store_true", help="erase; without it, only say what there is")
    parser.add_argument("--config", default="config/node.toml", metavar="NODE_TOML", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Say what there is, and erase it if that was said."""
    from dicom_node.cli.logs import start_logging
    from dicom_node.cli.retention import inventory_of
    from dicom_node.cli.wiring import load_settings
    from dicom_node.errors import UnusableInput

    loaded = load_settings(Path(arguments.config))
    inventory = inventory_of(loaded)
    studies = [arguments.study] if arguments.study else _studies_of(loaded, arguments.patient)
    found = [one for one in map(inventory.of_study, studies) if one is not None]
    if not found:
        raise UnusableInput("the node has nothing of this study; `hydrops-node status` lists what is known")
    for one in found:
        print(_line(one))
    if not arguments.yes:
        print("nothing was erased; say --yes to erase all of this")
        return 0
    start_logging("warning")
    return _erase(loaded, [one.keeping.study_instance_uid for one in found])


def _studies_of(loaded: LoadedSettings, patient_id: str) -> list[str]:
    """The studies of one patient.

    Raises
    ------
    UnusableInput
        If there are none, or those of several people have this Patient ID.
    """
    from dicom_node.database import open_database
    from dicom_node.errors import UnusableInput
    from dicom_node.study_cards import StudyCards

    cards = StudyCards(open_database(loaded.database_url)).with_patient_id(patient_id) if patient_id else []
    if not cards:
        raise UnusableInput("no study of this Patient ID is here")
    if len({card.patient_key for card in cards}) > 1:
        studies = ", ".join(card.study_instance_uid for card in cards)
        raise UnusableInput(
            "studies of different people have this Patient ID (its issuer or the date of birth differs); "
            f"look at each and erase it by --study: {studies}"
        )
    return [card.study_instance_uid for card in cards]


def _line(one: StudyInventory) -> str:
    from dicom_node.cli.retention import size

    keeping = one.keeping
    waiting = f"; {one.waiting} deliveries that wait will not be sent" if one.waiting else ""
    return (
        f"study {keeping.study_instance_uid} ({keeping.state}): {keeping.images} images ({size(one.image_bytes)}), "
        f"{one.results} results and {one.pictures} sets of pictures ({size(one.result_bytes)}){waiting}"
    )


def _erase(loaded: LoadedSettings, studies: Sequence[str]) -> int:
    """Erase each; 1 if one could not be."""
    from dicom_node.cli.os_user import os_user
    from dicom_node.cli.receiving import open_spool
    from dicom_node.cli.retaining import make_eraser
    from dicom_node.database import open_database

    engine = open_database(loaded.database_url)
    eraser = make_eraser(loaded, engine, open_spool(loaded, engine))
    problems = {study: eraser.erase_study(study, os_user()) for study in studies}
    removed = eraser.finish()
    eraser.scrub()
    engine.dispose()
    for study, problem in problems.items():
        print(f"study {study}: {f'not erased: {problem}' if problem else 'erased'}")
    print(f"{removed.files} files are gone")
    return 1 if any(problems.values()) else 0
