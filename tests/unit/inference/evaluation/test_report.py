"""The report and the model card: complete in one file, and every number from the record."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from inference.evaluation import charts, tables
from inference.evaluation.model_card import model_card
from inference.evaluation.record import Evaluation, EvaluationError, from_json, to_json
from inference.evaluation.report import report
from inference.evaluation.text import NOTICE
from inference.model_description import ModelDescription

DESCRIPTION = ModelDescription(
    name="ear",
    version="7",
    network="ear_unet",
    network_options={"width": 8},
    inputs=("MRC", "HYDROPS"),
    spacing_mm=(1.0, 0.5, 0.5),
    shape=(24, 48, 48),
    interval_scales={"PPI_PEI": 1.9},
    training={"command": "hydrops-node train --seed 5", "steps": 4321},
    intended_use="Research use only. For phantoms.",
    weights_sha256="cd" * 32,
)


def as_of(description: ModelDescription, evaluation: Evaluation) -> Evaluation:
    return replace(evaluation, model=description.identity)


class Resources(HTMLParser):
    """Collects what a browser would load, and whether tags match."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tables = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tables += tag == "table"
        self.loaded += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]


@pytest.fixture(scope="module")
def document(evaluation: Evaluation) -> str:
    return report(evaluation, {"One ear": ("as found", b"\x89PNG made up")})


def test_the_report_loads_nothing_from_elsewhere(document: str) -> None:
    page = Resources()
    page.feed(document)
    assert len(page.loaded) == 2 * 4  # three charts and a picture, each for light and dark
    assert all(one.startswith("data:image/") for one in page.loaded)
    assert "<script" not in document
    assert "@import" not in document
    assert "url(" not in document.split("</style>")[0]


def test_the_report_knows_light_and_dark_and_says_research_use_only(document: str) -> None:
    assert "prefers-color-scheme: dark" in document
    assert NOTICE in document
    assert "measured on synthetic phantoms, none on patients" in document


def test_the_report_shows_every_table_of_the_record(document: str, evaluation: Evaluation) -> None:
    page = Resources()
    page.feed(document)
    # targets, metrics, refusals, tests, ears; compartments and three groupings for each of two input sets
    assert page.tables == 5 + 2 * 4
    for row in (*tables.overall_table(evaluation).rows, *tables.ear_table(evaluation).rows[:5]):
        for cell in row:
            assert cell in document


def test_a_name_with_markup_stays_text(evaluation: Evaluation) -> None:
    odd = replace(evaluation, source=replace(evaluation.source, name="<b>site</b>"))
    assert "<b>site</b>" not in report(odd, {})


@pytest.mark.parametrize("draw", [charts.ratio_scatter, charts.bland_altman, charts.errors_by_group])
def test_a_chart_is_drawn_the_same_every_time_and_of_nothing_too(draw, evaluation: Evaluation) -> None:
    drawn = draw(evaluation, charts.LIGHT)
    assert drawn == draw(evaluation, charts.LIGHT)
    assert ElementTree.fromstring(drawn.encode()).tag.endswith("svg")
    refused = replace(evaluation, scores=tuple(one for one in evaluation.scores if not one.measured))
    assert ElementTree.fromstring(draw(refused, charts.DARK).encode()).tag.endswith("svg")


def test_the_cards_numbers_come_from_the_json_and_change_with_it(evaluation: Evaluation) -> None:
    document = json.loads(to_json(as_of(DESCRIPTION, evaluation)))
    before = model_card(from_json(json.dumps(document)), DESCRIPTION)
    overall = document["sections"][0]["overall"]
    assert f"| EH ratio, mean absolute error | {overall['ratio']['mae']:.4f} |" in before
    overall["ratio"]["mae"], overall["total_fluid"]["dice"] = 0.0777, 0.1234
    after = model_card(from_json(json.dumps(document)), DESCRIPTION)
    assert "| EH ratio, mean absolute error | 0.0777 |" in after
    assert "0.1234"[:5] in after
    assert "**Not reached** with MRC + PPI + PEI: EH ratio, mean absolute error, 0.0777 instead of 0.0146." in after
    assert "0.0777" not in before


def test_every_figure_of_the_cards_tables_is_one_of_the_records(evaluation: Evaluation) -> None:
    card = model_card(as_of(DESCRIPTION, evaluation), DESCRIPTION)
    printed = {
        cell
        for table in (tables.target_table(evaluation), tables.overall_table(evaluation))
        for row in table.rows
        for cell in row[1:]
    }
    for section in re.findall(r"### (?:Against the targets|All metrics)\n\n((?:\|.*\n)+)", card):
        for line in section.splitlines()[2:]:
            assert {cell.strip() for cell in line.strip("|").split("|")[1:]} <= printed


def test_the_card_tells_how_the_model_was_made_and_what_it_never_saw(evaluation: Evaluation) -> None:
    card = model_card(as_of(DESCRIPTION, evaluation), DESCRIPTION)
    for text in (
        "hydrops-node train --seed 5",
        "| training: steps | 4321 |",
        "24 x 48 x 48 voxels of 1 x 0.5 x 0.5 mm",
        "Seeds 900000 to 900039.",
        "## What it was never shown",
        "Research use only. For phantoms.",
        NOTICE,
    ):
        assert text in card


def test_a_card_is_not_made_from_another_models_figures(evaluation: Evaluation) -> None:
    with pytest.raises(EvaluationError, match="the evaluation is of model abababababab, the description of"):
        model_card(evaluation, DESCRIPTION)


def test_targets_say_aim_floor_or_missed(evaluation: Evaluation) -> None:
    dice = next(one for one in tables.TARGETS if one.name == "endolymph Dice")
    error = next(one for one in tables.TARGETS if one.name == "EH ratio, mean absolute error")
    assert [dice.verdict(value) for value in (0.9, 0.88, 0.85, 0.83, None)] == [
        "aim", "aim", "floor", "missed", "undefined"
    ]  # fmt: skip
    assert [error.verdict(value) for value in (0.009, 0.012, 0.02)] == ["aim", "floor", "missed"]
    gap = next(one for one in tables.TARGETS if one.name.startswith("interval coverage"))
    whole = evaluation.sections[0].overall
    few, enough = (replace(whole, ratio=replace(whole.ratio, ears=ears, coverage=0.94)) for ears in (49, 50))
    assert gap.value(few) is None
    assert gap.value(enough) == pytest.approx(0.01)
    rows = {row[0]: row for row in tables.target_table(evaluation).rows}
    assert rows["ears on the wrong side"][1:] == ("≤ 0", "0 (aim)", "0 (aim)")
