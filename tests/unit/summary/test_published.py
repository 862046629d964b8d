"""The summary on its way out: beside the report, and not again when the same images come back."""

from __future__ import annotations

from pathlib import Path

from desk_parts import DeskParts, hydrops_study

from dicom_node.encoding.part10 import read_part10


def test_a_refused_study_sends_its_page_beside_the_report(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path, summary=True)
    parts.receive(hydrops_study())
    parts.work_off()
    assert sorted(parts.sent()) == [("SC", "pacs"), ("SR", "pacs")]
    (uid,) = [one.sop_instance_uid for one in parts.outbox.deliveries("2.25.100") if one.kind == "SC"]
    written = read_part10(parts.outbox.read(uid))
    assert written.SeriesDescription == "RESEARCH EH summary: not computed"
    assert written.pixel_array.shape == (1024, 1024, 3)
    parts.receive(hydrops_study())
    assert parts.look_round_after() == []
    assert len(parts.sent()) == 2


def test_a_site_that_wants_no_refusals_gets_no_page_of_one(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path, summary=True, send_not_computed=False)
    parts.receive(hydrops_study())
    parts.work_off()
    assert parts.sent() == []
