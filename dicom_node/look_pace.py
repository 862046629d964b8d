"""When a worker has to look round again.

A worker that has nothing to do asks a tiny question four times a second, and looks round only when something was
committed, when a study's time has come, or when it has not looked for seconds. How soon a study begins does not depend
on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from sqlalchemy import Engine, case, func, select

from dicom_node.change_watch import ChangeWatch
from dicom_node.ledger_rows import ledger_studies
from dicom_node.study_moves import UNDER_WAY, StudyState

LOOK_ANYWAY_S: Final = 5.0
"""The longest time without a look round: as often as all studies are gone through."""

_AT_WORK: Final = [state.value for state in UNDER_WAY]

_TURN: Final = case(
    (ledger_studies.c.state.in_(_AT_WORK), 0.0), else_=func.coalesce(ledger_studies.c.look_again_at, 0.0)
)
_NEXT_TURN: Final = select(func.min(_TURN)).where(ledger_studies.c.state.in_([StudyState.WAITING.value, *_AT_WORK]))
"""When the first study that waits is to be looked at (POSIX seconds); 0 while one is to be computed, or is."""


class LookPace:
    """The pace of one worker, for the one thread that looks round.

    Parameters
    ----------
    clock, monotonic
        POSIX seconds, and seconds that nobody sets.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._engine = engine
        self._watch = ChangeWatch(engine)
        self._clock = clock
        self._monotonic = monotonic
        self._looked_at = -math.inf
        self._next_turn_at = -math.inf
        self._look_anyway_at = -math.inf

    def is_due(self) -> bool:
        """Whether a look round could find something."""
        changed, now = self._watch.changed(), self._clock()
        clock_set_back = now < self._looked_at
        return changed or clock_set_back or now >= self._next_turn_at or self._monotonic() >= self._look_anyway_at

    def looked(self) -> None:
        """Plan the next look, after one that was begun when `is_due` said so."""
        with self._engine.connect() as connection:
            turn_at = connection.scalar(_NEXT_TURN)
        self._looked_at = self._clock()
        self._look_anyway_at = self._monotonic() + LOOK_ANYWAY_S
        self._next_turn_at = math.inf if turn_at is None else turn_at
