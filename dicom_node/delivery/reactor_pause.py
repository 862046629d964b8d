"""A pause of pynetdicom's reactor that really holds, so that it never takes the answer that a request waits for.

pynetdicom 3.0.4 has two readers for one queue of messages: the association's own thread (its reactor), and whoever
sends a request and waits for the response. The sender asks the reactor to pause and believes it as soon as
`_is_paused` is True; but the reactor raises that flag before it looks whether it shall pause, and lowers it after. A
reactor that is interrupted in between reads on: "Received unexpected C-STORE service message", and the sender waits
for an answer that is gone until its time is over. Seen where other processes wanted the processor (pynetdicom issues
435 and 875).
"""

from __future__ import annotations

import threading
import time
from typing import Final

from pynetdicom.association import Association

_LOOK_EVERY_S: Final = 0.0001

_RAISE_EVERY_S: Final = 0.02
"""So long at most does a request wait for a flag that a report lowered while the reactor stood."""


def hold_pauses(association: Association) -> None:
    """Make every pause of this association's reactor, from now on, begin only once the reactor stands still."""
    # pynetdicom offers no other place: the reactor and each of its send methods meet at this event alone.
    association._reactor_checkpoint = _Checkpoint(association)


class _Checkpoint(threading.Event):
    """Where the reactor waits; asking it to pause returns when it is here, or cannot come any more."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self._is_waiting = False
        self.set()

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - of threading.Event; the reactor gives none
        """Wait until the reactor may go on; called by the reactor."""
        while not self.is_set():
            self._is_waiting = True
            # pynetdicom serves a report of storage commitment in a thread of its own and lowers the flag after it,
            # also while the reactor stands; whoever sends next would wait for the flag for ever.
            self._association._is_paused = True
            super().wait(_RAISE_EVERY_S)
            self._is_waiting = False
        return True

    def clear(self) -> None:
        """Ask for a pause; called by whoever sends a request."""
        super().clear()
        while not self._is_waiting and self._comes():
            time.sleep(_LOOK_EVERY_S)

    def _comes(self) -> bool:
        """Whether the reactor will get here: not when it has ended, nor when it is the one that asks."""
        return self._association.is_alive() and self._association is not threading.current_thread()
