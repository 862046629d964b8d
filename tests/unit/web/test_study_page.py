"""One study over HTTP: numbers, reasons in words, series, live progress, deliveries, downloads and actions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dashboard_parts import Dashboard, make_parts, post, serving, text_of
from planted_studies import CARD, DECISIONS, NOW, OBJECTS, SEG_BYTES, STUDY, document, plant, plant_objects
from queued_results import put

from dicom_node.audit import AuditAction
from dicom_node.delivery.commitment_answers import CommitmentReport
from dicom_node.delivery.commitments import Commitments
from dicom_node.delivery.outbox import RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind
from dicom_node.encoding.measurements import read_measurements
from dicom_node.errors import Reason
from dicom_node.ledger import StudyEvent, StudyState
from dicom_node.owed_failures import failure_key
from dicom_node.study_requests import StudyAction, StudyRequests
from dicom_node.web.plain_words import STATES
from dicom_node.web.progress import STEPS
from inference.anatomy import EarSide

PAGE = f"/studies/{STUDY}"


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[Dashboard]:
    with serving(make_parts(tmp_path, viewer_url="http://{host}:8081")) as served:
        yield served


def page(dashboard: Dashboard, name: str = "vera") -> str:
    return dashboard.client(name).get(PAGE).text


# --- Numbers ----------------------------------------------------------------------------------------------------------


def test_both_ears_numbers_are_those_of_the_measurement_model(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    shown = text_of(page(dashboard))
    measured = read_measurements(document(0.271, (EarSide.RIGHT, EarSide.LEFT)))
    assert measured is not None
    for ear in measured.ears:
        assert ear.ratio is not None
        assert ear.total_fluid is not None
        assert ear.endolymph is not None
        for words in (ear.ratio.text, f"95 % interval {ear.interval_text}", ear.total_fluid.text, ear.endolymph.text):
            assert words in shown
        assert all(sentence in shown for sentence in ear.quality)
    assert shown.index("Right ear") < shown.index("Left ear")


def test_an_ear_without_a_number_says_so_and_shows_no_zero(dashboard: Dashboard) -> None:
    plant(dashboard.parts, ears=(EarSide.LEFT,))
    html = page(dashboard)
    right = html[html.index('id="ear-right"') : html.index('id="ear-left"')]
    assert "not evaluated" in right
    assert not re.search(r"\d+\.\d %", right)


# --- Why --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [Reason.PARTNER_MISSING, Reason.REG_POOR, Reason.SLICE_GAP, Reason.NO_CONTRAST])
def test_a_refused_study_is_explained_in_words_without_code_names(dashboard: Dashboard, reason: Reason) -> None:
    detail = "expected MRC with PPI and PEI, HYDROPS, HYDROPS_MI2 or REAL_IR; found only MRC and PPI"
    plant(dashboard.parts, state=StudyState.REFUSED, reason=reason.value, detail=detail)
    shown = text_of(page(dashboard))
    assert reason.sentence in shown
    assert "found only MRC and PPI" in shown
    assert not re.search(r"\b[A-Z]+_[A-Z0-9_]+\b", shown)


def test_a_waiting_study_says_what_it_waits_for(dashboard: Dashboard) -> None:
    detail = "PARTNER_MISSING: expected MRC with PPI and PEI; found only MRC"
    plant(dashboard.parts, state=StudyState.WAITING, reason=Reason.PARTNER_MISSING.value, detail=detail)
    shown = text_of(page(dashboard))
    assert STATES[StudyState.WAITING].label in shown
    assert "found only MRC" in shown
    assert "PARTNER_MISSING" not in shown


def test_every_series_says_what_it_was_taken_as_or_why_it_was_left_out(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    shown = text_of(page(dashboard))
    assert (
        "Taken as MR cisternography (MRC) because: fine, heavily T2-weighted 3D series without inversion "
        "(TR 4400 ms)" in shown
    )
    assert "Left out because: the set of MRC with HYDROPS-Mi2 is not needed" in shown
    assert shown.index("2.25.201") < shown.index("2.25.202")


def test_every_series_is_named_as_the_pacs_lists_it(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    html = page(dashboard)
    shown = text_of(html)
    assert "Series 12 t2_space_mrc_iso MR cisternography (MRC)" in shown
    assert "Series 1401 HYDROPS-Mi2 <MR7> HYDROPS-Mi2" in shown
    assert "HYDROPS-Mi2 &lt;MR7&gt;" in html  # the sender's text, not a tag


def test_series_come_by_number_those_that_were_used_first(dashboard: Dashboard) -> None:
    mrc, other = DECISIONS
    numbers = (None, 9, 10)
    left_out = tuple(
        {**other, "series_instance_uid": f"2.25.30{place}", "series_number": number}
        for place, number in enumerate(numbers)
    )
    plant(dashboard.parts, decisions=(*left_out, mrc))
    shown = text_of(page(dashboard))
    assert re.findall(r"Series (\d+|–)", shown) == ["12", "9", "10", "–"]


def test_series_of_a_study_from_before_their_names_were_kept_show_a_dash(dashboard: Dashboard) -> None:
    kept_since = ("series_number", "series_description")
    before = tuple({key: said for key, said in one.items() if key not in kept_since} for one in DECISIONS)
    plant(dashboard.parts, decisions=before)
    assert "Series – – MR cisternography (MRC)" in text_of(page(dashboard))


def test_the_history_is_told_in_the_order_in_which_it_happened(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    shown = text_of(page(dashboard))
    told = [shown.rindex(words) for words in ("Images arrived", "stands in line", "Measuring began")]
    assert told == sorted(told)


def test_images_that_arrive_one_look_after_another_are_one_line_of_the_history(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    for number in range(3):
        dashboard.parts.ledger.arrived(STUDY, revision=100 + number, at=NOW + 60.0 * number)
    assert dashboard.parts.ledger.history(STUDY)[-3].event is StudyEvent.ARRIVED
    shown = text_of(page(dashboard))
    assert shown.count("Images arrived") == 2  # those of before, and these three
    assert "the last ones" in shown


# --- Live -------------------------------------------------------------------------------------------------------------


def test_progress_goes_through_the_named_steps_and_ends(dashboard: Dashboard) -> None:
    parts, client = dashboard.parts, dashboard.client("vera")
    plant(parts, state=StudyState.COMPUTING)
    record = parts.ledger.get(STUDY)
    assert record is not None
    marks = []
    for step in STEPS:
        assert parts.ledger.step(STUDY, step, work=record.work, at=NOW)
        progress: dict[str, Any] = client.get(f"{PAGE}/progress").json()
        places = [one["place"] for one in progress["steps"]]
        at = places.index("now")
        assert progress["steps"][at]["name"] == STEPS[step]
        assert places == ["done"] * at + ["now"] + ["later"] * (len(STEPS) - at - 1)
        assert progress["under_way"]
        marks.append(progress["mark"])
    assert len(set(marks)) == 1, "a step alone does not make the page load itself again"
    assert 'aria-current="step"' in client.get(PAGE).text


def test_a_page_under_way_renews_itself_without_javascript_and_a_finished_one_does_not(dashboard: Dashboard) -> None:
    plant(dashboard.parts, state=StudyState.COMPUTING)
    assert '<noscript><meta http-equiv="refresh"' in page(dashboard)
    plant(dashboard.parts, state=StudyState.COMPUTED)
    assert "http-equiv" not in page(dashboard)


# --- Deliveries, files, viewer ----------------------------------------------------------------------------------------


def test_each_delivery_says_where_it_stands_and_what_the_receiver_said(dashboard: Dashboard) -> None:
    parts = dashboard.parts
    plant(parts)
    plant_objects(parts)
    (first, *_) = parts.outbox.deliveries(STUDY)
    refused = DeliveryOutcome(kind=OutcomeKind.STOPPED, status=0xA900, detail="A900H: does not match SOP class")
    parts.outbox.record(first.delivery_id, refused, NOW, RetryPolicy())
    shown = text_of(page(dashboard))
    assert "Segmentation to pacs Stopped 1 try A900H: does not match SOP class" in shown
    assert "Structured report to pacs On its way nothing yet" in shown


def test_p19_a_delivery_says_in_plain_words_whether_its_receiver_committed_to_keeping_it(dashboard: Dashboard) -> None:
    parts = dashboard.parts
    plant(parts)
    plant_objects(parts)
    first, second = parts.outbox.deliveries(STUDY)
    stored = DeliveryOutcome(kind=OutcomeKind.DELIVERED, status=0, detail="stored")
    for one in (first, second):
        parts.outbox.record(one.delivery_id, stored, NOW, RetryPolicy(), to_commit=True)
    assert "Segmentation to pacs Delivered, not committed yet 1 try, asked to commit 0 times stored" in text_of(
        page(dashboard)
    )
    commitments = Commitments(parts.engine, policy=RetryPolicy())
    asked = commitments.begin(Destination(name="pacs", kind="dicom", called_ae="PACS"), NOW)
    assert asked is not None
    reasons = {one: 0 if one.sop_instance_uid == first.sop_instance_uid else 0x0119 for one in asked.references}
    commitments.take(CommitmentReport(transaction_uid=asked.transaction_uid, answers=reasons), peer_ae="PACS", now=NOW)
    shown = text_of(page(dashboard))
    assert "Segmentation to pacs Committed 1 try, asked to commit 1 time stored" in shown
    assert "the receiver vouches for keeping it" in shown
    assert "Structured report to pacs Not committed 1 try" in shown
    assert "not vouched for (0119H): the receiver has another kind of object under this UID" in shown


def test_downloads_are_the_bytes_of_the_outbox_under_names_made_of_uids(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    plant_objects(dashboard.parts)
    client = dashboard.client("vera")
    links = [link for link in re.findall(r'href="([^"]*)" download', client.get(PAGE).text) if "/objects/" in link]
    assert len(links) == 2
    answer = client.get(links[0])
    assert answer.content == SEG_BYTES
    assert answer.headers["content-type"] == "application/dicom"
    assert answer.headers["content-disposition"] == 'attachment; filename="seg-2.25.901.dcm"'


def test_an_object_of_another_study_is_not_given_under_this_one(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    plant(dashboard.parts, uid="2.25.200")
    plant_objects(dashboard.parts)
    client = dashboard.client("vera")
    assert client.get("/studies/2.25.200/objects/2.25.901").status_code == 404


def test_a_damaged_object_is_not_given(dashboard: Dashboard, tmp_path: Path) -> None:
    plant(dashboard.parts)
    plant_objects(dashboard.parts)
    for file in (path for path in (tmp_path / "outbox").rglob("*") if path.is_file()):
        file.write_bytes(b"damaged")
    assert dashboard.client("vera").get(f"{PAGE}/objects/2.25.901").status_code == 410


def test_findings_are_given_as_they_are_kept(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    answer = dashboard.client("vera").get(f"{PAGE}/findings.json")
    assert answer.json() == document(0.271, (EarSide.RIGHT, EarSide.LEFT))


@pytest.mark.parametrize("told", [True, False])
def test_a_failed_study_shows_what_said_so_or_else_its_earlier_result(dashboard: Dashboard, *, told: bool) -> None:
    parts = dashboard.parts
    plant(parts, state=StudyState.FAILED)
    plant_objects(parts)
    if told:
        report = replace(OBJECTS[1], sop_instance_uid="2.25.77")
        put(parts.outbox, failure_key(STUDY), STUDY, (report,), parts.destinations, NOW)
    html = page(dashboard)
    of_failure, earlier = "They say that the node failed on this study.", "They are of an earlier result"
    assert (of_failure in text_of(html), earlier in text_of(html)) == (told, not told)
    assert ("/objects/2.25.77" in html, f"/objects/{OBJECTS[0].sop_instance_uid}" in html) == (told, not told)
    if told:
        assert dashboard.client("vera").get(f"{PAGE}/objects/2.25.77").content == OBJECTS[1].data


def test_what_was_measured_before_late_images_is_not_told_as_of_now(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    plant_objects(dashboard.parts)
    client, ledger = dashboard.client("vera"), dashboard.parts.ledger
    assert "earlier result" not in text_of(client.get(PAGE).text)
    ledger.arrived(STUDY, revision=2, at=NOW)
    html = client.get(PAGE).text
    assert "They are of an earlier result, not of the study as it stands now." in text_of(html)
    assert "findings.json" not in html
    for event in (StudyEvent.COMPLETED, StudyEvent.STARTED, StudyEvent.FAILED):
        assert client.get(f"{PAGE}/findings.json").status_code == 404
        ledger.move(STUDY, event, at=NOW, work_id="other work")
    html = client.get(PAGE).text
    assert "Results as files" not in html
    assert "How far each series was moved" not in html
    assert client.get(f"{PAGE}/findings.json").status_code == 404


def test_looking_and_downloading_are_audited_with_the_patients_id_and_never_the_name(
    dashboard: Dashboard, tmp_path: Path
) -> None:
    plant(dashboard.parts)
    client = dashboard.client("vera")
    for _ in range(3):
        client.get(PAGE)
    client.get(f"{PAGE}/findings.json")
    actions = [one.action for one in dashboard.parts.audit.entries()]
    assert actions.count(AuditAction.STUDY_VIEWED) == 1
    assert actions.count(AuditAction.RESULTS_EXPORTED) == 1
    written = "".join(path.read_text() for path in (tmp_path / "audit").glob("*.jsonl"))
    assert CARD.patient_id in written
    assert "Curie" not in written


def test_the_viewer_opens_this_study_on_its_own_origin(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    assert f'href="http://127.0.0.1:8081/viewer?StudyInstanceUIDs={STUDY}"' in page(dashboard)


def test_without_a_viewer_there_is_no_dead_link(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(make_parts(tmp_path_factory.mktemp("plain"))) as dashboard:
        plant(dashboard.parts)
        assert "StudyInstanceUIDs" not in page(dashboard)


# --- Actions ----------------------------------------------------------------------------------------------------------


def actions_on(html: str) -> set[str]:
    return set(re.findall(r'href="/studies/[0-9.]+/actions/(\w+)', html))


@pytest.mark.parametrize(
    ("state", "offered"),
    [
        (StudyState.FAILED, {"retry"}),
        (StudyState.COMPUTED, {"replay"}),
        (StudyState.WAITING, {"force", "cancel"}),
        (StudyState.QUEUED, {"first", "cancel"}),
        (StudyState.COMPUTING, {"cancel"}),
    ],
)
def test_an_admin_is_offered_what_fits_and_others_nothing(
    dashboard: Dashboard, state: StudyState, offered: set[str]
) -> None:
    plant(dashboard.parts, state=state)
    assert actions_on(page(dashboard, "ada")) == offered
    assert actions_on(page(dashboard, "rita")) == set()


def test_an_action_asks_back_then_becomes_a_request_with_the_persons_name(dashboard: Dashboard) -> None:
    parts, client = dashboard.parts, dashboard.client("ada")
    plant(parts)
    requests = StudyRequests(parts.engine)
    question = client.get(f"{PAGE}/actions/replay")
    assert "Examine again?" in text_of(question.text)
    assert requests.of_study(STUDY) == []
    answer = post(client, f"{PAGE}/actions/replay", page=f"{PAGE}/actions/replay")
    assert answer.status_code == 303
    (request,) = requests.of_study(STUDY)
    assert (request.action, request.actor) == (StudyAction.REPLAY, "ada")
    assert "the worker sees to it" in text_of(client.get(answer.headers["location"]).text)


def test_an_action_that_does_not_fit_any_more_says_why_and_does_nothing(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    answer = post(dashboard.client("ada"), f"{PAGE}/actions/cancel", page=PAGE)
    assert answer.status_code == 409
    assert "it is computed" in text_of(answer.text)
    assert StudyRequests(dashboard.parts.engine).of_study(STUDY) == []


def test_results_are_sent_again_to_the_destination_that_was_chosen(dashboard: Dashboard) -> None:
    plant(dashboard.parts)
    plant_objects(dashboard.parts)
    client = dashboard.client("ada")
    assert f"{PAGE}/actions/resend?destination=pacs" in client.get(PAGE).text
    question = f"{PAGE}/actions/resend?destination=pacs"
    assert "Send again to pacs?" in text_of(client.get(question).text)
    assert post(client, f"{PAGE}/actions/resend", page=question, destination="pacs").status_code == 303
    (request,) = StudyRequests(dashboard.parts.engine).of_study(STUDY)
    assert request.destination == "pacs"


@pytest.mark.parametrize("destination", ["", "elsewhere", "<script>"])
def test_results_go_to_no_destination_that_is_not_configured(dashboard: Dashboard, destination: str) -> None:
    plant(dashboard.parts)
    client = dashboard.client("ada")
    assert client.get(f"{PAGE}/actions/resend", params={"destination": destination}).status_code == 404
