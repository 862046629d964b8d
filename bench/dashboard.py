"""The first paint of the dashboard's list with many studies, in Chromium, and what the server needs for the page.

    python bench/dashboard.py [--studies 10000] [--rounds 10]

A real server and a real SQLite database with that many studies, most of them measured. In each round a fresh browser
context signs in and opens the list in a new tab; pages are never cached, style sheets are, as for everybody. First
contentful paint is what Chromium reports: from the navigation's start to the first text. The goal is 300 ms on two
cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, insert
from suite import Benchmark, Better, Found, Measurement, run

HERE: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from dashboard_parts import PASSWORD, make_parts, serving  # noqa: E402 - the same parts as in the tests
from planted_studies import CARD, DECISIONS, document  # noqa: E402

from dicom_node.database import writing  # noqa: E402
from dicom_node.ledger import StudyState, ledger_studies  # noqa: E402
from dicom_node.study_cards import EarResult, StudyCard, StudyCards  # noqa: E402
from dicom_node.web.studies import STUDIES_PER_PAGE  # noqa: E402
from inference.anatomy import EarSide  # noqa: E402

GOAL_MS: Final = 300.0
PAINT: Final = "first contentful paint"
STATES: Final = (*[StudyState.COMPUTED] * 7, StudyState.REFUSED, StudyState.NOT_OURS, StudyState.WAITING)
NAMES: Final = ("Adler^Anna", "Bauer^Bruno", "Curie^Marie", "Dupont^Denise", "山田^太郎", "Öztürk^Özlem")


def milliseconds(folder: Path, studies: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds by what was measured."""
    parts = make_parts(folder)
    began = time.monotonic()
    fill(parts.engine, studies)
    print(f"{studies} studies written in {time.monotonic() - began:.0f} s")
    with serving(parts) as dashboard:
        client = dashboard.client("vera")
        pages = {
            "server: first page of the list": "/studies",
            "server: last page of the list": f"/studies?page={studies // STUDIES_PER_PAGE}",
            "server: one state": "/studies?state=refused",
            "server: one study": "/studies/2.25.1",
        }
        figures = {name: [timed(client.get, path) for _ in range(rounds)] for name, path in pages.items()}
        figures[PAINT] = list(first_paints(dashboard.url, rounds))
    return figures


def timed(call: Any, path: str) -> float:
    """Milliseconds of one request."""
    began = time.perf_counter()
    call(path).raise_for_status()
    return 1000.0 * (time.perf_counter() - began)


def first_paints(url: str, rounds: int) -> Iterator[float]:
    """First contentful paint of the list, each in a fresh context, after signing in."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        for _ in range(rounds):
            context = browser.new_context()
            page = context.new_page()
            page.goto(f"{url}/sign-in")
            page.get_by_label("Name").fill("vera")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url("**/studies")
            page = context.new_page()  # a page without history: its paint is timed from its own start
            page.goto(f"{url}/studies")
            yield float(page.evaluate(FIRST_PAINT))
            context.close()
        browser.close()


FIRST_PAINT: Final = """() => new Promise(tell => new PerformanceObserver(list => {
  const found = list.getEntriesByName("first-contentful-paint");
  if (found.length) tell(found[0].startTime);
}).observe({ type: "paint", buffered: true }))"""


def fill(engine: Engine, studies: int) -> None:
    """Write the studies as desk and worker leave them, in few transactions."""
    findings = json.dumps(document(0.271, (EarSide.RIGHT, EarSide.LEFT)))
    decisions = json.dumps(list(DECISIONS))
    cards, now = StudyCards(engine), time.time()
    rows = [row(number, findings, decisions, now - 300.0 * number) for number in range(studies)]
    for start in range(0, studies, 1000):
        with writing(engine) as connection:
            connection.execute(insert(ledger_studies), rows[start : start + 1000])
    put_cards(engine, studies)
    measured = [number for number in range(studies) if STATES[number % len(STATES)] is StudyState.COMPUTED]
    for start in range(0, len(measured), 1000):
        cards.put_results([one for number in measured[start : start + 1000] for one in results(number, now)])


def put_cards(engine: Engine, studies: int) -> None:
    """One card for each study, five studies a patient."""
    from dicom_node.study_cards import _cards, _searched  # the index's own table: put() is one transaction a card

    found = [card(number) for number in range(studies)]
    with writing(engine) as connection:
        connection.execute(insert(_cards), [vars(one) | {"searched": _searched(one)} for one in found])


def card(number: int) -> StudyCard:
    """The card of one study."""
    changed = {
        "study_instance_uid": f"2.25.{number}",
        "patient_key": f"{number // 5:064d}",
        "patient_name": NAMES[number % len(NAMES)],
        "patient_id": f"P{number // 5:06d}",
        "accession_number": f"ACC{number:06d}",
    }
    return StudyCard(**{**vars(CARD), **changed})


def row(number: int, findings: str, decisions: str, at: float) -> dict[str, Any]:
    """The ledger's row of one study."""
    state = STATES[number % len(STATES)]
    return {
        "study_instance_uid": f"2.25.{number}",
        "state": state.value,
        "revision": 1,
        "work_id": f"work-{number}",
        "decisions": decisions,
        "findings": findings if state is StudyState.COMPUTED else "",
        "detail": "expected MRC with PPI and PEI; found only MRC" if state is StudyState.REFUSED else "",
        "first_seen_at": at,
        "updated_at": at,
    }


def results(number: int, now: float) -> Sequence[EarResult]:
    """Both ears' numbers of one study."""
    return [
        EarResult(
            study_instance_uid=f"2.25.{number}",
            work_id=f"work-{number}",
            side=side,
            ratio=0.1 + (number % 50) / 100.0,
            low=0.05,
            high=0.9,
            total_fluid_mm3=180.0,
            endolymph_mm3=40.0,
            quality=(),
            model="hydrops-ear 1",
            scanner=CARD.scanner,
            study_date=CARD.study_date,
            computed_at=now - 300.0 * number,
            seconds=20.0,
        )
        for side in ("right", "left")
    ]


def measure(asked: argparse.Namespace) -> Found:
    """Everything on one server."""
    with tempfile.TemporaryDirectory() as folder:
        figures = milliseconds(Path(folder), asked.studies, asked.rounds)
    measurements = [
        Measurement(
            what=f"{name}, {asked.studies} studies",
            unit="ms",
            better=Better.LOWER,
            values=tuple(values),
            goal=GOAL_MS if name == PAINT else None,
        )
        for name, values in figures.items()
    ]
    return Found(measurements=tuple(measurements))


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--studies", type=int, default=10_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="default: %(default)s")


BENCHMARK: Final = Benchmark(
    name="dashboard",
    question="How long until the list of all studies is on the screen?",
    measure=measure,
    add_options=options,
    quick=("--studies", "1000", "--rounds", "3"),
)

if __name__ == "__main__":
    run(BENCHMARK)
