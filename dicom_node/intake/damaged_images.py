"""Images that were acknowledged and whose file is not any more what was received: set aside, named, and waited for.

Their study is refused with the reason as long as one of them that it needs is missing. The same image, sent or fetched
again, takes the place and the reason goes by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from dicom_node.database import metadata, writing
from dicom_node.errors import Reason, Refusal
from dicom_node.intake.spool_index import SpooledInstance
from dicom_node.intake.spool_rows import instance_table

damage_table = sa.Table(
    "spool_damage",
    metadata,
    sa.Column("file_name", sa.String(64), primary_key=True),
    sa.Column("sop_instance_uid", sa.String(64), nullable=False),
    sa.Column("series_instance_uid", sa.String(64), nullable=False),
    sa.Column("study_instance_uid", sa.String(64), nullable=False, index=True),
)

_is_back = sa.exists().where(instance_table.c.file_name == damage_table.c.file_name)
_MISSING = (
    sa.select(damage_table)
    .where(damage_table.c.study_instance_uid == sa.bindparam("study"), ~_is_back)
    .order_by(damage_table.c.series_instance_uid, damage_table.c.sop_instance_uid)
)


class DamagedImages:
    """What is known of them; safe for many threads and processes."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        metadata.create_all(engine, tables=[damage_table])

    def note(self, study_instance_uid: str, instances: Iterable[SpooledInstance]) -> None:
        """Remember that these images of a study are damaged; once known, they stay known."""
        with writing(self._engine) as connection:
            for one in instances:
                known = sa.select(damage_table.c.file_name).where(damage_table.c.file_name == one.path.stem)
                if connection.scalar(known) is None:
                    connection.execute(
                        damage_table.insert().values(
                            file_name=one.path.stem,
                            sop_instance_uid=one.sop_instance_uid,
                            series_instance_uid=one.series_instance_uid,
                            study_instance_uid=study_instance_uid,
                        )
                    )

    def names(self, study_instance_uid: str, *, within: sa.Connection) -> list[str]:
        """Names of the files of a study that were ever set aside."""
        of_study = damage_table.c.study_instance_uid == study_instance_uid
        return list(within.scalars(sa.select(damage_table.c.file_name).where(of_study)))

    def refusals(self, study_instance_uid: str) -> list[Refusal]:
        """Why images of a study cannot be used: one reason for each that has not come again."""
        with self._engine.connect() as connection:
            return [
                Refusal(
                    reason=Reason.SOURCE_CORRUPT,
                    detail=f"image {row.sop_instance_uid}: its file on this node's disk is not any more what was "
                    "received; it was set aside. Send the image again, and look after the disk",
                    series_instance_uid=row.series_instance_uid,
                )
                for row in connection.execute(_MISSING, {"study": study_instance_uid})
            ]
