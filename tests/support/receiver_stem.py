"""Receivers forked from a process that has their modules loaded: a tenth of a second each, where a start takes one.

A thousand kills need two thousand receivers. What is forked is a receiver of its own: its threads, sockets, files and
database are made after the fork. Time a start with `sending.receiver`, which starts a whole process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from receiver_process import main
from sending import ReceiverEnded

ATTACH_S = 60.0


class Stem:
    """The process that is forked from. One receiver at a time; it ends with the process that made it."""

    def __init__(self) -> None:
        folders = os.pathsep.join(one for one in sys.path if one)
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": folders},
        )

    def fork(self, folder: Path) -> int:
        """A process that waits for `go` to receive into `folder`: its id."""
        self._say(str(folder))
        return int(self._hear().removeprefix("forked "))

    def go(self) -> int:
        """Let it begin: its port.

        Raises
        ------
        ReceiverEnded
            If it ended before it listened.
        """
        self._say("go")
        said = self._hear()
        if said.endswith("ended"):  # it may have been killed between a port and its line end
            raise ReceiverEnded("before it listened")
        return int(said)

    def wait_for_its_end(self) -> None:
        """Nothing, once the forked process is gone; it must have been killed."""
        while not self._hear().endswith("ended"):
            pass

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that receivers are forked from is gone")
        return line.strip()


@cache
def the_stem() -> Stem:
    """One for the whole run."""
    return Stem()


@contextmanager
def forked_receiver(folder: Path, *, inject: str = "") -> Iterator[tuple[int, int]]:
    """A receiver on the state in `folder`: its process id and its port.

    `inject` is what strace puts into its system calls (`strace -e inject=`), counted from its first own step on.
    """
    stem = the_stem()
    pid = stem.fork(folder)
    tracer = None
    listens = True  # until we heard of its end
    try:
        tracer = _attach(pid, inject) if inject else None
        listens = False
        port = stem.go()
        listens = True
        yield pid, port
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if listens:
            stem.wait_for_its_end()
        if tracer is not None:
            tracer.wait(ATTACH_S)


def _attach(pid: int, inject: str) -> subprocess.Popen[bytes]:
    """Strace on all threads of a process, once it really is."""
    command = ("strace", "-f", "-qqq", "-o", os.devnull, "-e", f"inject={inject}", "-p", str(pid))
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + ATTACH_S
    while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
        if time.monotonic() > deadline or tracer.poll() is not None:
            raise RuntimeError("strace did not attach")
        time.sleep(0.002)
    return tracer


def _fork_on_request(lines: Sequence[str] | Iterator[str]) -> None:
    """Fork for each line (a folder), say so, and say when it has ended."""
    for line in lines:
        pid = os.fork()
        if pid == 0:
            os.read(0, 3)  # "go": nothing is buffered, for the sender writes it only after it was told the id
            threading.Thread(target=_end_with_the_sender, daemon=True).start()
            main(Path(line.strip()))
        print(f"forked {pid}", flush=True)
        os.waitpid(pid, 0)
        print("ended", flush=True)


def _end_with_the_sender() -> None:
    """Leave no receiver behind when the campaign itself is killed."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    _fork_on_request(iter(sys.stdin.readline, ""))
