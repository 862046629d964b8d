"""Where a study can stand and what can happen to it: one table of legal moves; every other move raises."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class StudyState(StrEnum):
    """Where a study stands."""

    WAITING = "waiting"
    QUEUED = "queued"
    COMPUTING = "computing"
    COMPUTED = "computed"
    REFUSED = "refused"
    NOT_OURS = "not_ours"
    FAILED = "failed"
    CANCELED = "canceled"


class StudyEvent(StrEnum):
    """What can happen to a study."""

    ARRIVED = "arrived"
    COMPLETED = "completed"
    STARTED = "started"
    COMPUTED = "computed"
    REFUSED = "refused"
    NOT_OURS = "not_ours"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    FAULTED = "faulted"
    OVERRAN = "overran"
    WORKER_DIED = "worker_died"
    TAKEN_OVER = "taken_over"
    ERASED = "erased"
    NOT_DRAWN = "not_drawn"
    NOT_TOLD = "not_told"
    # what a person asked for
    RETRIED = "retried"
    REPLAYED = "replayed"
    FORCED = "forced"
    CANCELED = "canceled"
    PUT_FIRST = "put_first"
    RESENT = "resent"
    DECLINED = "declined"


_ENDED: Final = (StudyState.COMPUTED, StudyState.REFUSED, StudyState.NOT_OURS, StudyState.CANCELED)
_STOPPABLE: Final = (StudyState.WAITING, StudyState.QUEUED, StudyState.COMPUTING)

UNDER_WAY: Final = (StudyState.QUEUED, StudyState.COMPUTING)
"""In line, or being computed."""

REOPENING: Final = (
    StudyEvent.RETRIED,
    StudyEvent.REPLAYED,
    StudyEvent.FORCED,
    StudyEvent.CANCELED,
    StudyEvent.PUT_FIRST,
)
"""Each of them ends what the workflow engine may still hold of a study: work that is queued afterwards is a new run."""

OUTCOMES: Final = (
    StudyEvent.COMPUTED,
    StudyEvent.REFUSED,
    StudyEvent.NOT_OURS,
    StudyEvent.FAILED,
    StudyEvent.CANCELED,
)
"""With each of them a study has left the line; what a person wished for it there is over."""

TRANSITIONS: Final[Mapping[tuple[StudyState, StudyEvent], StudyState]] = {
    # an image that comes late re-opens the study, whatever became of it
    **{(state, StudyEvent.ARRIVED): StudyState.WAITING for state in StudyState},
    # results that are there may be sent again, and a request that does not fit may be declined, at any time
    **{(state, StudyEvent.RESENT): state for state in StudyState},
    **{(state, StudyEvent.DECLINED): state for state in StudyState},
    # its images are erased at the end of their time; what was decided stands
    **{(state, StudyEvent.ERASED): state for state in _ENDED},
    # its results are out and stand, but their page and pictures cannot be drawn; it may have been opened again by then
    **{(state, StudyEvent.NOT_DRAWN): state for state in StudyState},
    # the node failed on it, and the report that says so cannot be made either
    **{(state, StudyEvent.NOT_TOLD): state for state in StudyState},
    # waiting: complete -> queue; or it will never be complete
    (StudyState.WAITING, StudyEvent.COMPLETED): StudyState.QUEUED,
    (StudyState.WAITING, StudyEvent.NOT_OURS): StudyState.NOT_OURS,
    # ... or exactly these inputs were worked on before, and that outcome is recalled
    (StudyState.WAITING, StudyEvent.COMPUTED): StudyState.COMPUTED,
    (StudyState.WAITING, StudyEvent.REFUSED): StudyState.REFUSED,
    # a worker that was killed starts again from either side of the mark
    (StudyState.QUEUED, StudyEvent.STARTED): StudyState.COMPUTING,
    (StudyState.COMPUTING, StudyEvent.STARTED): StudyState.COMPUTING,
    (StudyState.COMPUTING, StudyEvent.COMPUTED): StudyState.COMPUTED,
    (StudyState.COMPUTING, StudyEvent.REFUSED): StudyState.REFUSED,
    (StudyState.COMPUTING, StudyEvent.FAILED): StudyState.FAILED,
    # the node came upon a fault of its own: a fresh worker tries once more
    (StudyState.QUEUED, StudyEvent.FAULTED): StudyState.QUEUED,
    (StudyState.COMPUTING, StudyEvent.FAULTED): StudyState.QUEUED,
    (StudyState.WAITING, StudyEvent.FAULTED): StudyState.WAITING,
    # a worker was ended because it took too long; its successor tries once more
    (StudyState.COMPUTING, StudyEvent.OVERRAN): StudyState.COMPUTING,
    # a worker ended over it, or has fallen silent and another one goes on
    (StudyState.COMPUTING, StudyEvent.WORKER_DIED): StudyState.COMPUTING,
    (StudyState.COMPUTING, StudyEvent.TAKEN_OVER): StudyState.COMPUTING,
    # ... or the node's own fault shows before anything is computed
    (StudyState.WAITING, StudyEvent.FAILED): StudyState.FAILED,
    (StudyState.QUEUED, StudyEvent.FAILED): StudyState.FAILED,
    # new images came while the old set was queued or computed: its outcome is dropped, the study waits again
    (StudyState.WAITING, StudyEvent.SUPERSEDED): StudyState.WAITING,
    (StudyState.QUEUED, StudyEvent.SUPERSEDED): StudyState.WAITING,
    (StudyState.COMPUTING, StudyEvent.SUPERSEDED): StudyState.WAITING,
    # a person has a failed study computed again, or an ended one examined again as things are today
    (StudyState.FAILED, StudyEvent.RETRIED): StudyState.WAITING,
    **{(state, StudyEvent.REPLAYED): StudyState.WAITING for state in _ENDED},
    # ... or says that no more images will come: the study is examined as complete at once
    (StudyState.WAITING, StudyEvent.FORCED): StudyState.WAITING,
    # ... or has it computed before all that wait
    (StudyState.QUEUED, StudyEvent.PUT_FIRST): StudyState.QUEUED,
    # ... or stops it; only new images or a replay open it again
    **{(state, StudyEvent.CANCELED): StudyState.CANCELED for state in _STOPPABLE},
}


class IllegalMoveError(Exception):
    """An event that cannot happen in the state the study is in."""


class OvertakenError(Exception):
    """The study has moved on since it was read: another worker was faster, and what was decided is out of date."""


def next_state(state: StudyState, event: StudyEvent) -> StudyState:
    """The state after `event`.

    Raises
    ------
    IllegalMoveError
        If the pair is not in `TRANSITIONS`.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalMoveError(f"a study that is {state} cannot become {event}") from None
