"""Threads that serve one destination each until they are told to stop; their database may go away for a while."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from sqlalchemy.exc import DBAPIError

from dicom_node.database import DATABASE_AWAY
from dicom_node.delivery.outcome import Destination

LOGGER = logging.getLogger(__name__)

DATABASE_PAUSE_S: Final = 5.0
"""How long to leave the database alone when it does not answer."""


class Lane(threading.Thread, ABC):
    """The thread of one destination; `work` is what it does."""

    def __init__(self, purpose: str, destination: Destination) -> None:
        super().__init__(name=f"{purpose}-{destination.name}", daemon=True)
        self.destination = destination
        self._purpose = purpose
        self._awake = threading.Event()
        self._stopping = threading.Event()
        self._left_in_order = False

    @property
    def broken(self) -> bool:
        """It ran and ended without having been asked to."""
        return self.ident is not None and not self.is_alive() and not self._left_in_order

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stopping.is_set()

    def wake(self) -> None:
        """Look for work now."""
        self._awake.set()

    def ask_to_stop(self) -> None:
        """End after what is being done."""
        self._stopping.set()
        self._awake.set()

    def run(self) -> None:
        """Work, pause, and so on."""
        while not self.stopping:
            self._awake.clear()
            try:
                pause_s = self.work()
            except DATABASE_AWAY as error:  # nothing is lost by waiting
                reason = error.orig if isinstance(error, DBAPIError) else error
                LOGGER.warning("event=%s_paused destination=%s reason=%s", self._purpose, self.destination.name, reason)
                pause_s = DATABASE_PAUSE_S
            self._awake.wait(pause_s)
        self._left_in_order = True

    @abstractmethod
    def work(self) -> float:
        """Do what is due; seconds until there may be something to do, unless somebody wakes us."""


class Lanes:
    """The threads of all destinations, none of which delays another."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes

    def start(self) -> None:
        """Start one thread for each destination; what was left waiting by the last run is done first."""
        for lane in self._lanes:
            lane.start()

    def wake(self) -> None:
        """Look for work now. Returns at once."""
        for lane in self._lanes:
            lane.wake()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """End what is being done and begin nothing else; True when all threads ended within `timeout_s`."""
        for lane in self._lanes:
            lane.ask_to_stop()
        deadline = time.monotonic() + timeout_s
        for lane in self._lanes:
            lane.join(max(0.0, deadline - time.monotonic()))
        return not any(lane.is_alive() for lane in self._lanes)

    def dead(self) -> tuple[str, ...]:
        """Names of destinations whose thread ended by a fault of ours: nothing is done there until a restart."""
        return tuple(lane.destination.name for lane in self._lanes if lane.broken)
