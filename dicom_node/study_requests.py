"""What people ask the node to do to a study: rows that dashboard and command line write and the worker carries out.

A row is the whole hand-over between the processes: it stays open until the worker, in one transaction with what it
did about it, writes the answer. Killed before that commit, the worker finds the row open and begins again; killed
after it, there is nothing left to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Column, Connection, Engine, Float, Integer, Select, String, Table, Text, insert, select, update

from dicom_node.database import metadata, writing


class StudyAction(StrEnum):
    """What can be asked for.

    RETRY: compute a failed study again. REPLAY: examine an ended one again, with the rules, model and settings of
    today. FORCE: take a waiting one as complete now. FIRST: compute one that stands in line before all others. CANCEL:
    stop one that is not finished. RESEND: send the results that are there to one destination again, as they are.
    """

    RETRY = "retry"
    REPLAY = "replay"
    FORCE = "force"
    FIRST = "first"
    CANCEL = "cancel"
    RESEND = "resend"


class RequestState(StrEnum):
    """OPEN: the worker has not seen to it yet. DONE: carried out. DECLINED: it no longer fitted; `answer` says why."""

    OPEN = "open"
    DONE = "done"
    DECLINED = "declined"


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """One person's request. Times are POSIX seconds; `destination` is set for RESEND only."""

    request_id: int
    study_instance_uid: str
    action: StudyAction
    destination: str
    actor: str
    asked_at: float
    state: RequestState
    answer: str
    answered_at: float | None


_requests = Table(
    "study_requests",
    metadata,
    Column("request_id", Integer, primary_key=True, autoincrement=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("action", String(16), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("actor", String(256), nullable=False),
    Column("asked_at", Float, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("answer", Text, nullable=False),
    Column("answered_at", Float),
)


def open_requests(study_instance_uid: str) -> Select[int]:
    """A query for the requests about one study that the worker has not seen to yet."""
    of_study = _requests.c.study_instance_uid == study_instance_uid
    return select(_requests.c.request_id).where(of_study, _requests.c.state == RequestState.OPEN)


class StudyRequests:
    """The requests on one state database; every method is one transaction, or part of the one given as `within`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ask(self, study_instance_uid: str, action: StudyAction, *, destination: str, actor: str, at: float) -> bool:
        """Write a request down; False if the same one is open already, which a second click is not to double."""
        same = select(_requests.c.request_id).where(
            _requests.c.study_instance_uid == study_instance_uid,
            _requests.c.action == action,
            _requests.c.destination == destination,
            _requests.c.state == RequestState.OPEN,
        )
        with writing(self._engine) as connection:
            if connection.execute(same).first() is not None:
                return False
            connection.execute(
                insert(_requests).values(
                    study_instance_uid=study_instance_uid,
                    action=action.value,
                    destination=destination,
                    actor=actor,
                    asked_at=at,
                    state=RequestState.OPEN.value,
                    answer="",
                )
            )
        return True

    def open(self) -> list[StudyRequest]:
        """What waits for the worker, in the order of asking."""
        return self._select(_requests.c.state == RequestState.OPEN)

    def of_study(self, study_instance_uid: str) -> list[StudyRequest]:
        """Everything that was ever asked about one study, in the order of asking."""
        return self._select(_requests.c.study_instance_uid == study_instance_uid)

    def answer(
        self, request: StudyRequest, state: RequestState, sentence: str, *, at: float, within: Connection
    ) -> bool:
        """Close a request; False if another worker has closed it meanwhile, so that this one must not act on it."""
        still_open = (_requests.c.request_id == request.request_id, _requests.c.state == RequestState.OPEN)
        closed = within.execute(
            update(_requests).where(*still_open).values(state=state.value, answer=sentence, answered_at=at)
        )
        return closed.rowcount > 0

    def _select(self, condition: object) -> list[StudyRequest]:
        query = select(_requests).where(condition).order_by(_requests.c.request_id)  # type: ignore[arg-type]
        with self._engine.connect() as connection:
            return [
                StudyRequest(**{**row, "action": StudyAction(row["action"]), "state": RequestState(row["state"])})
                for row in connection.execute(query).mappings()
            ]
