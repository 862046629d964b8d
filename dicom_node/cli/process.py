"""Compute one study from a folder of DICOM files, without any network.

  hydrops-node process STUDY_FOLDER --out RESULT_FOLDER

Writes into RESULT_FOLDER:
  findings.json  volumes and EH ratio of each ear, every series with "taken as ... because", reasons, timings
  seg.dcm        segmentation on the grid of the MR cisternography (only when computed)
  sr.dcm         structured report with the numbers, or, when refused, the "not computed" report with the reason

Exit status: 0 computed, 3 refused (with report), 2 the folder holds nothing that could be used.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.cli.wiring import case_options, load_settings, make_segmenter
from dicom_node.errors import UnusableInput

if TYPE_CHECKING:
    from dicom_node.casework import CaseResult, InstanceFile

EXIT_COMPUTED: Final = 0
EXIT_REFUSED: Final = 3
EXIT_UNUSABLE: Final = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `process`."""
    parser.add_argument("folder", type=Path, metavar="STUDY_FOLDER", help="folder with the DICOM files of one study")
    parser.add_argument("--out", type=Path, required=True, metavar="RESULT_FOLDER", help="where results are written")
    parser.add_argument(
        "--config", type=Path, metavar="NODE_TOML", help="site configuration (default: built-in values)"
    )
    parser.add_argument("--study", metavar="UID", help="which study, if the folder holds several")
    parser.add_argument("--quiet", action="store_true", help="print nothing but problems")


def run(arguments: argparse.Namespace) -> int:
    """Process one folder; returns the exit status."""
    from dicom_node.casework import as_all_there_is, open_case, read_folder, work_case
    from dicom_node.cli.logs import silence_quotations
    from dicom_node.pipeline import StepTimer

    silence_quotations()
    say = _silent if arguments.quiet else _say
    loaded = load_settings(arguments.config)
    options = case_options(loaded, from_file=arguments.config is not None)
    if not arguments.folder.is_dir():
        raise UnusableInput(f"{arguments.folder}: no such folder; pass the folder that holds the DICOM files")
    say(f"reading {arguments.folder}")
    files = _one_study(read_folder(arguments.folder), arguments.study, arguments.folder)
    step = StepTimer(time.monotonic, on_step=lambda name: say(f"  {name}"))
    case = as_all_there_is(open_case(str(files[0].header.StudyInstanceUID), files, options))
    for decision in case.assembly.decisions:
        say(f"  series {decision.series_instance_uid}: taken as {decision.role}, because {decision.reason}")
    now = datetime.now().astimezone()
    result = work_case(case, segmenter=make_segmenter(loaded), options=options, step=step, encoded_at=now)
    write_result(arguments.out, result)
    for line in summary_lines(result):
        say(line)
    say(f"written to {arguments.out}")
    if result.findings is not None:
        return EXIT_COMPUTED
    return EXIT_REFUSED if result.objects else EXIT_UNUSABLE


def _one_study(studies: Mapping[str, list[InstanceFile]], wanted: str | None, folder: Path) -> list[InstanceFile]:
    """The files of the one study meant.

    Raises
    ------
    UnusableInput
        If there is no DICOM image, or it is not clear which of several studies is meant.
    """
    if not studies:
        raise UnusableInput(f"{folder}: found no DICOM image in it or below; pass the folder with the study's files")
    if wanted is not None and wanted not in studies:
        raise UnusableInput(f"{folder}: expected study {wanted}, found {', '.join(sorted(studies))}")
    if wanted is None and len(studies) > 1:
        raise UnusableInput(
            f"{folder}: holds {len(studies)} studies; choose one with --study: {', '.join(sorted(studies))}"
        )
    return studies[wanted or next(iter(studies))]


def write_result(folder: Path, result: CaseResult) -> None:
    """findings.json and the objects as `seg.dcm` and `sr.dcm`; leftovers of an earlier run are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("seg.dcm", "sr.dcm", "findings.json"):
        (folder / name).unlink(missing_ok=True)
    for one in result.objects:
        (folder / f"{one.kind.lower()}.dcm").write_bytes(one.data)
    (folder / "findings.json").write_text(json.dumps(result.document, indent=2) + "\n", encoding="utf-8")


def summary_lines(result: CaseResult) -> list[str]:
    """The result in plain words, one line per ear, or the reasons why there is none."""
    from dicom_node.encoding.numbers import percent_text, volume_text

    if result.findings is None:
        return [f"not computed: {refusal.reason.sentence} ({refusal.detail})" for refusal in result.refusals]
    lines = []
    for side, ear in result.findings.ears.items():
        if ear.ratio is None:
            why = "; ".join(flag.message for flag in ear.quality)
            lines.append(f"{side} ear: not evaluated. {why}")
            continue
        ratio = ear.ratio
        lines.append(
            f"{side} ear: total fluid {volume_text(ratio.total_fluid_mm3)}, endolymph "
            f"{volume_text(ratio.endolymph_mm3)}, EH ratio {percent_text(ratio.value)} "
            f"(95 % interval {percent_text(ratio.low)} to {percent_text(ratio.high)})"
        )
        lines += [f"  {flag.severity}: {flag.message}" for flag in ear.quality]
    return lines


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(_line: str) -> None:
    """Say nothing."""
