"""What the long-running commands share: their options, and how they are told to stop."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final


def add_service_arguments(parser: argparse.ArgumentParser) -> None:
    """--config and --log-level."""
    parser.add_argument(
        "--config", default="config/node.toml", metavar="NODE_TOML", help="configuration (default: %(default)s)"
    )
    parser.add_argument(
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="how much to say on standard error (default: %(default)s)",
    )


LOOK_S: Final = 0.5
"""How long a signal may go unnoticed."""


class StopEvent(threading.Event):
    """The event that ends a service; `told` says that somebody outside asked for it, and not the service itself."""

    told = False

    def __init__(self) -> None:
        super().__init__()
        # A handler runs in the main thread wherever that is, also inside `wait`: with the lock that an event has by
        # itself, which is taken there, it would wait for its own thread, and the service for ever.
        self._cond = threading.Condition(threading.RLock())

    def tell(self) -> None:
        """Set it because somebody outside asked for it."""
        self.told = True
        self.set()

    def wait_until_set(self) -> None:
        """Wait in the main thread.

        In pieces: the kernel may hand a signal to any thread, and then Python calls the handler only when the main
        thread next runs. One that waits without end never does: a node at which ten associations stored did not stop.
        """
        while not self.wait(LOOK_S):
            pass


@contextmanager
def until_told_to_stop(*, stdin_too: bool = False) -> Iterator[StopEvent]:
    """An event that SIGTERM or Ctrl-C sets; with `stdin_too` also the end of standard input.

    A worker started by `serve` holds the reading end of a pipe: when its parent dies, even by kill -9, the pipe ends.
    """
    stop = StopEvent()

    def on_signal(_number: int, _frame: Any) -> None:
        stop.tell()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    if stdin_too:
        threading.Thread(target=_wait_for_end_of_input, args=(stop,), name="ParentWatch", daemon=True).start()
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait_for_end_of_input(stop: StopEvent) -> None:
    # Not sys.stdin: a thread inside its buffer at the interpreter's end is a fatal error.
    while os.read(0, 4096):
        pass
    stop.tell()
