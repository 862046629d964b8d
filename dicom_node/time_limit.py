"""The longest a study may compute: a worker that hangs is ended, and its successor knows over which study.

The interpreter's own watchdog ends the process: a thread in C, which runs also where a library holds the interpreter
for ever, so that no thread of ours would. It writes where every thread stood into the file of the limit, behind our
line about the study; a file with that trace is how a successor tells this death from any other.
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
        """End this process if the block takes longer than the limit; nothing of it is cleaned up then."""
        with self._path.open("w", encoding="utf-8") as stream:
            stream.write(f"{run_id}\n")
            stream.flush()
            os.fsync(stream.fileno())
            faulthandler.dump_traceback_later(self.limit_s, exit=True, file=stream)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
        self._path.unlink(missing_ok=True)

    def overran(self) -> str | None:
        """The run over which a predecessor was ended, or None; asked again, it is still there until `keep_trace`."""
        try:
            first, _, rest = self._path.read_text(encoding="utf-8", errors="replace").partition("\n")
        except FileNotFoundError:
            return None
        return first if rest.startswith(_WATCHDOG_SAYS) else None

    def keep_trace(self) -> Path:
        """Set the trace aside, where the next study does not overwrite it; returns where it lies now."""
        kept = self._path.with_suffix(f"{self._path.suffix}.trace")
        self._path.replace(kept)
        return kept
