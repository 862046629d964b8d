"""The pictures' page and files: for signed-in people, whole or not at all, with words where there is no picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from dashboard_parts import Dashboard, make_parts, serving
from viewed_study import oblique_slab, viewed_study

from dicom_node.audit import AuditAction
from dicom_node.ledger import StudyEvent, StudyState
from dicom_node.owed_pictures import OwedPictures, owed_rows
from dicom_node.views.pack import build_view_pack
from dicom_node.views.shelf import ViewShelf
from dicom_node.web.study_views import BEING_DRAWN, NOT_DRAWN, WHY_NOT, views_of

WORK = "ab" * 32
COMPUTED, REFUSED, WITHOUT = "2.25.1", "2.25.2", "2.25.3"


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory) -> Iterator[Dashboard]:
    folder: Path = tmp_path_factory.mktemp("views")
    parts = make_parts(folder)
    slab = oblique_slab()
    ViewShelf(folder / "views").put(WORK, build_view_pack(viewed_study(slab), slab).files)
    for uid, work_id, event in (
        (COMPUTED, WORK, StudyEvent.COMPUTED),
        (REFUSED, f"{'cd' * 32}-NO_MRC", StudyEvent.REFUSED),
        (WITHOUT, "ef" * 32, StudyEvent.COMPUTED),
    ):
        parts.ledger.arrived(uid, revision=1, at=1.0)
        parts.ledger.move(uid, StudyEvent.COMPLETED, at=2.0, work_id=work_id, work={})
        parts.ledger.move(uid, StudyEvent.STARTED, at=3.0)
        parts.ledger.move(uid, event, at=4.0, findings={}, reason="NO_MRC" if event is StudyEvent.REFUSED else "")
    with serving(parts) as running:
        yield running


def test_every_listed_file_comes_whole_and_with_its_type(dashboard):
    with closing(dashboard.client("vera")) as client:
        manifest = client.get(f"/views/{WORK}/manifest.json").json()
        for name, listed in manifest["files"].items():
            answer = client.get(f"/views/{WORK}/{name}")
            assert hashlib.sha256(answer.content).hexdigest() == listed["sha256"]
            assert answer.headers["content-type"] == listed["media_type"]
            assert "content-encoding" not in answer.headers  # a .nii.gz stays one
            assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", [f"/views/{WORK}/manifest.json", f"/views/{WORK}/left_mrc.nii.gz"])
def test_pictures_are_for_people_who_signed_in(dashboard, path):
    with closing(dashboard.client()) as client:
        client.headers["Accept"] = "*/*"
        assert client.get(path).status_code == 401


@pytest.mark.parametrize("name", ["..%2fnode.db", "%2e%2e/%2e%2e/node.db", "other.png", "manifest.json%00"])
def test_other_names_lead_nowhere(dashboard, name):
    with closing(dashboard.client("vera")) as client:
        assert client.get(f"/views/{WORK}/{name}").status_code == 404


def test_a_file_that_changed_on_disk_is_not_shown(dashboard):
    path = dashboard.parts.state_dir / "views" / WORK / "right_slices.png"
    original = path.read_bytes()
    try:
        path.write_bytes(original[:-1] + b"\0")
        with closing(dashboard.client("vera")) as client:
            answer = client.get(f"/views/{WORK}/right_slices.png")
        assert answer.status_code == 410
        assert "right_slices.png was damaged on disk" in answer.text
    finally:
        path.write_bytes(original)


def test_the_page_names_every_file_and_both_ears_numbers(dashboard):
    with closing(dashboard.client("vera")) as client:
        text = client.get(f"/studies/{COMPUTED}/views").text
    assert text.count("<img src=") >= 4
    assert text.index("Right ear: EH ratio 22.0 %") < text.index("Left ear: EH ratio")
    for name in ("labels.nii.gz", "left_hydrops_before_alignment.nii.gz", "right_endolymph.ply"):
        assert f'href="/studies/{COMPUTED}/views/{name}" download' in text
    assert "style=" not in text
    assert "<script>" not in text


def test_the_page_of_a_study_shows_the_same_pictures(dashboard):
    with closing(dashboard.client("vera")) as client:
        assert f'data-base="/views/{WORK}/"' in client.get(f"/studies/{COMPUTED}").text


@pytest.mark.parametrize(("uid", "words"), [(REFUSED, "nothing was computed"), (WITHOUT, "not on this node any more")])
def test_a_study_without_pictures_says_why(dashboard, uid, words):
    with closing(dashboard.client("vera")) as client:
        text = client.get(f"/studies/{uid}/views").text
    assert words in text
    assert "viewer.js" not in text


def test_looking_is_audited_once_and_every_file_that_is_taken(dashboard):
    with closing(dashboard.client("rita")) as client:
        for path in (f"/studies/{COMPUTED}/views", f"/studies/{COMPUTED}", f"/studies/{COMPUTED}/views"):
            assert client.get(path).status_code == 200
        for name in ("labels.nii.gz", "left_endolymph.ply"):
            answer = client.get(f"/studies/{COMPUTED}/views/{name}")
            assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
        assert client.get(f"/studies/{COMPUTED}/views/manifest.json").status_code == 404
    noted = [(one.action, json.dumps(one.message)) for one in dashboard.parts.audit.entries()]
    ritas = [(action, message) for action, message in noted if '"rita"' in message]
    assert [action for action, _ in ritas].count(AuditAction.STUDY_VIEWED) == 1
    exported = [message for action, message in ritas if action is AuditAction.RESULTS_EXPORTED]
    assert len(exported) == 2
    assert "labels.nii.gz" in exported[0]
    assert "left_endolymph.ply" in exported[1]


def test_an_unknown_study_is_not_found(dashboard):
    with closing(dashboard.client("vera")) as client:
        assert client.get("/studies/2.25.99/views").status_code == 404


def test_every_state_has_its_words():
    assert set(WHY_NOT) == set(StudyState)


def test_pictures_of_an_earlier_result_are_not_shown_for_a_study_that_is_computed_anew(dashboard):
    record = dashboard.parts.ledger.get(COMPUTED)
    shelf = ViewShelf(dashboard.parts.state_dir / "views")
    assert record is not None
    owed = OwedPictures(dashboard.parts.engine)
    assert views_of(record, shelf, owed).ears
    dashboard.parts.ledger.arrived("2.25.4", revision=1, at=1.0)
    dashboard.parts.ledger.move("2.25.4", StudyEvent.COMPLETED, at=2.0, work_id=WORK, work={})
    queued = dashboard.parts.ledger.get("2.25.4")
    assert queued is not None
    assert views_of(queued, shelf, owed).why_not == WHY_NOT[StudyState.QUEUED]


def test_a_study_says_that_its_pictures_are_being_drawn_and_why_they_were_not(dashboard):
    owed = OwedPictures(dashboard.parts.engine)
    with dashboard.parts.ledger.transaction() as connection:
        owed.owe("ef" * 32, WITHOUT, {}, at=5.0, within=connection)
    with closing(dashboard.client("vera")) as client:
        for path in (f"/studies/{WITHOUT}", f"/studies/{WITHOUT}/views"):
            assert BEING_DRAWN in client.get(path).text
        progress = client.get(f"/studies/{WITHOUT}/progress").json()
        assert progress["under_way"]
        assert [one["name"] for one in progress["steps"] if one["place"] == "now"] == ["Draw the summary"]
        with dashboard.parts.ledger.transaction() as connection:
            assert owed.give_up("ef" * 32, "the disk is gone", within=connection)
        assert not client.get(f"/studies/{WITHOUT}/progress").json()["under_way"]
        assert NOT_DRAWN.format(why="the disk is gone") in client.get(f"/studies/{WITHOUT}/views").text
        with dashboard.parts.ledger.transaction() as connection:
            connection.execute(owed_rows.delete())
