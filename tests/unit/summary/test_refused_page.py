"""The page of a study without a result: every reason in plain words, with what to do, and no code name."""

from __future__ import annotations

import re

import pytest
from summary_pages import page

from dicom_node.errors import Reason, Refusal
from dicom_node.summary.refused_page import UnderstoodSeries, draw_refusal, plain
from dicom_node.summary.sheet import MONITOR, SIZE, WrittenText

SERIES = (
    UnderstoodSeries(number=3, description="t2_space_iac", role="MRC"),
    UnderstoodSeries(number=7, description="<script>alert(1)</script>", role="HYDROPS_MI2"),
    UnderstoodSeries(number=None, description="", role="OTHER"),
)


def written(*refusals: Refusal, series: tuple[UnderstoodSeries, ...] = SERIES) -> tuple[WrittenText, ...]:
    return draw_refusal(refusals, series, page().identity, "ear 1.0", MONITOR).written()


def text_of(*refusals: Refusal) -> str:
    return " ".join(one.text for one in written(*refusals))


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_said_in_words_with_what_to_do(reason: Reason) -> None:
    text = text_of(Refusal(reason=reason, detail=f"expected HYDROPS_MI2, found REAL_IR in 1.2.3; {reason.value}"))
    assert "Not computed" in text
    assert "neither zero nor normal" in text
    assert reason.sentence in text
    assert f"What to do: {reason.next_step}" in text
    codes = [one.value for one in Reason if "_" in one.value]
    assert not re.search(r"\b(" + "|".join([*codes, "HYDROPS_MI2", "REAL_IR"]) + r")\b", text)


def test_what_the_node_received_stands_at_the_foot() -> None:
    text = text_of(Refusal(reason=Reason.PARTNER_MISSING, detail=""))
    assert "Series 3 “t2_space_iac”: taken as MR cisternography" in text
    assert "Series 7 “<script>alert(1)</script>”: taken as HYDROPS-Mi2" in text
    assert "Series “without description”: not used" in text


def test_many_reasons_and_series_stay_on_the_page_and_the_rest_is_counted() -> None:
    many = tuple(
        Refusal(reason=reason, detail="found " + "1.2.840.113619.2.55.3 " * 30) for reason in list(Reason)[:14]
    )
    crowd = tuple(UnderstoodSeries(number=n, description="d" * 200, role="OTHER") for n in range(40))
    texts = written(*many, series=crowd)
    assert any("more reasons stand in the report (SR)." in one.text for one in texts)
    assert all(one.box[0] >= 0 and one.box[2] <= SIZE and one.box[3] <= SIZE for one in texts)
    few = written(many[0], series=crowd)
    assert any(one.text.endswith("more series") for one in few)
    assert all(one.box[2] <= SIZE and one.box[3] <= SIZE for one in few)


def test_one_reason_found_in_several_places_is_said_once() -> None:
    twice = [Refusal(reason=Reason.SLICE_GAP, detail=f"series {number}") for number in (1, 2)]
    assert text_of(*twice).count(Reason.SLICE_GAP.sentence) == 1
    assert "In detail: series 1" in text_of(*twice)
    assert "In detail: series 2" in text_of(*twice)


def test_a_page_without_a_reason_is_not_drawn() -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        written()


def test_words_of_the_program_are_said_as_people_say_them() -> None:
    assert plain("MRC, HYDROPS_MI2 and REG_POOR") == "MR cisternography, HYDROPS-Mi2 and reg poor"
    assert plain("AMRC") == "AMRC"
