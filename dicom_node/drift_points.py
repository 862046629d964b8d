"""What came of every finished study, as the drift page counts it: computed from the sources, and kept as a short line.

The plain computation, `study_points`, asks ledger, card index and outbox about some studies. Over a year of a hundred
thousand that takes seconds; so its results are kept, one line a study (`drift_rows`), and a worker writes a line anew
soon after something of it has changed. Until then the page computes that study itself: what it shows is always what
the sources say.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, delete, func, insert, select

from dicom_node.database import reading, writing
from dicom_node.delivery.outbox import Outbox
from dicom_node.drift import DAY_S, RECORD
from dicom_node.drift_rows import drift_rows, owed_points
from dicom_node.ledger import Ledger
from dicom_node.ledger_rows import FinishedStudy, ledger_results, ledger_studies
from dicom_node.study_cards import StudyCards, WorkEars

AT_A_TIME: Final = 200
"""Studies whose lines are written under one write lock, which receiving waits for: some ten milliseconds."""

OVERLAP_S: Final = 7 * DAY_S
"""Of what ended so long before the newest line it is looked, at a worker's start, whether it has one: a worker of an
older version that ran beside newer ones, and clocks that were set, are found so."""


class DriftPoints:
    """The lines on one state database, and the sources that they repeat."""

    def __init__(self, engine: Engine, *, ledger: Ledger, cards: StudyCards, outbox: Outbox) -> None:
        self._engine = engine
        self._ledger = ledger
        self._cards = cards
        self._outbox = outbox
        self._owed_missing = False

    def read(self, *, since: float) -> dict[str, NDArray[np.void]]:
        """By scanner: every study that finished at `since` (POSIX seconds) or later, with what came of it last.

        The arrays have shape (n,) and type `RECORD`, in no order. A scanner that a study does not name is "".
        """
        in_time = drift_rows.c.finished_at >= since
        owed = select(owed_points.c.study_instance_uid)
        kept = select(drift_rows.c.scanner, func.aggregate_strings(drift_rows.c.numbers, "")).where(in_time)
        kept = kept.where(drift_rows.c.study_instance_uid.not_in(owed)).group_by(drift_rows.c.scanner)
        with reading(self._engine) as connection:
            found = {scanner: [_unpacked(numbers)] for scanner, numbers in connection.execute(kept)}
            for studies in _batches(connection.scalars(owed.distinct()).all()):
                for scanner, record in self.study_points(studies, within=connection).values():
                    if record["finished_at"] >= since:
                        found.setdefault(scanner, []).append(record[np.newaxis])
        return {scanner: np.concatenate(parts) for scanner, parts in found.items()}

    def settle(self) -> int:
        """Write the lines of some of the studies that are owed one; how many studies these were.

        The first call also finds those that nobody noted, as after an upgrade.
        """
        if not self._owed_missing:
            self.owe_missing(time.time())
            self._owed_missing = True
        next_owed = select(owed_points).order_by(owed_points.c.owed_id).limit(AT_A_TIME)
        with self._engine.connect() as connection:
            if connection.execute(next_owed.limit(1)).first() is None:
                return 0
        with writing(self._engine) as connection:
            owed = connection.execute(next_owed).all()
            studies = sorted({row.study_instance_uid for row in owed})
            # Whoever erases a study, and another worker that settles it, holds this row: neither is written over.
            of_these = ledger_studies.c.study_instance_uid.in_(studies)
            locked = select(ledger_studies.c.study_instance_uid).where(of_these)
            known = connection.scalars(locked.order_by(ledger_studies.c.study_instance_uid).with_for_update()).all()
            points = self.study_points(known, within=connection)
            connection.execute(delete(drift_rows).where(drift_rows.c.study_instance_uid.in_(studies)))
            if points:
                connection.execute(insert(drift_rows), [_row(study, *one) for study, one in points.items()])
            numbers = [row.owed_id for row in owed]
            connection.execute(delete(owed_points).where(owed_points.c.owed_id.in_(numbers)))
        return len(studies)

    def owe_missing(self, now: float) -> int:
        """Note every study that finished and has no line of that: it is one of an older version; how many there are."""
        with self._engine.connect() as connection:
            until_now = drift_rows.c.finished_at <= now  # a clock that was ahead hides nothing
            newest = connection.scalar(select(func.max(drift_rows.c.finished_at)).where(until_now))
            line = drift_rows.c.study_instance_uid == ledger_results.c.study_instance_uid
            has_line = select(drift_rows.c.scanner).where(line, drift_rows.c.finished_at >= ledger_results.c.at)
            ended = select(ledger_results.c.study_instance_uid).distinct().where(~has_line.exists())
            if newest is not None:
                ended = ended.where(ledger_results.c.at >= newest - OVERLAP_S)
            missing = connection.scalars(ended).all()
        if missing:
            with writing(self._engine) as connection:  # all at once, or the newest line would hide that some are left
                connection.execute(insert(owed_points), [{"study_instance_uid": study} for study in missing])
        return len(missing)

    def study_points(self, studies: Sequence[str], *, within: Connection) -> dict[str, tuple[str, NDArray[np.void]]]:
        """Of each of these studies that finished, its scanner and what came of it last, a `RECORD`; by study."""
        finished = _last_of_each(self._ledger.finished_of(studies, within=within))
        works = [one.work_id for one, _ in finished]
        ears_of = self._cards.ears_of(works, within=within)
        delivered = self._outbox.delivered(works, within=within)
        scanners = self._cards.scanners(
            [one.study_instance_uid for one, _ in finished if one.work_id not in ears_of], within=within
        )
        points = {}
        for one, examined_again in finished:
            study = one.study_instance_uid
            ears = ears_of.get(one.work_id) or WorkEars(scanner=scanners.get(study, ""))
            confirmed = None if examined_again else delivered.get(one.work_id)
            record = np.zeros((), RECORD)
            record["finished_at"] = one.finished_at
            record["ratios"] = math.nan
            record["ratios"][: len(ears.ratios)] = ears.ratios[:2]
            record["latency_s"] = math.nan if confirmed is None else max(0.0, confirmed - one.arrived_at)
            record["refused"], record["flagged"] = one.refused, ears.is_flagged
            points[study] = ears.scanner, record
        return points


def _last_of_each(finished: Iterable[FinishedStudy]) -> list[tuple[FinishedStudy, bool]]:
    """The last piece of work of each study, and whether it repeats one before without new images."""
    last: dict[str, tuple[FinishedStudy, bool]] = {}
    for one in finished:
        before = last.get(one.study_instance_uid)
        last[one.study_instance_uid] = one, before is not None and one.arrived_at <= before[0].finished_at
    return list(last.values())


def _row(study_instance_uid: str, scanner: str, record: NDArray[np.void]) -> dict[str, Any]:
    return {
        "study_instance_uid": study_instance_uid,
        "scanner": scanner,
        "finished_at": float(record["finished_at"]),
        "numbers": record.tobytes().hex(),
    }


def _unpacked(numbers: str) -> NDArray[np.void]:
    """The records whose bytes stand one behind the other as hexadecimal digits."""
    return np.frombuffer(bytes.fromhex(numbers), RECORD)


def _batches(studies: Sequence[str]) -> Iterable[Sequence[str]]:
    return (studies[start : start + AT_A_TIME] for start in range(0, len(studies), AT_A_TIME))
