"""Every row that the state database has of one study: found by its tables, so that no table can be forgotten.

A table belongs to a study if it has its Study Instance UID; what stays although it has it stands in `STAYS` with the
reason. A test walks all tables of the node and wants each of them to be here, or to have nothing to do with a study.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, Table, delete, select

from dicom_node.database import metadata
from dicom_node.delivery.outbox_rows import delivery_rows, object_rows
from dicom_node.ledger_rows import ledger_results
from dicom_node.owed_failures import OwedFailures
from dicom_node.owed_pictures import OwedPictures
from dicom_node.reviews import Reviews
from dicom_node.study_cards import StudyCards
from dicom_node.study_requests import StudyRequests
from dicom_node.urgency import Urgencies

DECLARING: Final = (OwedFailures, OwedPictures, Reviews, StudyCards, StudyRequests, Urgencies)
"""Whose tables are declared by importing them: a table that nobody has declared would keep its rows."""

STAYS: Final[Mapping[str, str]] = {
    "spool_study": "its revision never shrinks: the workflow engine knows a run by it, and must not confuse two",
    "work_claims": "its numbers never shrink: a worker that comes too late is known by them",
    "file_removal": "what is still to be removed; each row goes with its file",
    "notice": "names a study by its UID at the most, and ends after ninety days",
}
"""Tables whose rows outlive the study, and why."""


def tables_of_studies() -> list[Table]:
    """The tables whose rows go with a study, those that refer to others first."""
    found = [table for table in metadata.sorted_tables if "study_instance_uid" in table.c and table.name not in STAYS]
    return list(reversed(found))


def works_of(connection: Connection, study_instance_uid: str) -> list[str]:
    """The ids of every piece of work that was finished for a study."""
    of_study = ledger_results.c.study_instance_uid == study_instance_uid
    return list(connection.scalars(select(ledger_results.c.work_id).where(of_study)))


def results_of(connection: Connection, study_instance_uid: str) -> dict[str, str]:
    """SHA-256 by SOP Instance UID of every result that the outbox has of a study."""
    query = select(object_rows.c.sop_instance_uid, object_rows.c.sha256)
    rows = connection.execute(query.where(object_rows.c.study_instance_uid == study_instance_uid))
    return {row.sop_instance_uid: row.sha256 for row in rows}


def forget(connection: Connection, study_instance_uid: str) -> None:
    """Delete every row of a study. Its deliveries know it by its results, and take their commitments along."""
    results = select(object_rows.c.sop_instance_uid).where(object_rows.c.study_instance_uid == study_instance_uid)
    connection.execute(delete(delivery_rows).where(delivery_rows.c.sop_instance_uid.in_(results)))
    for table in tables_of_studies():
        connection.execute(delete(table).where(table.c.study_instance_uid == study_instance_uid))
