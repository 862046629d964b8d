"""Studies in the state database as desk and worker leave them, without images: what the dashboard's tests look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from mr_sources import classic_series, key_of, oblique_grid, study_findings
from queued_results import put

from dicom_node.assembly.classification import RoleDecision
from dicom_node.assembly.headers import SeriesRole, read_series_header
from dicom_node.assembly.pairing import LeftOut, SeriesSet, StudyAssembly
from dicom_node.delivery.outbox import OutboxObject
from dicom_node.encoding.findings_json import findings_document
from dicom_node.ledger import StudyEvent, StudyState
from dicom_node.study_cards import StudyCard, ear_results
from dicom_node.web.parts import WebParts
from inference.anatomy import EarSide

NOW: Final = 1_800_000_000.0
STUDY: Final = "2.25.100"
CARD: Final = StudyCard(
    study_instance_uid=STUDY,
    patient_key="k" * 64,
    patient_name="Curie^Marie",
    patient_id="MC-1867",
    birth_date="18671107",
    sex="F",
    study_date="20260218",
    study_time="101500",
    accession_number="ACC-77",
    description="Inner ear hydrops",
    scanner="Siemens Skyra, MR7",
    institution="Radium Institute",
)
DECISIONS: Final = (
    {
        "series_instance_uid": "2.25.201",
        "series_number": 12,
        "series_description": "t2_space_mrc_iso",
        "role": "MRC",
        "rule": "mrc",
        "reason": "fine, heavily T2-weighted 3D series without inversion (TR 4400 ms)",
        "used": True,
        "left_out_because": "",
    },
    {
        "series_instance_uid": "2.25.202",
        "series_number": 1401,
        "series_description": "HYDROPS-Mi2 <MR7>",
        "role": "HYDROPS_MI2",
        "rule": "product",
        "reason": "the image type says that images were multiplied",
        "used": False,
        "left_out_because": "the set of MRC with HYDROPS_MI2 is not needed",
    },
)
SEG_BYTES: Final = b"\0" * 128 + b"DICM segmentation"
OBJECTS: Final = (
    OutboxObject(
        kind="SEG",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        sop_instance_uid="2.25.901",
        series_instance_uid="2.25.900",
        data=SEG_BYTES,
    ),
    OutboxObject(
        kind="SR",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33",
        sop_instance_uid="2.25.911",
        series_instance_uid="2.25.910",
        data=b"\0" * 128 + b"DICM report",
    ),
)

_WAY: Final[Mapping[StudyState, tuple[StudyEvent, ...]]] = {
    StudyState.WAITING: (),
    StudyState.QUEUED: (StudyEvent.COMPLETED,),
    StudyState.COMPUTING: (StudyEvent.COMPLETED, StudyEvent.STARTED),
    StudyState.COMPUTED: (StudyEvent.COMPLETED, StudyEvent.STARTED, StudyEvent.COMPUTED),
    StudyState.REFUSED: (StudyEvent.COMPLETED, StudyEvent.STARTED, StudyEvent.REFUSED),
    StudyState.NOT_OURS: (StudyEvent.NOT_OURS,),
    StudyState.FAILED: (StudyEvent.COMPLETED, StudyEvent.STARTED, StudyEvent.FAILED),
    StudyState.CANCELED: (StudyEvent.CANCELED,),
}


@dataclass(frozen=True, kw_only=True)
class Planted:
    """What to plant; `card` is CARD with these fields changed."""

    uid: str = STUDY
    state: StudyState = StudyState.COMPUTED
    at: float = NOW
    reason: str = ""
    detail: str = ""
    card: Mapping[str, str] = field(default_factory=dict)
    decisions: tuple[Mapping[str, Any], ...] = DECISIONS
    ratio: float = 0.271
    ears: tuple[EarSide, ...] = (EarSide.RIGHT, EarSide.LEFT)


def work_of(uid: str) -> str:
    """The work id of a planted study."""
    return f"work-of-{uid}"


def plant(parts: WebParts, what: Planted | None = None, **changes: Any) -> str:
    """Write one study; returns its Study Instance UID."""
    one = what or Planted(**changes)
    card = StudyCard(**{**vars(CARD), "study_instance_uid": one.uid, **one.card})
    parts.cards.put(card)
    ledger = parts.ledger
    ledger.arrived(one.uid, revision=1, at=one.at - 60.0)
    notes: dict[str, Any] = {"decisions": list(one.decisions), "work_id": work_of(one.uid)}
    for event in _WAY[one.state]:
        last = event is _WAY[one.state][-1]
        extra = {"reason": one.reason, "detail": one.detail} if last else {}
        if event is StudyEvent.COMPUTED:
            findings = study_findings(oblique_grid(), ratio=one.ratio, ears=one.ears)
            extra["findings"] = document(one.ratio, one.ears)
            parts.cards.put_results(ear_results(work_of(one.uid), card, findings, at=one.at))
        ledger.move(one.uid, event, at=one.at, **notes, **extra)
    if one.state is StudyState.WAITING:
        ledger.waiting(
            one.uid,
            reason=one.reason or "WAITING",
            detail=one.detail,
            look_again_at=None,
            decisions=list(one.decisions),
            at=one.at,
        )
    return one.uid


def plant_objects(parts: WebParts, uid: str = STUDY) -> None:
    """Put a SEG and an SR into the outbox, on their way to every destination."""
    put(parts.outbox, work_of(uid), uid, OBJECTS, parts.destinations, NOW)


@cache
def document(ratio: float, ears: tuple[EarSide, ...]) -> dict[str, Any]:
    """findings.json of a measured study."""
    grid = oblique_grid()
    source = classic_series(grid)
    header = read_series_header(source)
    assembly = StudyAssembly(
        study_instance_uid=header.study_instance_uid,
        decisions=(
            RoleDecision(
                series_instance_uid=header.series_instance_uid, role=SeriesRole.MRC, rule="mrc", reason="fine 3D series"
            ),
        ),
        chosen=SeriesSet(series={SeriesRole.MRC: header}, warnings=()),
        left_out=(LeftOut(series_instance_uid="2.25.5000", role=SeriesRole.OTHER, reason="a localizer"),),
        refusal=None,
    )
    findings = study_findings(grid, ratio=ratio, ears=ears)
    return findings_document(assembly, findings, key=key_of(source), timings_s={"segment fluid": 0.5})
