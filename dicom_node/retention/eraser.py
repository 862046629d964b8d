"""Erases a study's images, or everything that the node has of it; each in one transaction, its files after that.

The audit entry is written last before the commit: nothing goes without one, and a kill between the two leaves an entry
too many, never one too few. The log names studies by UID.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, Select, select

from dicom_node.audit import AuditAction, AuditTrail
from dicom_node.database import writing
from dicom_node.delivery.object_files import ObjectFiles
from dicom_node.delivery.outbox_rows import object_rows
from dicom_node.intake.spool import Spool
from dicom_node.intake.spool_rows import study_table
from dicom_node.ledger import Ledger
from dicom_node.ledger_rows import ledger_results, ledger_studies
from dicom_node.owed_pictures import owed_of
from dicom_node.removals import Removals, Removed, Room
from dicom_node.retention.keeping import StudyKeeping, keeping_of
from dicom_node.retention.periods import A_DAY_S, Periods
from dicom_node.retention.study_rows import forget, results_of, works_of
from dicom_node.study_cards import StudyCards
from dicom_node.study_moves import StudyEvent, StudyState

log = logging.getLogger(__name__)

AT_WORK: Final = (StudyState.QUEUED, StudyState.COMPUTING)


class Eraser:
    """Erases on one state folder and database. Safe beside receiving, computing, delivering and another eraser.

    Parameters
    ----------
    state_dir
        Folder of spool, outbox and views.
    clock
        POSIX seconds.
    """

    def __init__(
        self, engine: Engine, state_dir: Path, *, spool: Spool, audit: AuditTrail, clock: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._state_dir = state_dir.resolve()
        self._spool = spool
        self._ledger = Ledger(engine)
        self._cards = StudyCards(engine)
        self._results = ObjectFiles(self._state_dir / "outbox")
        self._audit = audit
        self._clock = clock
        self._removals = Removals(
            engine,
            self._state_dir,
            {
                "spool": Room(in_use=spool.is_here, touched=spool.take_back),
                "outbox": Room(in_use=_is_result),
                "views": Room(in_use=_is_finished_work),
            },
        )

    def finish(self) -> Removed:
        """Remove every file that is listed for it, also by an erasure that was cut off."""
        return self._removals.carry_out()

    def erase_images(self, study_instance_uid: str, periods: Periods) -> bool:
        """Erase a study's images, if their time has ended by now; numbers, pictures and results stay."""
        now = self._clock()
        with writing(self._engine) as connection:
            keeping = self._keeping(connection, study_instance_uid, periods)
            if keeping is None or keeping.images_until is None or keeping.images_until > now:
                return False
            if self._last_sent(study_instance_uid) + periods.inputs_days * A_DAY_S > now:
                return False
            files = self._spool.take_out(study_instance_uid, at=now, within=connection)
            self._removals.add(files, study_instance_uid, at=now, within=connection)
            sentence = f"{len(files)} images, {_days_kept(keeping, periods)}"
            self._ledger.note(study_instance_uid, StudyEvent.ERASED, sentence, at=now, within=connection)
            self._note(AuditAction.IMAGES_ERASED, study_instance_uid, "retention.inputs_days", sentence)
        log.info("event=images_erased study=%s images=%d", study_instance_uid, len(files))
        return True

    def erase_ended(self, study_instance_uid: str, periods: Periods) -> bool:
        """Erase everything of a study whose images are erased, if the time of its results has ended by now."""
        now = self._clock()
        with writing(self._engine) as connection:
            keeping = self._keeping(connection, study_instance_uid, periods)
            if keeping is None or keeping.images or keeping.results_until is None or keeping.results_until > now:
                return False
            self._forget(connection, study_instance_uid, "retention.results_days", "its time had ended", now)
        log.info("event=study_erased study=%s by=retention", study_instance_uid)
        return True

    def erase_study(self, study_instance_uid: str, actor: str) -> str:
        """Erase everything of a study because a person said so: an empty string, or why it was not done.

        Results that wait are not sent any more. A study that a worker is at has to be canceled before; one whose page
        is being drawn is done in seconds.
        """
        with writing(self._engine) as connection:
            state = connection.scalar(_locked_state(study_instance_uid))
            if state in AT_WORK:
                return f"it is {state}; cancel it first: hydrops-node study cancel {study_instance_uid}"
            if connection.execute(owed_of(study_instance_uid)).first() is not None:
                return "its summary page is being drawn; a worker that runs is done with it in seconds, then ask again"
            self._forget(connection, study_instance_uid, actor, f"{actor} asked for it", self._clock())
        log.info("event=study_erased study=%s by=command", study_instance_uid)
        return ""

    def scrub(self) -> None:
        """Leave nothing of deleted rows in SQLite's journal; the pages themselves are overwritten on deleting."""
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as connection:
                connection.exec_driver_sql("COMMIT")  # a checkpoint stands outside of transactions
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def _keeping(self, connection: Connection, study_instance_uid: str, periods: Periods) -> StudyKeeping | None:
        """How long the study is kept; until the commit nobody moves it, and no image of it is acknowledged."""
        connection.execute(_locked_state(study_instance_uid)).first()
        of_study = study_table.c.study_instance_uid == study_instance_uid
        connection.execute(select(study_table.c.revision).where(of_study).with_for_update()).first()
        return keeping_of(connection, study_instance_uid, periods)

    def _last_sent(self, study_instance_uid: str) -> float:
        """When an image of a study was sent last, also one that was known and so left no row: its file says so."""
        paths = [one.path for one in self._spool.instances(study_instance_uid)]
        return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)

    def _forget(self, connection: Connection, study: str, actor: str, why: str, now: float) -> None:
        """Delete every row of a study and list its files, with the entry in the audit trail."""
        files = self._spool.take_out(study, at=now, within=connection)
        files |= self._spool.set_aside(study, within=connection)
        for uid, digest in results_of(connection, study).items():
            files[self._results.path(uid, digest)] = uid
        for work_id in works_of(connection, study):
            files[self._state_dir / "views" / work_id] = work_id
        self._note(AuditAction.STUDY_ERASED, study, actor, why)
        forget(connection, study)
        self._removals.add(files, study, at=now, within=connection)

    def _note(self, action: AuditAction, study_instance_uid: str, actor: str, detail: str) -> None:
        card = self._cards.get(study_instance_uid)
        patient_id = "" if card is None else card.patient_id
        self._audit.record(
            action, actor=actor, study_instance_uid=study_instance_uid, patient_id=patient_id, detail=detail
        )


def _days_kept(keeping: StudyKeeping, periods: Periods) -> str:
    """How long images were kept that go now, in words."""
    if keeping.images_until == keeping.results_until:
        return f"{periods.results_days} days after the study was done, with its results"
    return f"{periods.inputs_days} days after the study was done; results are kept"


def _locked_state(study_instance_uid: str) -> Select[str]:
    of_study = ledger_studies.c.study_instance_uid == study_instance_uid
    return select(ledger_studies.c.state).where(of_study).with_for_update()


def _is_result(connection: Connection, sop_instance_uid: str) -> bool:
    query = select(object_rows.c.sop_instance_uid).where(object_rows.c.sop_instance_uid == sop_instance_uid)
    return connection.execute(query).first() is not None


def _is_finished_work(connection: Connection, work_id: str) -> bool:
    query = select(ledger_results.c.work_id).where(ledger_results.c.work_id == work_id)
    return connection.execute(query).first() is not None
