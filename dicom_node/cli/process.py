"""Compute studies from folders, without any network: one, or a whole cohort.

  hydrops-node process STUDY_FOLDER --out RESULT_FOLDER
  hydrops-node process COHORT --out RESULTS --jobs 2 --nifti --table cohort.csv
  hydrops-node process subjects.csv --out RESULTS --table cohort.parquet

A place is a folder (DICOM files in any order and depth, or folders with mrc.nii.gz and contrast files) or a .csv
table that names NIfTI files: columns subject, mrc and ppi, pei, hydrops, hydrops_mi2 or real_ir.

Of one study the results lie in RESULT_FOLDER itself; of several, or with --table, in one folder each:
  findings.json  volumes and EH ratio of each ear, every series with "taken as ... because", reasons, timings
  seg.dcm        segmentation on the grid of the MR cisternography (only when computed)
  sr.dcm         structured report with the numbers, or, when refused, the "not computed" report with the reason
  sc.dcm         summary page as a picture; pdf.dcm where the configuration asks for it
  *.nii.gz       with --nifti: mrc, aligned contrast, labels, total_fluid, endolymph (NIfTI input: always, no DICOM)

The same command again goes on where it was stopped: what was done with the same images, model and settings stays.

Exit status of one study: 0 computed, 3 refused (with report), 2 nothing that could be used. Of a cohort: 0 every
study computed or refused, 4 some were unusable or failed (the table and the summary say which), 2 nothing found.

Research use only. Not for diagnostic use.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node import RESEARCH_USE
from dicom_node.errors import UnusableInput

if TYPE_CHECKING:
    from dicom_node.cli.cohort_report import Reporter
    from dicom_node.cohort.outcome import SourceOutcome
    from dicom_node.cohort.sources import Source

EXIT_COMPUTED: Final = 0
EXIT_REFUSED: Final = 3
EXIT_UNUSABLE: Final = 2
EXIT_SOME_WITHOUT_RESULT: Final = 4

TABLE_SUFFIXES: Final = (".csv", ".parquet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `process`."""
    parser.add_argument(
        "places", type=Path, nargs="+", metavar="PLACE", help="folder with DICOM or NIfTI files, or table of subjects"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where results are written")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="also one table with a row for each ear: FILE.csv or FILE.parquet"
    )
    parser.add_argument("--patient-id", action="store_true", help="with a column patient_id in the table")
    parser.add_argument("--nifti", action="store_true", help="also images and masks as NIfTI")
    parser.add_argument(
        "--jobs", type=_count, default=1, metavar="N", help="studies at a time; see docs/cohorts.md for the memory"
    )
    parser.add_argument("--again", action="store_true", help="compute even what was done before")
    parser.add_argument(
        "--config", type=Path, metavar="NODE_TOML", help="site configuration (default: built-in values)"
    )
    parser.add_argument("--study", metavar="UID", help="only the study with this Study Instance UID")
    parser.add_argument("--quiet", action="store_true", help="print nothing but problems")


def run(arguments: argparse.Namespace) -> int:
    """Process what was found; returns the exit status."""
    from dicom_node.cli.cohort_report import Reporter
    from dicom_node.cli.logs import silence_quotations

    silence_quotations()
    _check_table(arguments.table)
    reporter = Reporter(quiet=arguments.quiet)
    with reporter.searching() as on_file:
        sources = _wanted(arguments, on_file)
    if len(sources) == 1 and arguments.table is None and len(arguments.places) == 1:
        return _process_one(sources[0], arguments, reporter)
    return _process_many(sources, arguments, reporter)


def _check_table(table: Path | None) -> None:
    """Say what is wrong with --table before hours of work, not after."""
    from dicom_node.cohort.table import arrow_modules

    if table is None:
        return
    if table.suffix.lower() not in TABLE_SUFFIXES:
        raise UnusableInput(f"--table {table}: expected a name that ends in {' or '.join(TABLE_SUFFIXES)}")
    if table.suffix.lower() == ".parquet":
        arrow_modules()
    if table.is_dir():
        raise UnusableInput(f"--table {table}: expected the name of a file, found a folder")


def _wanted(arguments: argparse.Namespace, on_file: Callable[[], None]) -> Sequence[Source]:
    """Every source of the places, or the one study that was asked for."""
    from dicom_node.cohort.sources import DicomStudy, find_sources

    sources = find_sources(arguments.places, results=arguments.out, on_file=on_file)
    if arguments.study is None:
        return sources
    chosen = [one for one in sources if isinstance(one, DicomStudy) and one.study_instance_uid == arguments.study]
    if not chosen:
        found = ", ".join(sorted(one.name for one in sources))
        raise UnusableInput(f"{arguments.places[0]}: expected study {arguments.study}, found {found}")
    return chosen


def _process_one(source: Source, arguments: argparse.Namespace, reporter: Reporter) -> int:
    """One study in this process, step by step, into --out itself."""
    from dicom_node.cli.cohort_runs import Order, make_bench
    from dicom_node.cohort.outcome import SourceState
    from dicom_node.cohort.sources import DicomStudy
    from dicom_node.cohort.work import work_source

    order = Order(results=arguments.out, config=arguments.config, nifti=arguments.nifti, again=arguments.again)
    reporter.say(f"reading {source.folder}")
    now = datetime.now().astimezone()
    outcome = work_source(source, arguments.out, make_bench(order), encoded_at=now, tell=reporter.say)
    if outcome.findings is None:
        raise UnusableInput(outcome.problem)
    for line in reporter.ears_and_reasons(outcome):
        reporter.say(line)
    already = (
        "the same was computed before; --again computes it anew. It is in" if outcome.done_before else "written to"
    )
    reporter.say(f"{already} {arguments.out}")
    reporter.say(RESEARCH_USE)
    if outcome.state is SourceState.COMPUTED:
        return EXIT_COMPUTED
    unreported = isinstance(source, DicomStudy) and not (arguments.out / "sr.dcm").exists()
    return EXIT_UNUSABLE if unreported else EXIT_REFUSED


def _process_many(sources: Sequence[Source], arguments: argparse.Namespace, reporter: Reporter) -> int:
    """Every study in a folder of its own below --out, then the table and the summary."""
    from dicom_node.cli.cohort_runs import Order, only_one, run_cohort
    from dicom_node.cohort.outcome import SourceState
    from dicom_node.cohort.result_folder import remove_unfinished

    arguments.out.mkdir(parents=True, exist_ok=True)
    jobs = min(arguments.jobs, len(sources))
    order = Order(
        results=arguments.out,
        config=arguments.config,
        nifti=arguments.nifti,
        again=arguments.again,
        threads=max(1, (os.cpu_count() or 1) // jobs),
    )
    with only_one(arguments.out):
        remove_unfinished(arguments.out)
        try:
            with reporter.working(len(sources)) as on_done:
                outcomes = run_cohort(sources, order, jobs=jobs, on_done=on_done)
        except KeyboardInterrupt:
            reporter.say("stopped; the same command goes on from here")
            raise
        if arguments.table is not None:
            _write_table(arguments.table, outcomes, patient_id=arguments.patient_id)
            reporter.say(f"table: {arguments.table}")
    for line in reporter.summary(outcomes):
        reporter.say(line)
    reporter.say(f"results: {arguments.out}")
    reporter.say(RESEARCH_USE)
    whole = all(one.state in (SourceState.COMPUTED, SourceState.REFUSED) for one in outcomes)
    return EXIT_COMPUTED if whole else EXIT_SOME_WITHOUT_RESULT


def _write_table(path: Path, outcomes: Sequence[SourceOutcome], *, patient_id: bool) -> None:
    """The table, whole or not at all."""
    from dicom_node.cohort.table import csv_table, parquet_table

    make = parquet_table if path.suffix.lower() == ".parquet" else csv_table
    content = make(outcomes, patient_id=patient_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished-{path.name}")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)
