"""Keeps the workflow engine from asking its database, ten times a second, what cannot have changed.

The engine looks into a queue at an interval, and nobody can wake it. So the interval is short, and each look that is
not worth it is spared: as long as nothing was committed since the engine found the queue empty, it is told that there
is nothing to look at. Whether and how a run is taken out of the queue remains the engine's alone.
"""

from __future__ import annotations

import time
from typing import Any, Final

from dicom_node.change_watch import ChangeWatch

LOOK_ANYWAY_S: Final = 5.0
"""The longest time for which the engine is spared a look, and its reading of a queue's settings."""


class QueueWatch:
    """Stands between the engine's queue threads and its system database, from `watch` on.

    Parameters
    ----------
    system_database
        The engine's own, of which three methods are replaced: `get_queue`, `dequeue_scopes`, `start_queued_workflows`.
    """

    def __init__(self, system_database: Any) -> None:
        self._engine = system_database.engine
        self._get_queue = system_database.get_queue
        self._dequeue_scopes = system_database.dequeue_scopes
        self._start = system_database.start_queued_workflows
        self._queues: dict[str, _Queue] = {}

    @classmethod
    def watch(cls, system_database: Any) -> None:
        """Have the looks that are not worth it spared, from now on."""
        made = cls(system_database)
        system_database.get_queue = made.get_queue
        system_database.dequeue_scopes = made.dequeue_scopes
        system_database.start_queued_workflows = made.start_queued_workflows

    def get_queue(self, name: str, **options: Any) -> Any:
        """The settings of a queue, which the engine reads before each look: as it read them lately."""
        queue = self._of(name)
        now = time.monotonic()
        if options or queue.settings is None or now >= queue.settings_until:
            queue.settings, queue.settings_until = self._get_queue(name, **options), now + LOOK_ANYWAY_S
        return queue.settings

    def dequeue_scopes(self, name: str) -> Any:
        """Where in a queue to look: nowhere, while it is as empty as it was."""
        queue = self._of(name)
        if queue.watch.changed() or time.monotonic() >= queue.look_anyway_at:
            queue.found_empty = False
        return [] if queue.found_empty else self._dequeue_scopes(name)

    def start_queued_workflows(self, queue: Any, *arguments: Any, **options: Any) -> Any:
        """Take runs out of a queue. It is not asked while the worker is at one: then the queue is not found empty."""
        taken, limit = self._start(queue, *arguments, **options)
        this = self._of(queue.name)
        this.found_empty = not taken and limit is None
        this.look_anyway_at = time.monotonic() + LOOK_ANYWAY_S
        return taken, limit

    def _of(self, name: str) -> _Queue:
        """What is known of a queue; each has a thread of the engine's to itself."""
        if name not in self._queues:
            self._queues[name] = _Queue(self._engine)
        return self._queues[name]


class _Queue:
    """What is known of one queue."""

    def __init__(self, engine: Any) -> None:
        self.watch = ChangeWatch(engine)
        self.found_empty = False
        self.look_anyway_at = 0.0
        self.settings: Any = None
        self.settings_until = 0.0
