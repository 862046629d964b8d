"""Which studies a look round comes to: several times a second those that changed lately, seldom all that ever came."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from dicom_node.intake.spool import Spool, StudyActivity
from dicom_node.intake.spool_index import received_since
from dicom_node.ledger import Ledger

LATELY_S: Final = 30.0
LOOK_AT_ALL_S: Final = 5.0
LOOK_AT_ALL_LATEST_S: Final = 60.0
LOOK_AT_ALL_PAUSES: Final = 100
"""An image whose time of receipt is older than `LATELY_S` when its row is there was held up by a disk, or indexed anew
by the sweep; and a count may be stated long after. Such things wait for a look at all studies."""


class Unsettled:
    """Finds the studies that something is to be decided about; `clock` gives POSIX seconds."""

    def __init__(self, spool: Spool, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._spool = spool
        self._ledger = ledger
        self._clock = clock
        self._looked_at_all = (-math.inf, -math.inf)

    def studies(self, now: float) -> list[StudyActivity]:
        """What came lately or is due; all studies that ever came, for what changed about an old one, at the first call.

        And after it so seldom that looking at all of them takes about a hundredth of the time.
        """
        settled = self._ledger.settled(now)
        looked_at_all, again_at = self._looked_at_all
        if looked_at_all <= now < again_at:  # not so after the clock was set back
            lately = received_since(now - LATELY_S).union(self._ledger.due(now))
            return self._spool.studies(but=settled, among=lately)
        found = self._spool.studies(but=settled)
        pause_s = LOOK_AT_ALL_PAUSES * (self._clock() - now)
        self._looked_at_all = now, now + min(max(pause_s, LOOK_AT_ALL_S), LOOK_AT_ALL_LATEST_S)
        return found
