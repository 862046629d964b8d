"""The worker's sign of life: a small file in the state folder that `GET /health` of the receiving process reads."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEARTBEAT_S: Final = 2.0
_SUFFIX: Final = ".alive"


@dataclass(frozen=True, kw_only=True)
class WorkerSigns:
    """What the workers on a state folder last said of themselves.

    `age_s`: seconds since the last sign of life of any of them, or None if there never was one. `dead_deliveries`:
    destinations to which one of them sends nothing any more.
    """

    age_s: float | None
    dead_deliveries: tuple[str, ...]


class Heartbeat(threading.Thread):
    """Says every two seconds, whatever step is running, that worker `worker_id` lives; ends with the process."""

    def __init__(
        self,
        folder: Path,
        worker_id: str,
        *,
        dead_deliveries: Callable[[], Sequence[str]],
        stop: threading.Event,
    ) -> None:
        super().__init__(name="Heartbeat", daemon=True)
        self._path = folder / f"{worker_id}{_SUFFIX}"
        self._dead_deliveries = dead_deliveries
        self._stop_asked = stop

    def run(self) -> None:
        """Write until told to stop. A disk that is full loses a sign, not the worker."""
        temporary = self._path.with_suffix(".part")
        while not self._stop_asked.is_set():
            try:
                temporary.write_text(json.dumps({"dead_deliveries": list(self._dead_deliveries())}), encoding="utf-8")
                temporary.replace(self._path)
            except OSError:
                with suppress(OSError):
                    self._path.touch()  # needs no space
            self._stop_asked.wait(HEARTBEAT_S)


def worker_signs(folder: Path) -> WorkerSigns:
    """The last signs of all workers on a state folder."""
    paths = list(folder.glob(f"*{_SUFFIX}"))
    last = max((path.stat().st_mtime for path in paths), default=None)
    said = [path.read_text(encoding="utf-8") for path in paths]
    dead = {name for text in said if text for name in json.loads(text)["dead_deliveries"]}
    return WorkerSigns(age_s=None if last is None else time.time() - last, dead_deliveries=tuple(sorted(dead)))
