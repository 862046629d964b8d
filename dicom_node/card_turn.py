"""Whose turn it is at a graphics card: processes that share one ask it one after the other.

A card that is asked by all at once computes no faster, and holds the features of all of them at the same time. In turn,
whoever looks whether there is memory left sees what those before took for good, so no card is promised twice.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 5.0
"""A pass takes milliseconds, the first one of a process a second or two; by then the processor would have answered."""

LOOK_EVERY_S: Final = 0.002


class CardTurn:
    """The turn at one card, as a lock on a file; the kernel gives it back however its holder ends.

    Parameters
    ----------
    path
        The same for all processes at one card, and another for each card.
    patience_s
        How long to wait: a holder that is stopped would keep all others waiting.
    """

    def __init__(self, path: Path, *, patience_s: float = PATIENCE_S) -> None:
        self._path = path
        self._patience_s = patience_s

    @contextmanager
    def __call__(self) -> Iterator[bool]:
        """Inside, the card is this process's own if True; if False, somebody else holds it for too long."""
        deadline = time.monotonic() + self._patience_s
        with self._path.open("a") as stream:
            while not (mine := _taken(stream.fileno())) and time.monotonic() < deadline:
                time.sleep(LOOK_EVERY_S)
            yield mine


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
