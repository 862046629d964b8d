"""Which workers are on duty, and which of them have fallen silent: the roster of all workers on one state database.

A worker adds one to its count every `BEAT_S`. Silence is judged by counting, never by comparing clocks: whoever saw the
count of another stand still at `MISSED_BEATS` looks of its own in a row takes it for gone. So neither a machine whose
clock is wrong, nor a database that was away, nor a judge that was itself stopped for an hour makes a living worker
look dead. The times in the rows are the database's own, for people to read.

Silence is no proof: a worker that was stopped may go on. What keeps it from publishing then is its claim (`claims`).
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, Connection, Engine, Float, Integer, String, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from dicom_node.database import DATABASE_AWAY, database_time, metadata, writing
from dicom_node.errors import ConfigError

log = logging.getLogger(__name__)

BEAT_S: Final = 2.0
MISSED_BEATS: Final = 10
"""Twenty seconds of silence. A step that holds the interpreter, or a full disk, may keep a thread quiet for seconds; a
study of a worker that is gone is to be under way again within a minute."""

FORGET_AFTER_S: Final = 7 * 86400.0
"""A worker that is gone for so long is no longer shown, once a living one has taken its work over."""

worker_rows = Table(
    "workers",
    metadata,
    Column("worker_id", String(64), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("version", String(32), nullable=False),
    Column("incarnation", String(32), nullable=False),
    Column("beats", Integer, nullable=False),
    Column("began_at", Float, nullable=False),
    Column("beat_at", Float, nullable=False),
    Column("left_at", Float),
)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One worker. Times are POSIX seconds by the database's clock; `left_at` is when it stopped in order, or None.

    `version` is that of the steps which it knows (`workflow.APPLICATION_VERSION`), `incarnation` is drawn anew at every
    start. `silent_s` is how long ago its last sign of life was.
    """

    worker_id: str
    host: str
    version: str
    incarnation: str
    beats: int
    began_at: float
    beat_at: float
    left_at: float | None
    silent_s: float

    @property
    def on_duty(self) -> bool:
        """Whether it works as far as the row says; a judgement by clock, for people only."""
        return self.left_at is None and self.silent_s < BEAT_S * MISSED_BEATS


class Roster:
    """All workers on one state database; every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def workers(self) -> list[Worker]:
        """Every worker that is not forgotten, by its id."""
        now = database_time(self._engine)
        query = select(*worker_rows.c, (now - worker_rows.c.beat_at).label("silent_s")).order_by(
            worker_rows.c.worker_id
        )
        with self._engine.connect() as connection:
            return [Worker(**row) for row in connection.execute(query).mappings()]

    def sign_on(self, worker_id: str, host: str, version: str) -> str:
        """Enter a worker, in place of its predecessor of that id; returns its incarnation."""
        incarnation = secrets.token_hex(16)
        now = database_time(self._engine)
        values = {
            "host": host,
            "version": version,
            "incarnation": incarnation,
            "beats": 0,
            "began_at": now,
            "beat_at": now,
        }
        with writing(self._engine) as connection:
            known = update(worker_rows).where(worker_rows.c.worker_id == worker_id).values(**values, left_at=None)
            if not connection.execute(known).rowcount:
                self._enter(connection, worker_id, values)
        return incarnation

    def forget(self, worker_ids: Collection[str]) -> None:
        """Take out those of these workers that have not been seen for a week; what they were at is somebody's by now.

        Nobody else may be: whoever has no row is taken over from by nobody, and ends at its next sign of life.
        """
        long_ago = worker_rows.c.beat_at < database_time(self._engine) - FORGET_AFTER_S
        with writing(self._engine) as connection:
            connection.execute(delete(worker_rows).where(worker_rows.c.worker_id.in_(list(worker_ids)), long_ago))

    def beat(self, worker_id: str, incarnation: str) -> bool:
        """Give a sign of life; False if another process has entered itself under this id."""
        return self._tell(worker_id, incarnation, beats=worker_rows.c.beats + 1)

    def sign_off(self, worker_id: str, incarnation: str) -> None:
        """Say that this worker stops in order: nobody needs to wait for its silence."""
        self._tell(worker_id, incarnation, left_at=database_time(self._engine))

    def _tell(self, worker_id: str, incarnation: str, **values: object) -> bool:
        mine = (worker_rows.c.worker_id == worker_id) & (worker_rows.c.incarnation == incarnation)
        told = update(worker_rows).where(mine).values(beat_at=database_time(self._engine), **values)
        with writing(self._engine) as connection:
            return connection.execute(told).rowcount > 0

    def _enter(self, connection: Connection, worker_id: str, values: Mapping[str, object]) -> None:
        try:
            connection.execute(insert(worker_rows).values(worker_id=worker_id, **values))
        except IntegrityError:  # PostgreSQL: two processes of one id start at this moment
            raise _taken(worker_id, "another machine") from None


def wait_for_place(
    roster: Roster, worker_id: str, host: str, *, beat_s: float = BEAT_S, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Return once no other machine works under this id; at once if none has, or if this machine was the last to.

    On one machine a lock in the state folder has settled it before. A container that starts again has a new name: then
    this waits until its predecessor has been silent for as long as anybody would wait.

    Raises
    ------
    ConfigError
        If the other one lives: two workers of one id would run the same step twice.
    """
    seen = None
    for _ in range(MISSED_BEATS + 1):
        now = next((one for one in roster.workers() if one.worker_id == worker_id), None)
        if now is None or now.left_at is not None or now.host == host:
            return
        if seen is not None and (now.incarnation, now.beats) != (seen.incarnation, seen.beats):
            raise _taken(worker_id, now.host)
        seen = now
        sleep(beat_s)


def _taken(worker_id: str, host: str) -> ConfigError:
    return ConfigError(f"node.worker_id: a worker {worker_id!r} is on duty on {host}; give this one another id")


class Watch:
    """One worker's view of the others: whose count stands still, look after look."""

    def __init__(self, worker_id: str) -> None:
        self._worker_id = worker_id
        self._seen: dict[str, tuple[str, int]] = {}
        self._still: dict[str, int] = {}

    def look(self, workers: Sequence[Worker]) -> list[str]:
        """Ids of the others whose work may be taken over: silent for too long, or gone in order."""
        gone = []
        for one in workers:
            if one.worker_id == self._worker_id:
                continue
            beat = (one.incarnation, one.beats)
            stands = self._seen.get(one.worker_id) == beat
            self._still[one.worker_id] = self._still.get(one.worker_id, 0) + 1 if stands else 0
            self._seen[one.worker_id] = beat
            if one.left_at is not None or self._still[one.worker_id] >= MISSED_BEATS:
                gone.append(one.worker_id)
        return gone


class OnDuty(threading.Thread):
    """Gives a worker's signs of life, watches the others, and has the work of those who are gone taken over.

    Parameters
    ----------
    take_over
        Makes what the workers of these ids held ready for whoever is free; asked again, it changes nothing more. Told
        at every look, also that nobody is gone: who comes back and goes a second time is new to it then.
    on_place_lost
        Called once if another process entered itself under this worker's id: this one has to end.
    """

    def __init__(
        self,
        roster: Roster,
        worker_id: str,
        host: str,
        version: str,
        *,
        take_over: Callable[[Sequence[str]], None],
        on_place_lost: Callable[[], None],
        beat_s: float = BEAT_S,
    ) -> None:
        super().__init__(name="OnDuty", daemon=True)
        self._roster = roster
        self._worker_id = worker_id
        self._take_over = take_over
        self._on_place_lost = on_place_lost
        self._beat_s = beat_s
        self._watch = Watch(worker_id)
        self._told_silent: set[str] = set()
        self._ending = threading.Event()
        self._incarnation = roster.sign_on(worker_id, host, version)

    def run(self) -> None:
        """Beat and look until the end; a database that is away is waited for."""
        while not self._ending.wait(self._beat_s):
            try:
                if not self._roster.beat(self._worker_id, self._incarnation):
                    log.error("event=worker_place_taken worker=%s hint=another process has its id", self._worker_id)
                    self._on_place_lost()
                    return
                self._look()
            except DATABASE_AWAY as error:
                log.warning("event=beat_missed reason=%s", type(error).__name__)

    def leave(self) -> None:
        """End: the others need not wait for silence."""
        self._ending.set()
        if self.is_alive():
            self.join()
        try:
            self._roster.sign_off(self._worker_id, self._incarnation)
        except DATABASE_AWAY as error:  # they will find out by our silence
            log.warning("event=sign_off_missed reason=%s", type(error).__name__)

    def _look(self) -> None:
        workers = {one.worker_id: one for one in self._roster.workers()}
        gone = self._watch.look(list(workers.values()))
        silent = {one for one in gone if workers[one].left_at is None}
        for one in sorted(silent - self._told_silent):
            log.warning("event=worker_silent worker=%s host=%s", one, workers[one].host)
        self._told_silent = silent
        self._take_over(gone)
        if any(workers[one].silent_s > FORGET_AFTER_S for one in gone):
            self._roster.forget(gone)
