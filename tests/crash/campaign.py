"""The fault campaign: break the node in every way we can inject, and count what was lost.

    make campaign                      # the hour at night
    make campaign SCALE=ci             # seconds, as in every test run
    .venv/bin/python tests/crash/campaign.py --scale nightly --only F02 F10 --json campaign.json
    .venv/bin/python tests/crash/campaign.py --add a.json b.json --page docs/campaign.md     # runs done in pieces

Every line names what was injected and what was lost, doubled or left over; a failure names its seed, and
`--first-seed N --trials 1` repeats it. Ctrl-C ends it with what was counted so far. Exit status: 0 all promises kept,
1 not.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "demo")]

from campaign_report import added_up, as_document, as_page, as_table, with_figures  # noqa: E402 - found once the path above is known
from commitment_faults import FAULTS as COMMITMENT  # noqa: E402
from computing_faults import FAULTS as COMPUTING  # noqa: E402
from delivery_faults import FAULTS as DELIVERY  # noqa: E402
from fault import Fault, Scale, Tally, campaign  # noqa: E402
from full_disk_faults import FAULTS as FULL_DISK  # noqa: E402
from input_faults import FAULTS as INPUT  # noqa: E402
from receiving_faults import FAULTS as RECEIVING  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from state_faults import FAULTS as STATE  # noqa: E402
from stopping_faults import FAULTS as STOPPING  # noqa: E402
from stranger_faults import FAULTS as STRANGERS  # noqa: E402

FAULTS: tuple[Fault, ...] = (
    *RECEIVING,
    *STOPPING,
    *FULL_DISK,
    *STRANGERS,
    *STATE,
    *DELIVERY,
    *COMMITMENT,
    *COMPUTING,
    *INPUT,
)


def main() -> int:
    """Run what was asked for, with progress; print the table."""
    arguments = _arguments()
    logging.disable(logging.CRITICAL)  # the node under fault has much to say; here only what it lost counts
    console = Console(width=None if sys.stdout.isatty() else 150)
    runs = [json.loads(path.read_text()) for path in arguments.add]
    if not arguments.add:
        only = set(arguments.only or [])
        chosen = [one for one in FAULTS if not only or {one.number, one.number.split()[0]} & only]
        tallies = _run(chosen, arguments, console)
        runs.append(as_document(tallies, first_seed=arguments.first_seed))
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(runs[0], indent=2) + "\n")
    figures = added_up(runs, FAULTS)
    console.print(as_table(figures))
    if arguments.page is not None:
        arguments.page.write_text(as_page(figures, runs, FAULTS), encoding="utf-8")
        promises = arguments.page.with_name("promises.md")
        if promises.exists():
            promises.write_text(with_figures(promises.read_text(encoding="utf-8"), figures), encoding="utf-8")
    return 0 if all(one.kept for one in figures) else 1


def _run(chosen: Sequence[Fault], arguments: argparse.Namespace, console: Console) -> list[Tally]:
    """One tally for each fault, however far it came."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tallies: list[Tally] = []
    with Progress(*columns, console=console) as progress:
        for fault in chosen:
            trials = arguments.trials or fault.trials[arguments.scale]
            task = progress.add_task(f"{fault.number}: {fault.title}", total=trials)
            tallies.append(Tally(fault=fault))
            try:
                for tally in campaign(fault, trials, first_seed=arguments.first_seed):
                    tallies[-1] = tally
                    progress.update(task, completed=tally.trials)
                    if not console.is_terminal and tally.trials % TOLD_EVERY == 0:
                        progress.console.print(f"{fault.number}: {tally.trials} of {trials}")
            except KeyboardInterrupt:
                progress.console.print("stopped")
                break
            finally:
                for failure in tallies[-1].failures:
                    progress.console.print(f"{fault.number}: {failure}", style="red", markup=False)
    return tallies


TOLD_EVERY = 50
"""Trials between two lines of progress where there is no terminal."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=Scale, choices=list(Scale), default=Scale.NIGHTLY, help="default: nightly")
    parser.add_argument("--trials", type=int, metavar="N", help="so many of each fault, instead of a scale")
    parser.add_argument("--only", nargs="*", metavar="F01", help="only these faults")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="where to begin (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    parser.add_argument("--add", type=Path, nargs="+", default=[], metavar="FILE", help="run nothing; add up such JSON")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="also write them as a page, and into promises.md beside it"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
