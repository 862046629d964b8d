"""How long a test waits for what has to happen: so long that only a fault ends it, never a busy machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

PATIENCE_S: Final = 120.0

STUDY_S: Final = 600.0
"""For what takes seconds of computing where nothing else runs."""

LOOK_EVERY_S: Final = 0.02


def wait_until(
    condition: Callable[[], object],
    *,
    seconds: float = PATIENCE_S,
    found: Callable[[], object] = lambda: "it did not happen in time",
) -> None:
    """Return as soon as `condition` holds.

    Raises
    ------
    AssertionError
        If it does not hold after so many `seconds`, with what `found` tells then.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, found()
        time.sleep(LOOK_EVERY_S)
