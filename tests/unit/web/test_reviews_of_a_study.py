"""Reviews of a study over HTTP: they stay, they are about one result, and they can be exported."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dashboard_parts import Dashboard, make_parts, post, serving, text_of
from planted_studies import STUDY, plant, work_of

from dicom_node.web.reviewing import FORMULA_STARTS, harmless

PAGE = f"/studies/{STUDY}"


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[Dashboard]:
    with serving(make_parts(tmp_path, viewer_url="http://{host}:8081")) as served:
        yield served


def review(client: httpx.Client, verdict: str, comment: str = "", **changes: str) -> httpx.Response:
    fields = {"work_id": work_of(STUDY), "verdict": verdict, "comment": comment} | changes
    return post(client, f"{PAGE}/reviews", page=PAGE, **fields)


def test_a_review_stays_and_a_later_one_stands_in_its_place(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    client = dashboard.client("rita")
    assert review(client, "accepted").status_code == 303
    assert review(client, "rejected", "a vessel was taken for endolymph").status_code == 303
    first, second = dashboard.parts.reviews.of_study(STUDY)
    assert (first.verdict, first.superseded) == ("accepted", True)
    assert (second.verdict, second.superseded, second.reader) == ("rejected", False, "rita")
    shown = text_of(client.get(PAGE).text)
    assert "replaced by a later review" in shown
    assert "a vessel was taken for endolymph" in shown


def test_readers_do_not_replace_each_other_and_a_comment_replaces_nothing(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    for name, verdict in (("rita", "accepted"), ("ada", "rejected"), ("rita", "commented")):
        review(dashboard.client(name), verdict, "as I see it")
    assert [one.superseded for one in dashboard.parts.reviews.of_study(STUDY)] == [False, False, False]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"verdict": "rejected"}, 400),
        ({"verdict": "commented", "comment": "   "}, 400),
        ({"verdict": "maybe"}, 400),
        ({"verdict": "accepted", "work_id": "of an earlier result"}, 409),
        ({"verdict": "commented", "comment": "x" * 4001}, 400),
    ],
)
def test_what_is_no_review_is_not_kept(dashboard: Dashboard, changes: dict[str, str], expected: int) -> None:
    plant(dashboard.parts)
    answer = review(dashboard.client("rita"), **{"verdict": "accepted", **changes})
    assert answer.status_code == expected
    assert dashboard.parts.reviews.all() == []


def test_no_way_leads_to_changing_or_deleting_a_review(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    client = dashboard.client("ada")
    review(client, "accepted")
    for method in ("PUT", "PATCH", "DELETE"):
        assert client.request(method, f"{PAGE}/reviews").status_code == 405


def test_reviews_are_exported_with_the_numbers_they_are_about_and_without_names(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    client = dashboard.client("rita")
    review(client, "rejected", '=HYPERLINK("http://evil.example")')
    (entry,) = json.loads(client.get("/reviews.json").text)
    assert entry["comment"] == '=HYPERLINK("http://evil.example")'
    assert (entry["right_ratio_percent"], entry["left_ratio_percent"]) == (27.1, 27.1)
    answer = client.get("/reviews.csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="hydrops-reviews.csv"'
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert row["comment"] == '\'=HYPERLINK("http://evil.example")'
    assert row["right_ratio_percent"] == "27.1"
    assert "Curie" not in answer.text


@pytest.mark.parametrize("start", FORMULA_STARTS)
def test_no_cell_of_an_export_starts_a_formula(start: str) -> None:
    assert str(harmless(f"{start}cmd|' /C calc'!A0")).startswith("'")
    assert str(harmless(f"  {start}1+1")).startswith("'")
    assert harmless(-2.5) == -2.5
