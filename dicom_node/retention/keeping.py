"""How long one study is kept, and what holds it: the one judgment, for whoever erases and for whoever shows it.

A study ends when it was decided and all of its results are delivered, and committed where a destination is to commit.
From then on its time runs, anew whenever images of it come. What holds a study back holds it for as long as it lasts.
Where no destination takes any of its results, it is done with the decision, and its images end with the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BindParameter, Connection, Engine, Select, and_, bindparam, case, func, or_, select

from dicom_node.delivery.completion import done_at
from dicom_node.delivery.outbox_rows import DeliveryState, delivery_rows, object_rows
from dicom_node.intake.erased_images import ErasedImages, erased_images
from dicom_node.intake.spool_rows import instance_table, study_table
from dicom_node.ledger_rows import ledger_studies
from dicom_node.owed_pictures import owed_of
from dicom_node.retention.periods import Periods
from dicom_node.study_moves import StudyState
from dicom_node.study_requests import open_requests

DECIDED: Final = (StudyState.COMPUTED, StudyState.REFUSED, StudyState.NOT_OURS, StudyState.CANCELED)
"""States in which a study can end. A failed one is not among them: whoever retries it needs its images."""

UNFINISHED: Final[Mapping[StudyState, str]] = {
    StudyState.WAITING: "it waits for images",
    StudyState.QUEUED: "it is not computed yet",
    StudyState.COMPUTING: "it is being computed",
    StudyState.FAILED: "the node failed on it, and a retry needs its images",
}

_study: BindParameter[str] = bindparam("study")
_RECORD = select(
    ledger_studies.c.study_instance_uid, ledger_studies.c.state, ledger_studies.c.revision, ledger_studies.c.updated_at
).where(ledger_studies.c.study_instance_uid == _study)
_IMAGES = (
    select(
        func.count(instance_table.c.file_name).label("images"),
        func.max(instance_table.c.received_at).label("last_received_at"),
        func.coalesce(func.sum(case((instance_table.c.conflict, 1), else_=0)), 0).label("conflicts"),
        func.max(study_table.c.revision).label("revision"),
    )
    .select_from(
        instance_table.outerjoin(study_table, study_table.c.study_instance_uid == instance_table.c.study_instance_uid)
    )
    .where(instance_table.c.study_instance_uid == _study)
)
_OUTCOMES = (
    select(delivery_rows.c.state)
    .join(object_rows, object_rows.c.sop_instance_uid == delivery_rows.c.sop_instance_uid)
    .where(object_rows.c.study_instance_uid == _study)
    .distinct()
)


@dataclass(frozen=True, kw_only=True)
class StudyKeeping:
    """What is here of one study and until when. Times are POSIX seconds.

    `images` counts those that are here, `erased` tells of those that were. `held_because` says what keeps the study
    from ending, "" if nothing does. `images_until` and `results_until` are None where there is no end, or none yet.
    """

    study_instance_uid: str
    state: StudyState
    images: int
    erased: ErasedImages | None
    held_because: str
    images_until: float | None
    results_until: float | None


def keeping_of(connection: Connection, study_instance_uid: str, periods: Periods) -> StudyKeeping | None:
    """How long a study is kept, as things are in this transaction; None if the node does not know it."""
    record = connection.execute(_RECORD, {"study": study_instance_uid}).one_or_none()
    if record is None:
        return None
    here = connection.execute(_IMAGES, {"study": study_instance_uid}).one()
    erased = erased_images(connection, study_instance_uid)
    confirmed_at = done_at(connection.engine, study_instance_uid, within=connection)
    outcomes = set(connection.scalars(_OUTCOMES, {"study": study_instance_uid}))
    held = _held_because(connection, record, here, erased)
    if not held and confirmed_at is None and outcomes - {DeliveryState.NOT_SENT}:
        held = "its results are not everywhere yet where they belong"
    came_at = max(here.last_received_at or 0.0, 0.0 if erased is None else erased.received_at)
    ended_at = max(record.updated_at, confirmed_at or 0.0, came_at)
    # Results that no destination takes are nowhere but here: what they were made from is kept as long as they are.
    until = periods.results_until if outcomes == {DeliveryState.NOT_SENT} else periods.images_until
    return StudyKeeping(
        study_instance_uid=study_instance_uid,
        state=StudyState(record.state),
        images=here.images,
        erased=erased,
        held_because=held,
        images_until=None if held or not here.images else until(ended_at),
        results_until=None if held else periods.results_until(ended_at),
    )


class StudyKeepings:
    """How long studies are kept, for whoever shows it."""

    def __init__(self, engine: Engine, periods: Periods) -> None:
        self._engine = engine
        self._periods = periods

    def of_study(self, study_instance_uid: str) -> StudyKeeping | None:
        """How long one study is kept; None if the node does not know it."""
        with self._engine.connect() as connection:
            return keeping_of(connection, study_instance_uid, self._periods)


def perhaps_due(at: float, *, with_images: bool, results_end: bool = True) -> Select[str]:
    """Studies that were decided at `at` or earlier, the oldest first; whether they are due, `keeping_of` says.

    `with_images`: those of which images are here, else those of which none are. Where results do not end, neither do
    the images of studies whose results are nowhere but here: these are left out, for every round would look at all of
    them, and find none due.
    """
    columns = ledger_studies.c
    images = select(instance_table.c.file_name).where(instance_table.c.study_instance_uid == columns.study_instance_uid)
    here = images.exists() if with_images else ~images.exists()
    decided = and_(columns.state.in_([state.value for state in DECIDED]), columns.updated_at <= at, here)
    if not results_end:
        of_study = select(delivery_rows.c.delivery_id).join(
            object_rows, object_rows.c.sop_instance_uid == delivery_rows.c.sop_instance_uid
        )
        of_study = of_study.where(object_rows.c.study_instance_uid == columns.study_instance_uid)
        taken = of_study.where(delivery_rows.c.state != DeliveryState.NOT_SENT)
        decided = and_(decided, or_(~of_study.exists(), taken.exists()))
    return select(columns.study_instance_uid).where(decided).order_by(columns.updated_at, columns.study_instance_uid)


def _held_because(connection: Connection, record: Any, here: Any, erased: ErasedImages | None) -> str:
    """What keeps a study from ending, in words; "" if nothing does."""
    study = record.study_instance_uid
    if record.state not in DECIDED:
        return UNFINISHED[StudyState(record.state)]
    if here.images and here.revision != record.revision:
        return "images came that nobody has looked at yet"
    if connection.execute(owed_of(study)).first() is not None:
        return "its page and pictures are still to be drawn"
    if here.conflicts:
        return "an image of it came with more than one content"
    if erased is not None and erased.unseen:
        return f"{erased.unseen} images came after others had been erased; send the whole study again"
    if connection.execute(open_requests(study)).first() is not None:
        return "somebody has asked for something to be done to it"
    return ""
