"""What `hydrops-node process` says while it works, and at the end: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dicom_node.cohort.outcome import SourceOutcome, SourceState
from dicom_node.encoding.measurements import read_measurements

FILES_PER_LINE = 5000
"""While folders are looked through; some thousand files a second."""


class Reporter:
    """Lines on standard error, none of them if `quiet`; no patient's name or ID in any."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def say(self, line: str) -> None:
        """One line."""
        if not self._quiet:
            print(line, file=sys.stderr, flush=True)

    @contextmanager
    def searching(self) -> Iterator[Callable[[], None]]:
        """Yields what counts the files looked at."""
        count = 0

        def on_file() -> None:
            nonlocal count
            count += 1
            if count % FILES_PER_LINE == 0:
                self.say(f"looked at {count} files")

        yield on_file

    @contextmanager
    def working(self, total: int) -> Iterator[Callable[[SourceOutcome], None]]:
        """Yields what is told of each study that is done; shows how many are and how long the rest may take."""
        if self._quiet or not sys.stderr.isatty():
            yield self._plainly(total)
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("studies", total=total)

            def on_done(outcome: SourceOutcome) -> None:
                progress.console.print(one_line(outcome), markup=False, highlight=False)
                progress.advance(task)

            yield on_done

    def _plainly(self, total: int) -> Callable[[SourceOutcome], None]:
        count = 0

        def on_done(outcome: SourceOutcome) -> None:
            nonlocal count
            count += 1
            self.say(f"[{count}/{total}] {one_line(outcome)}")

        return on_done

    def ears_and_reasons(self, outcome: SourceOutcome) -> list[str]:
        """The result of one study in plain words: each ear's numbers and remarks, or the reasons why there are none."""
        findings = outcome.findings or {}
        measured = read_measurements(findings)
        if measured is None:
            return [f"not computed: {reason['message']}" for reason in findings.get("reasons", [])]
        return [*(sentence for ear in measured.ears for sentence in ear.sentences), *measured.quality]

    def summary(self, outcomes: Sequence[SourceOutcome]) -> list[str]:
        """How many became what, and every reason with its number."""
        states = Counter(outcome.state for outcome in outcomes)
        counts = ", ".join(f"{states[state]} {state}" for state in SourceState if states[state])
        before = sum(outcome.done_before for outcome in outcomes)
        noun = "study" if len(outcomes) == 1 else "studies"
        lines = [f"{len(outcomes)} {noun}: {counts}" + (f" ({before} of them done before)" if before else "")]
        reasons: Counter[str] = Counter()
        for outcome in outcomes:
            reasons.update({reason["code"] for reason in (outcome.findings or {}).get("reasons", [])})
        lines += [f"  refused with {code}: {number}" for code, number in reasons.most_common()]
        lines += [f"  {outcome.state}: {outcome.name}: {outcome.problem}" for outcome in outcomes if outcome.problem]
        return lines


def one_line(outcome: SourceOutcome) -> str:
    """One study in one line."""
    findings = outcome.findings or {}
    measured = read_measurements(findings)
    if measured is not None:
        said = "EH ratio " + ", ".join(
            f"{ear.side} {'not evaluated' if ear.ratio is None else ear.ratio.text}" for ear in measured.ears
        )
    else:
        said = outcome.problem or ", ".join(reason["code"] for reason in findings["reasons"])
    when = "done before" if outcome.done_before else f"{outcome.seconds:.0f} s"
    return f"{outcome.name}: {outcome.state}, {when}: {said}"
