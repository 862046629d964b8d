"""Text of the sender in every view (B61, B62, S10, S11): whatever a header says, it is shown and does nothing."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from dashboard_parts import Dashboard, make_parts, post, serving
from hostile_text import HOSTILE, MARK, plant_hostile, refused_of, study_of
from planted_studies import CARD, STUDY, plant

from dicom_node.study_cards import inert_text
from dicom_node.web.reviewing import FORMULA_STARTS


class Markup(HTMLParser):
    """Elements, attributes and text of a page, as a browser would take them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def markup(html: str) -> Markup:
    found = Markup()
    found.feed(html)
    return found


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    parts = make_parts(tmp_path_factory.mktemp("node"))
    plant_hostile(parts)
    with serving(parts) as served:
        yield served


@pytest.fixture(scope="module")
def ada(dashboard: Dashboard) -> httpx.Client:
    return dashboard.client("ada")


def pages_of(client: httpx.Client, number: int) -> dict[str, httpx.Response]:
    """Every page on which this text stands, by address."""
    study = f"/studies/{study_of(number)}"
    addresses = [
        study,
        f"/studies/{refused_of(number)}",
        f"{study}/progress",
        f"{study}/history",
        f"{study}/views",
        f"{study}/actions/replay",
        f"{study}/actions/resend?destination=pacs",
        f"{study}/findings.json",
        post(client, "/studies/search", text=HOSTILE[number][:100]).headers["location"],
    ]
    return {address: client.get(address) for address in addresses}


def assert_inert(address: str, answer: httpx.Response) -> None:
    """Nothing of the text reached a header, an element, an attribute that acts, or an address."""
    assert answer.status_code == 200, address
    assert MARK not in "".join(f"{name}{text}" for name, text in answer.headers.items()), address
    if not answer.headers["content-type"].startswith("text/html"):
        return
    page = markup(answer.text)
    scripts = [text for tag, name, text in page.attributes if (tag, name) == ("script", "src")]
    assert all(OUR_SCRIPTS.fullmatch(one) for one in scripts), address
    assert page.elements.count("script") == len(scripts), address
    assert not {"iframe", "object", "embed", "base"} & set(page.elements), address
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"], address
    addresses = [text for _, name, text in page.attributes if name in ("href", "src", "action", "formaction")]
    assert not [one for one in addresses if MARK in one or not one.startswith(("/", "#"))], address


OUR_SCRIPTS = re.compile(r"/static/[\w/.-]+\.js")


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_text_does_nothing_on_any_page(
    ada: httpx.Client, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="dicom_node")
    for address, answer in pages_of(ada, number).items():
        assert MARK not in address
        assert_inert(address, answer)
    assert MARK not in caplog.text


@pytest.mark.parametrize("address", ["/studies", "/studies?state=refused", "/drift", "/reviews.csv", "/reviews.json"])
def test_pages_of_many_studies_are_inert_too(ada: httpx.Client, address: str) -> None:
    assert_inert(address, ada.get(address))


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_text_is_shown_as_it_is(ada: httpx.Client, number: int) -> None:
    shown = " ".join(inert_text(HOSTILE[number]).split())
    page = " ".join(markup(ada.get(f"/studies/{refused_of(number)}").text).text.split())
    assert shown in page  # the description; of a name only the separators change


def test_exports_keep_every_comment_and_start_no_formula(ada: httpx.Client) -> None:
    comments = [value[:4000].replace("\r\n", "\n").strip() for value in HOSTILE]
    assert [entry["comment"] for entry in json.loads(ada.get("/reviews.json").text)] == comments
    rows = list(csv.DictReader(io.StringIO(ada.get("/reviews.csv").text, newline="")))
    assert [row["comment"].removeprefix("'") for row in rows] == [one.removeprefix("'") for one in comments]
    assert not [row for row in rows if row["comment"].startswith(FORMULA_STARTS)]


def test_downloads_are_named_by_uids_whatever_the_patient_is_called(ada: httpx.Client) -> None:
    for address in (f"/studies/{study_of(0)}/objects/2.25.901", f"/studies/{study_of(0)}/findings.json"):
        name = ada.get(address).headers["content-disposition"]
        assert re.fullmatch(r'attachment; filename="[a-z]+-[0-9.]+\.(dcm|json)"', name)


def test_the_audit_trail_holds_whole_lines_and_no_name(tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    plant(parts, card={"patient_name": f"{MARK}^Name", "patient_id": "ID\r\nforged line"})
    with serving(parts) as dashboard:
        dashboard.client("vera").get(f"/studies/{STUDY}")
    assert parts.audit.verify() == []
    written = "".join(path.read_text() for path in (tmp_path / "audit").glob("*.jsonl"))
    assert MARK not in written
    assert "\nforged line" not in written


def test_the_harmless_patient_of_these_tests_is_shown_as_people_write_names(tmp_path: Path) -> None:
    with serving(make_parts(tmp_path)) as dashboard:
        plant(dashboard.parts)
        assert "Curie, Marie" in dashboard.client("vera").get(f"/studies/{STUDY}").text
        assert CARD.patient_name == "Curie^Marie"
