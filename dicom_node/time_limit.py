"""The longest a study may compute: a worker that hangs is ended, and its successor knows over which study.

The interpreter's own watchdog ends the process: a thread in C, which runs also where a library holds the interpreter
for ever, so that no thread of ours would. It writes where every thread stood into the file of the limit, behind our
line about the study; a file with that trace is how a successor tells this death from any other.

A worker that dies without a trace (no memory left, a crash in a library, kill -9) leaves its file too. From it the
successor counts how often in a row the same study was begun; one that takes every worker with it is not begun for ever.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_WATCHDOG_SAYS: Final = "Timeout ("
"""How the trace begins that `faulthandler` writes."""

MAX_DEATHS: Final = 5
"""Workers that may die over one study in a row. Restarts of a machine are not its fault, but so many are no chance."""


class EndsWorkersError(Exception):
    """Every worker that began this study died over it."""


class TimeLimit:
    """The limit of one worker process. One study at a time.

    Parameters
    ----------
    path
        The file of the limit; one for each worker.
    limit_s
        Seconds that computing one study may take.
    """

    def __init__(self, path: Path, limit_s: float) -> None:
        self._path = path
        self.limit_s = limit_s

    @contextmanager
    def guard(self, run_id: str) -> Iterator[None]:
        """End this process if the block takes longer than the limit; nothing of it is cleaned up then.

        Raises
        ------
        EndsWorkersError
            If `MAX_DEATHS` predecessors in a row died in this block over the same run; asked again, it begins anew.
        """
        known, deaths = self._left()
        begun = deaths + 1 if known == run_id else 1
        if begun > MAX_DEATHS:
            self._path.unlink()
            raise EndsWorkersError(f"{MAX_DEATHS} processes that computed it ended without a word; memory may be short")
        with self._path.open("w", encoding="utf-8") as stream:
            stream.write(f"{run_id}\n" if begun == 1 else f"{run_id} {begun}\n")
            stream.flush()
            os.fsync(stream.fileno())
            faulthandler.dump_traceback_later(self.limit_s, exit=True, file=stream)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
        self._path.unlink(missing_ok=True)

    def stopped_in_order(self) -> None:
        """Say that this process ends because it was told to: a study that it leaves undone is not to blame."""
        self._path.unlink(missing_ok=True)

    def overran(self) -> str | None:
        """The run over which a predecessor was ended, or None; asked again, it is still there until `keep_trace`."""
        first, rest = self._lines()
        return _run_and_count(first)[0] if rest.startswith(_WATCHDOG_SAYS) else None

    def _left(self) -> tuple[str, int]:
        """The run over which a predecessor died without a trace, and how often it had been begun; "" and 0 if none."""
        first, rest = self._lines()
        return ("", 0) if rest else _run_and_count(first)

    def _lines(self) -> tuple[str, str]:
        try:
            first, _, rest = self._path.read_text(encoding="utf-8", errors="replace").partition("\n")
        except FileNotFoundError:
            return "", ""
        return first, rest

    def keep_trace(self) -> Path:
        """Set the trace aside, where the next study does not overwrite it; returns where it lies now."""
        kept = self._path.with_suffix(f"{self._path.suffix}.trace")
        self._path.replace(kept)
        return kept


def _run_and_count(line: str) -> tuple[str, int]:
    run_id, _, count = line.rpartition(" ")
    return (run_id, int(count)) if run_id and count.isdecimal() else (line, 1)
