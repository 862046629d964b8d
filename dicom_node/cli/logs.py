"""What the node writes to standard error: one event, one line, and nothing of a patient.

Libraries quote attribute values in their warnings and in the messages of their exceptions, so neither is written:
of an exception its type and where it happened, of a warning nothing.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings
from types import TracebackType
from typing import Final

LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

log = logging.getLogger(__name__)


class DiscreetFormatter(logging.Formatter):
    """Writes of an exception its type and the lines of code it passed, never its message."""

    def formatException(self, ei: ExceptionInfo) -> str:  # noqa: N802 - the name is logging's
        """The traceback without what the exceptions say, those that caused it first."""
        lines: list[str] = []
        error = ei[1]
        while error is not None:
            lines[:0] = [*traceback.format_tb(error.__traceback__), f"{type(error).__name__}\n"]
            error = error.__cause__ or error.__context__
        return "".join(lines).rstrip("\n")


def start_logging(level: str) -> None:
    """Log to standard error from `level` on; libraries only speak up about problems, and pydicom not at all."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(DiscreetFormatter(LOG_FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # A line says nothing of its place in the code, thread or process; to find them out for each image takes as long as
    # to write it (Python's logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    for name in ("pynetdicom", "urllib3", "highdicom", "dbos"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The engine writes to the terminal by itself, messages of exceptions included, unless it finds a handler.
    logging.getLogger("dbos").addHandler(logging.NullHandler())
    silence_quotations()
    threading.excepthook = _log_end_of_thread


def silence_quotations() -> None:
    """Keep quiet what pydicom says about values it does not like: it says them."""
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").disabled = True  # a level would not last: pydicom sets its own when it is imported


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        name = ended.thread.name if ended.thread else ""
        log.error("event=thread_ended thread=%s", name, exc_info=ended.exc_value)
