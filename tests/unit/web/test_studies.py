"""The list of studies over HTTP: what stands in a line, search without names in addresses, filters and pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import urlsplit

import httpx
import pytest
from dashboard_parts import Dashboard, make_parts, post, serving
from planted_studies import NOW, plant, work_of

from dicom_node.accounts.roles import Role
from dicom_node.encoding.numbers import percent_text
from dicom_node.ledger import StudyState
from dicom_node.reviews import Verdict
from dicom_node.web.plain_words import EVENTS, ROLES, STATES, plain
from dicom_node.web.studies import STUDIES_PER_PAGE
from inference.anatomy import EarSide

NAMES = ["Adler^Anna", "Bauer^Bruno", "Curie^Marie", "山田^太郎"]
MANY = STUDIES_PER_PAGE + 7


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    parts = make_parts(tmp_path_factory.mktemp("node"), clock=lambda: NOW + 3600.0)
    for number, state in enumerate(StudyState):
        name = NAMES[number % len(NAMES)]
        plant(parts, uid=f"2.25.{number}", state=state, at=NOW + number, card={"patient_name": name})
    plant(parts, uid="2.25.50", ears=(EarSide.LEFT,), ratio=0.345, at=NOW + 50, card={"patient_name": "One^Ear"})
    with serving(parts) as served:
        yield served


@pytest.fixture(scope="module")
def vera(dashboard: Dashboard) -> httpx.Client:
    return dashboard.client("vera")


def rows(html: str) -> list[str]:
    """The text of every line of the list."""
    body = re.search(r"<tbody.*?</tbody>", html, re.DOTALL)
    if body is None:
        return []
    found = re.findall(r"<tr.*?</tr>", body[0], re.DOTALL)
    return [" ".join(unescape(re.sub(r"<[^>]+>", " ", one)).split()) for one in found]


def search(client: httpx.Client, text: str, **fields: str) -> httpx.Response:
    return client.get(post(client, "/studies/search", text=text, **fields).headers["location"])


@pytest.mark.parametrize("state", list(StudyState))
def test_every_state_is_a_word_an_icon_and_a_color(vera: httpx.Client, state: StudyState) -> None:
    page = vera.get(f"/studies?state={state.value}").text
    badge = re.search(r'<span class="badge tone-(\w+)"><svg.*?</svg>(.*?)</span>', page, re.DOTALL)
    assert badge is not None
    assert (badge[1], unescape(badge[2])) == (STATES[state].tone, STATES[state].label)


def test_a_measured_study_shows_both_ears_as_the_report_prints_them(vera: httpx.Client) -> None:
    (row,) = [one for one in rows(vera.get("/studies?state=computed").text) if "One, Ear" in one]
    assert percent_text(0.345) in row
    assert "not evaluated" in row


def test_what_changed_last_comes_first_with_its_age(vera: httpx.Client) -> None:
    first, *_ = rows(vera.get("/studies").text)
    assert "One, Ear" in first
    assert first.endswith("59 min ago")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("curie", 2),
        ("MARIE cur", 2),
        ("太郎", 2),
        ("MC-1867", 9),
        ("acc-77 bruno", 2),
        ("2.25.50", 1),
        ("nobody", 0),
        ("%", 0),
        ("_", 0),
        ("' OR 1=1 --", 0),
    ],
)
def test_search_finds_words_of_the_card_and_uids(vera: httpx.Client, text: str, found: int) -> None:
    assert len(rows(search(vera, text).text)) == found


def test_what_was_searched_for_stands_in_the_box_and_in_no_address(vera: httpx.Client) -> None:
    answer = search(vera, "Curie")
    assert 'value="Curie"' in answer.text
    assert "urie" not in str(answer.url)
    links = re.findall(r'href="([^"]*)"', answer.text)
    assert not [link for link in links if "urie" in link]


def test_a_search_belongs_to_the_session_that_made_it(dashboard: Dashboard, vera: httpx.Client) -> None:
    address = str(search(vera, "Curie").url)
    foreign = dashboard.client("rita").get(urlsplit(address).path + "?" + urlsplit(address).query)
    assert 'value=""' in foreign.text
    assert len(rows(foreign.text)) == 9


def test_a_search_and_a_state_narrow_together_and_stay_together(vera: httpx.Client) -> None:
    answer = search(vera, "Curie", state="refused")
    assert "state=refused" in str(answer.url)
    assert len(rows(answer.text)) == 0
    assert "Nothing found" in answer.text
    assert re.search(r'href="/studies\?search=[\w-]+&amp;state=waiting"|href="/studies\?search=[\w-]+"', answer.text)


def test_pages_hold_fifty_and_lead_on(tmp_path_factory: pytest.TempPathFactory) -> None:
    parts = make_parts(tmp_path_factory.mktemp("many"), people={"vera": Role.VIEWER})
    for number in range(MANY):
        plant(parts, uid=f"2.25.{number}", state=StudyState.WAITING, at=NOW + number)
    with serving(parts) as dashboard:
        client = dashboard.client("vera")
        first = client.get("/studies").text
        assert len(rows(first)) == STUDIES_PER_PAGE
        assert f"Studies 1 to {STUDIES_PER_PAGE} of {MANY}" in first
        (older,) = re.findall(r'rel="next" href="([^"]*)"', first)
        second = client.get(unescape(older)).text
        assert len(rows(second)) == MANY - STUDIES_PER_PAGE
        assert 'rel="prev"' in second
        assert 'rel="next"' not in second


def test_an_empty_node_says_how_to_send_the_first_study(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(make_parts(tmp_path_factory.mktemp("empty"))) as dashboard:
        page = dashboard.client("vera").get("/studies").text
    assert "No study has been received yet" in page
    assert "hydrops-node send" in page


def test_the_last_verdict_of_readers_stands_in_the_list(dashboard: Dashboard, vera: httpx.Client) -> None:
    for verdict in (Verdict.ACCEPTED, Verdict.REJECTED):
        dashboard.parts.reviews.write(
            work_id=work_of("2.25.50"),
            study_instance_uid="2.25.50",
            reader="rita",
            verdict=verdict,
            comment="a vessel",
            at=NOW,
        )
    (row,) = [one for one in rows(vera.get("/studies").text) if "One, Ear" in one]
    assert "Rejected" in row
    assert "Accepted" not in row


def test_every_state_event_and_role_has_words() -> None:
    from dicom_node.assembly.headers import SeriesRole
    from dicom_node.ledger import StudyEvent

    assert set(STATES) == set(StudyState)
    assert set(EVENTS) == set(StudyEvent)
    assert set(ROLES) == {one.value for one in SeriesRole}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PARTNER_MISSING: found only MRC", "found only MRC"),
        ("PARTNER_MISSING", "The study lacks a series that is needed"),
        ("expected MRC with PPI and PEI, HYDROPS, HYDROPS_MI2 or REAL_IR", "HYDROPS-Mi2 or real inversion recovery"),
        ("the HYDROPS: no sign", "the HYDROPS: no sign"),
        ("", ""),
    ],
)
def test_sentences_are_said_without_code_names(text: str, said: str) -> None:
    assert said in plain(text)
    assert not re.search(r"\b[A-Z]+_[A-Z]", plain(text))
