"""What the parent of a worker writes down when it sees it end: over which study, and how."""

from __future__ import annotations

import logging
import signal
import time

from sqlalchemy import Engine

from dicom_node.claims import Claims
from dicom_node.database import DATABASE_AWAY
from dicom_node.ledger import Ledger, StudyEvent, StudyState
from dicom_node.study_moves import IllegalMoveError

log = logging.getLogger(__name__)


def note_worker_end(engine: Engine, worker_id: str, exit_status: int, *, lived_s: float) -> None:
    """Count the end of a worker over the study that it was at, if it was at one; a database that is away is told.

    One that ended `lived_s` after its start without having begun a study is no study's fault, whatever an earlier one
    left undone. A parent that dies with its child, as on a machine without power, sees nothing: no study is to blame.
    """
    ledger, claims = Ledger(engine), Claims(engine, worker_id)
    sentence = f"{worker_id} ended while it computed this: {how_it_ended(exit_status)}"
    try:
        for record in ledger.in_state(StudyState.COMPUTING):
            study = record.study_instance_uid
            with ledger.transaction() as connection:
                if not claims.died(study, lived_s=lived_s, within=connection):
                    continue
                ledger.note(study, StudyEvent.WORKER_DIED, sentence, at=time.time(), within=connection)
            log.error("event=worker_died_over_study study=%s", study)
    except IllegalMoveError:  # its study has an outcome by now: another worker was at it
        log.info("event=worker_end_not_noted worker=%s", worker_id)
    except DATABASE_AWAY as error:
        log.warning("event=worker_end_not_noted worker=%s reason=%s", worker_id, type(error).__name__)


def how_it_ended(exit_status: int) -> str:
    """A process's exit status in words; negative ones are signals."""
    if exit_status >= 0:
        return f"exit status {exit_status}"
    if exit_status == -signal.SIGKILL:
        return "killed, as the kernel does when memory is short"
    return f"signal {signal.Signals(-exit_status).name}"
