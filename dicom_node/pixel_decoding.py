"""Compressed pixels to arrays, in a child process that a forged stream may kill without harm.

The child (`decoding_child`) has neither files nor network nor the rest of the machine's memory; a stream that makes it
die, hang or grow is a stream that cannot be decoded.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

DECODERS: Final = {
    "1.2.840.10008.1.2.5": "pydicom",  # RLE
    "1.2.840.10008.1.2.4.57": "pylibjpeg",  # JPEG lossless
    "1.2.840.10008.1.2.4.70": "pylibjpeg",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "pylibjpeg",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000 lossless
}
"""The one decoder of each lossless compression. Of 1500 forged streams per form these refuse or decode every one;
GDCM 3.0.24 ends its process on forged JPEG, JPEG-LS and JPEG 2000, and pylibjpeg-rle panics on forged RLE."""


@dataclass(frozen=True, kw_only=True)
class DecoderLimits:
    """What one child may take. An MR volume of 2,000 frames of 512 x 512 in one instance is 1 GiB of 16-bit pixels."""

    memory_bytes: int = 4 * 1024**3
    seconds: float = 60.0
    """For one instance; also the processor time of a child, which decodes many, is bounded by a hundred times this."""


class UndecodableError(Exception):
    """The stream cannot be decoded; the message says how that showed."""


class Decoders:
    """Decoding children, started when the first compressed instance comes, ended with the context.

    Safe to call from several threads: each call has a child of its own as long as it lasts.
    """

    def __init__(self, limits: DecoderLimits | None = None) -> None:
        self._limits = limits or DecoderLimits()
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every child that is not at work."""
        while not self._idle.empty():
            self._idle.get().end()

    def decode(self, data: bytes, transfer_syntax_uid: str, layout: Mapping[str, Any]) -> NDArray[Any]:
        """The stored values of one instance.

        Parameters
        ----------
        data
            The value of Pixel Data (7FE0,0010), encapsulated.
        transfer_syntax_uid
            One of `DECODERS`.
        layout
            The image pixel module by keyword; see `decoding_child.LAYOUT`.

        Raises
        ------
        UndecodableError
            The decoder refused the stream, died of it, or did not finish in time.
        """
        try:
            child = self._idle.get_nowait()
        except queue.Empty:
            child = _Child(self._limits)
        request = {"syntax": transfer_syntax_uid, "plugin": DECODERS[transfer_syntax_uid], "bytes": len(data), **layout}
        try:
            pixels = child.ask(request, data)
        except _ChildEndedError as ended:
            child.end()
            raise UndecodableError(str(ended)) from None
        except BaseException:
            child.end()
            raise
        self._idle.put(child)
        if isinstance(pixels, str):
            raise UndecodableError(f"{pixels} while decoding")
        return pixels


class _ChildEndedError(Exception):
    """The child is gone; why, in words."""


class _Child:
    """One decoding process."""

    def __init__(self, limits: DecoderLimits) -> None:
        self._limits = limits
        bounds = (str(limits.memory_bytes), str(int(limits.seconds * 100)))
        self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell, no argument from outside
            [sys.executable, "-m", "dicom_node.decoding_child", *bounds],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        )
        self._ready = False

    def ask(self, request: Mapping[str, Any], data: bytes) -> NDArray[Any] | str:
        """The decoded pixels, or the name of the decoder's error."""
        overdue = threading.Event()

        def give_up() -> None:
            overdue.set()
            self._process.kill()

        alarm = threading.Timer(self._limits.seconds, give_up)
        alarm.start()
        try:
            return self._talk(request, data)
        except (OSError, ValueError, EOFError):
            status = self._process.wait()
            if overdue.is_set():
                raise _ChildEndedError(f"decoding did not end within {self._limits.seconds:g} s") from None
            raise _ChildEndedError(f"the decoder's process ended with status {status}") from None
        finally:
            alarm.cancel()

    def _talk(self, request: Mapping[str, Any], data: bytes) -> NDArray[Any] | str:
        stdin, stdout = _pipe(self._process.stdin), _pipe(self._process.stdout)
        if not self._ready:
            if stdout.readline() != b"ready\n":
                raise EOFError
            self._ready = True
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.write(data)
        stdin.flush()
        head = json.loads(stdout.readline())
        content = stdout.read(head["bytes"])
        if len(content) != head["bytes"]:
            raise EOFError
        if "error" in head:
            return str(head["error"])
        return np.frombuffer(content, dtype=np.dtype(head["dtype"])).reshape(head["shape"])

    def end(self) -> None:
        """No child outlives its parent's interest in it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                _pipe(pipe).close()
            except OSError:  # what was not yet written to a dead child
                continue


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "the child was started with pipes"
    return pipe
