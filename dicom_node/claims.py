"""Who works at which study, under which number: what keeps a worker that comes too late from publishing.

Whoever begins a study, takes it over or begins it again draws the study's next number. Publishing asks within its own
transaction whether its number is still the last one; a worker that was stopped, cut off or merely slow while another
took its study over finds that it is not, and nothing of what it did is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, Connection, Engine, Float, Integer, String, Table, insert, select, update
from sqlalchemy.exc import IntegrityError

from dicom_node.database import database_time, metadata
from dicom_node.errors import TransientError

MAX_DEATHS: Final = 2
"""Once a worker may have died over a study by chance. A study that ends two ends every worker there is, in turn."""

MAX_BEGINNINGS: Final = 5
"""Where nobody saw how a worker ended, a machine may have been restarted; so many times is no chance either."""

claim_rows = Table(
    "work_claims",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("run_id", String(256), nullable=False),
    Column("number", Integer, nullable=False),
    Column("beginnings", Integer, nullable=False),
    Column("deaths", Integer, nullable=False, default=0),
    Column("worker_id", String(64), nullable=False),
    Column("taken_from", String(64), nullable=False, default=""),
    Column("claimed_at", Float, nullable=False),
)


class TakenOverError(Exception):
    """Another worker has taken this study over: what was done here must not become known."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to work at one run of a study; `number` grows with every beginning of whatever run.

    `beginnings` counts those of this run and `deaths` the workers that were seen to end over it, or left it because of
    a fault of theirs; `taken_from` is the worker that had it last, if that was another one.
    """

    study_instance_uid: str
    run_id: str
    number: int
    beginnings: int
    deaths: int
    worker_id: str
    taken_from: str

    @property
    def again(self) -> bool:
        """Whether this run was begun before and did not end."""
        return self.beginnings > 1

    @property
    def ends_workers(self) -> str:
        """Why this run is not to be tried again, in a sentence; empty if it may be."""
        if self.deaths >= MAX_DEATHS:
            return f"{self.deaths} workers ended while they computed it; memory may be short"
        if self.beginnings > MAX_BEGINNINGS:
            return f"{MAX_BEGINNINGS} processes that computed it ended without a word; memory may be short"
        return ""


class Claims:
    """The claims on one state database, as worker `worker_id` makes them; each method is part of a transaction."""

    def __init__(self, engine: Engine, worker_id: str) -> None:
        self._engine = engine
        self._worker_id = worker_id

    def take(
        self,
        study_instance_uid: str,
        run_id: str,
        *,
        within: Connection,
        after: Claim | None = None,
        faults: int = 0,
    ) -> Claim:
        """Begin a run, be it for the first time, again, or in place of another worker: draw the next number.

        `after` is what the caller had claimed of this run, if it did: a step that is tried again because a disk was
        full keeps its claim, and one that lost it meanwhile does not take the study back. `faults` counts the workers
        that left the run before it was given its present id: they count as if they had ended over it.

        Raises
        ------
        TakenOverError
            If another one took the run over since `after`.
        TransientError
            If another worker makes its first claim on this study at this moment.
        """
        before = self._row(study_instance_uid, within)
        if after is not None and after.run_id == run_id:
            self.require(after, within=within)
            return after
        same = before is not None and before.run_id == run_id
        claim = Claim(
            study_instance_uid=study_instance_uid,
            run_id=run_id,
            number=1 if before is None else before.number + 1,
            beginnings=before.beginnings + 1 if before is not None and same else 1,
            deaths=before.deaths if before is not None and same else faults,
            worker_id=self._worker_id,
            taken_from=before.worker_id if before is not None and same and before.worker_id != self._worker_id else "",
        )
        values = {**vars(claim), "claimed_at": database_time(self._engine)}
        if before is not None:
            within.execute(update(claim_rows).where(_of(study_instance_uid)).values(**values))
            return claim
        try:
            within.execute(insert(claim_rows).values(**values))
        except IntegrityError:
            raise TransientError("another worker claims the study at this moment") from None
        return claim

    def require(self, claim: Claim, *, within: Connection) -> None:
        """Nothing if the claim is still the last one on its study; nobody can take it before the transaction ends.

        Raises
        ------
        TakenOverError
            If another beginning has a higher number.
        """
        row = self._row(claim.study_instance_uid, within)
        if row is None or not _is_last(claim, row):
            raise TakenOverError("nobody has it" if row is None else f"{row.worker_id} has it, as number {row.number}")

    def is_anothers(self, study_instance_uid: str, run_id: str, *, within: Connection) -> bool:
        """Whether another worker was the last to begin this run."""
        row = self._row(study_instance_uid, within)
        return row is not None and row.run_id == run_id and row.worker_id != self._worker_id

    def deaths(self, study_instance_uid: str, run_id: str, *, within: Connection) -> int:
        """How many workers were seen to end over this run; 0 where another run was begun last."""
        row = self._row(study_instance_uid, within)
        return row.deaths if row is not None and row.run_id == run_id else 0

    def give_back(self, claim: Claim, *, within: Connection) -> None:
        """Say that a run was left undone because its worker was told to stop: the study is not to blame."""
        mine = _of(claim.study_instance_uid) & (claim_rows.c.number == claim.number)
        within.execute(update(claim_rows).where(mine).values(beginnings=claim_rows.c.beginnings - 1))

    def died(self, study_instance_uid: str, *, lived_s: float, within: Connection) -> bool:
        """Count the end of this worker over a study that it was the last to begin; False if it was not at it.

        Its process lived for `lived_s`. A claim from before that is of a predecessor: one that was stopped or cut off
        in the middle, after which this one did not even come to begin.
        """
        mine = _of(study_instance_uid) & (claim_rows.c.worker_id == self._worker_id)
        its_own = claim_rows.c.claimed_at >= database_time(self._engine) - lived_s
        counted = update(claim_rows).where(mine & its_own).values(deaths=claim_rows.c.deaths + 1)
        return within.execute(counted).rowcount > 0

    def _row(self, study_instance_uid: str, within: Connection) -> Any:
        return within.execute(select(claim_rows).where(_of(study_instance_uid)).with_for_update()).one_or_none()


def _is_last(claim: Claim, row: Any) -> bool:
    # The id as well: after a database from an older backup the same number may be drawn a second time.
    return (row.study_instance_uid, row.number, row.worker_id) == (
        claim.study_instance_uid,
        claim.number,
        claim.worker_id,
    )


def _of(study_instance_uid: str) -> Any:
    return claim_rows.c.study_instance_uid == study_instance_uid
