"""The rows behind the drift page: what came of each study in one short line, and whose line is to be written anew.

`drift_point` repeats what ledger, card index and outbox say, so that a year of a hundred thousand studies is read at
once. Whoever changes what a line is made from adds the study to `drift_owed` in the same transaction; the page computes
the studies that stand there from the sources, and a worker writes their lines soon after (`drift_points`).
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, Float, Integer, Select, String, Table, Text, insert, literal

from dicom_node.database import metadata

drift_rows = Table(
    "drift_point",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("scanner", Text, nullable=False),
    Column("finished_at", Float, nullable=False, index=True),
    Column("numbers", Text, nullable=False),  # one text, because reading a column for each costs five times as much
)

owed_points = Table(
    "drift_owed",
    metadata,
    # Rows are only ever added and deleted by number: one that is added while its forerunner is worked off stays.
    Column("owed_id", Integer, primary_key=True, autoincrement=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    sqlite_autoincrement=True,
)


def owe_point(within: Connection, study_instance_uid: str) -> None:
    """Say that what came of this study has changed, in the transaction that changes it."""
    owe_points(within, Select(literal(study_instance_uid)))


def owe_points(within: Connection, studies: Select[str]) -> None:
    """The same for every study that a query names."""
    within.execute(insert(owed_points).from_select(["study_instance_uid"], studies))
