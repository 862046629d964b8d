"""What came in since the start, counted by outcome. Outcomes are our own codes: no sender can add one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping


class IntakeTally:
    """Counts of images by outcome and of rejected associations by code; any thread may add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._images: Counter[str] = Counter()
        self._rejections: Counter[str] = Counter()

    def add_image(self, outcome: str) -> None:
        """One C-STORE was answered; `outcome` is "new", "duplicate" and the like, or the code of the refusal."""
        with self._lock:
            self._images[outcome] += 1

    def add_rejection(self, code: str) -> None:
        """One association was rejected; `code` is result/source/reason of PS3.8 table 9-21, such as "1/1/3"."""
        with self._lock:
            self._rejections[code] += 1

    def images(self) -> Mapping[str, int]:
        """Outcome -> how many C-STORE requests ended so."""
        with self._lock:
            return dict(self._images)

    def rejections(self) -> Mapping[str, int]:
        """Code -> how many associations were rejected so."""
        with self._lock:
            return dict(self._rejections)
