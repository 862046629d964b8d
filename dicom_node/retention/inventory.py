"""What is here of studies, in numbers, and what goes next: for people who look before something is erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, func, select

from dicom_node.delivery.object_files import ObjectFiles
from dicom_node.delivery.outbox_rows import DeliveryState, delivery_rows, joined_rows, object_rows
from dicom_node.intake.spool import Spool
from dicom_node.intake.spool_rows import instance_table
from dicom_node.ledger_rows import ledger_studies
from dicom_node.retention.keeping import StudyKeeping, keeping_of
from dicom_node.retention.periods import Periods
from dicom_node.retention.study_rows import results_of, works_of


@dataclass(frozen=True, kw_only=True)
class StudyInventory:
    """What the node has of one study, and how long it keeps it. `waiting` counts results that are not delivered yet.

    `image_bytes` are on disk; `result_bytes` are those of results and pictures.
    """

    keeping: StudyKeeping
    image_bytes: int
    results: int
    pictures: int
    result_bytes: int
    waiting: int


class Inventory:
    """Looks at the studies of one node; changes nothing."""

    def __init__(self, engine: Engine, state_dir: Path, *, spool: Spool, periods: Periods) -> None:
        self._engine = engine
        self._views = state_dir / "views"
        self._results = ObjectFiles(state_dir / "outbox")
        self._spool = spool
        self._periods = periods

    def of_study(self, study_instance_uid: str) -> StudyInventory | None:
        """What is here of a study; None if the node does not know it."""
        with self._engine.connect() as connection:
            keeping = keeping_of(connection, study_instance_uid, self._periods)
            if keeping is None:
                return None
            results = results_of(connection, study_instance_uid)
            pictures = [self._views / work for work in works_of(connection, study_instance_uid)]
            waiting = _waiting(connection, study_instance_uid)
        images = [one.path for one in self._spool.instances(study_instance_uid)]
        files = [self._results.path(uid, digest) for uid, digest in results.items()]
        files += [file for folder in pictures if folder.is_dir() for file in folder.iterdir()]
        return StudyInventory(
            keeping=keeping,
            image_bytes=_bytes_of(images),
            results=len(results),
            pictures=sum(folder.is_dir() for folder in pictures),
            result_bytes=_bytes_of(files),
            waiting=waiting,
        )

    def with_images(self, limit: int) -> list[StudyInventory]:
        """Studies of which images are here, the one that was decided longest ago first."""
        here = select(instance_table.c.file_name).where(
            instance_table.c.study_instance_uid == ledger_studies.c.study_instance_uid
        )
        query = select(ledger_studies.c.study_instance_uid).where(here.exists())
        query = query.order_by(ledger_studies.c.updated_at, ledger_studies.c.study_instance_uid).limit(limit)
        with self._engine.connect() as connection:
            studies = list(connection.scalars(query))
        found = [self.of_study(one) for one in studies]
        return [one for one in found if one is not None]


def _waiting(connection: Connection, study_instance_uid: str) -> int:
    of_study = object_rows.c.study_instance_uid == study_instance_uid
    waiting = delivery_rows.c.state == DeliveryState.WAITING
    query = select(func.count()).select_from(joined_rows).where(of_study, waiting)
    return connection.scalar(query) or 0


def _bytes_of(files: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.exists())
