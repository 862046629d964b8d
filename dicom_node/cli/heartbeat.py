"""The worker's sign of life: a small file in the state folder that the receiving process reads."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from inference.findings import ModelIdentity

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


@dataclass(frozen=True, kw_only=True)
class WorkerReport:
    """What one worker said of itself last; `steps` is that of `StepDurations.as_json`, `model` its identity."""

    worker_id: str
    age_s: float
    memory_bytes: int
    model: Mapping[str, str]
    steps: Mapping[str, Any]


class Heartbeat(threading.Thread):
    """Says every two seconds, whatever step is running, that worker `worker_id` lives; ends with the process.

    `about` gives what stands in `WorkerReport` beyond that: `model` and `steps`.
    """

    def __init__(
        self,
        folder: Path,
        worker_id: str,
        *,
        dead_deliveries: Callable[[], Sequence[str]],
        stop: threading.Event,
        about: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        super().__init__(name="Heartbeat", daemon=True)
        self._path = folder / f"{worker_id}{_SUFFIX}"
        self._dead_deliveries = dead_deliveries
        self._stop_asked = stop
        self._about = about

    def run(self) -> None:
        """Write until told to stop. A disk that is full loses a sign, not the worker."""
        temporary = self._path.with_suffix(".part")
        while not self._stop_asked.is_set():
            try:
                temporary.write_text(json.dumps(self._signs()), encoding="utf-8")
                temporary.replace(self._path)
            except OSError:
                with suppress(OSError):
                    self._path.touch()  # needs no space
            self._stop_asked.wait(HEARTBEAT_S)

    def _signs(self) -> dict[str, Any]:
        dead = list(self._dead_deliveries())
        return {"dead_deliveries": dead, "memory_bytes": resident_bytes(), **self._about()}


def worker_reports(folder: Path) -> list[WorkerReport]:
    """Every worker's last report, by its id; a worker that could not write one (full disk) counts as empty."""
    reports = []
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        text = path.read_text(encoding="utf-8")
        said = json.loads(text) if text else {}
        reports.append(
            WorkerReport(
                worker_id=path.stem,
                age_s=_age_s(path.stat().st_mtime),
                memory_bytes=said.get("memory_bytes", 0),
                model=said.get("model", {}),
                steps=said.get("steps", {}),
            )
        )
    return reports


def model_words(model: ModelIdentity) -> dict[str, str]:
    """Which model, as the report carries it."""
    return {"name": model.name, "version": model.version, "sha256": model.sha256}


def resident_bytes() -> int:
    """Memory that this process occupies now; 0 where the kernel does not tell (not Linux)."""
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        return 0
    return int(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def worker_signs(folder: Path) -> WorkerSigns:
    """The last signs of all workers on a state folder."""
    paths = list(folder.glob(f"*{_SUFFIX}"))
    last = min((path.stat().st_mtime for path in paths), key=_age_s, default=None)
    said = [path.read_text(encoding="utf-8") for path in paths]
    dead = {name for text in said if text for name in json.loads(text)["dead_deliveries"]}
    return WorkerSigns(age_s=None if last is None else _age_s(last), dead_deliveries=tuple(sorted(dead)))


def _age_s(at: float) -> float:
    """How old a sign of life is; one of the future is as old: nobody who lives has written since the clock was set."""
    return abs(time.time() - at)
