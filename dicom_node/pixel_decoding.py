"""Compressed pixels to arrays, in a child process that a forged stream may kill without harm.

The child (`decoding_child`) has neither files nor network nor the rest of the machine's memory; a stream that makes it
die, hang or grow is a stream that cannot be decoded.
"""

from __future__ import annotations

import json
import math
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
        except AnswerError as nonsense:
            raise _ChildEndedError(f"the decoder's process {nonsense}") from None
        except (OSError, EOFError):
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
        return read_answer(stdout, most_bytes=self._limits.memory_bytes)

    def end(self) -> None:
        """No child outlives its parent's interest in it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                _pipe(pipe).close()
            except OSError:  # what was not yet written to a dead child
                continue


class AnswerError(Exception):
    """A child said what no child says; `str` goes on after "the decoder's process"."""


def read_answer(stream: IO[bytes], *, most_bytes: int) -> NDArray[Any] | str:
    """The pixels that a child answers with, or the name of its decoder's error.

    A forged stream may have taken the child over. So its answer is read as a stranger's: of bounded size, of numbers,
    and of the shape that it says.

    Raises
    ------
    EOFError
        If the child ended before its answer did.
    AnswerError
        If it is no answer.
    """
    line = stream.readline(MOST_HEAD_BYTES)
    if not line.endswith(b"\n"):
        raise EOFError if len(line) < MOST_HEAD_BYTES else AnswerError("announced nothing in its first line")
    try:
        head = json.loads(line)
    except ValueError:  # JSONDecodeError and UnicodeDecodeError are some
        raise AnswerError("announced what is no JSON") from None
    except RecursionError:
        raise AnswerError("announced what is nested too deep") from None
    return _error_of(head) or _pixels_of(head, stream, most_bytes)


def _error_of(head: object) -> str:
    """The name of the decoder's error, or an empty string where there was none."""
    name = head.get("error") if isinstance(head, dict) else None
    return name[:MOST_NAME] if isinstance(name, str) else ""


def _pixels_of(head: object, stream: IO[bytes], most_bytes: int) -> NDArray[Any]:
    match head:
        case {"dtype": str(name), "shape": [*shape], "bytes": int(count)} if name in PIXEL_TYPES:
            dtype = np.dtype(name)
        case _:
            raise AnswerError("announced no pixels")
    if not all(type(one) is int and 0 < one <= most_bytes for one in shape) or len(shape) > MOST_AXES:
        raise AnswerError("announced a shape that is none")
    if count != math.prod(shape) * dtype.itemsize or count > most_bytes:
        raise AnswerError(f"announced {count} bytes for {shape} of {name}, at most {most_bytes} are taken")
    content = stream.read(count)
    if len(content) != count:
        raise EOFError
    return np.frombuffer(content, dtype=dtype).reshape(shape)


PIXEL_TYPES: Final = frozenset(f"{order}{kind}{size}" for order in "<>|" for kind in "iu" for size in (1, 2, 4))
"""What pydicom's decoders make of stored values, as numpy writes it."""

MOST_HEAD_BYTES: Final = 4096
MOST_NAME: Final = 100
MOST_AXES: Final = 4


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "the child was started with pipes"
    return pipe
