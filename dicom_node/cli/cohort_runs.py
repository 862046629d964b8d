"""Many sources, several processes at a time; a study that takes its process down takes nothing else with it."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from dicom_node.cli.wiring import case_options, load_settings, make_segmenter
from dicom_node.cohort.outcome import SourceOutcome, SourceState
from dicom_node.cohort.sources import Source
from dicom_node.errors import ConfigError, UnusableInput

if TYPE_CHECKING:
    from dicom_node.case import CaseOptions
    from dicom_node.cohort.work import Bench

LOCK: Final = ".process.lock"

OnDone = Callable[[SourceOutcome], None]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What every process is told once. `threads` is what one study may use; None leaves it to the configuration."""

    results: Path
    config: Path | None = None
    nifti: bool = False
    again: bool = False
    threads: int | None = None


def run_cohort(sources: Sequence[Source], order: Order, *, jobs: int, on_done: OnDone) -> list[SourceOutcome]:
    """What became of every source, in their order.

    Raises
    ------
    ConfigError
        If the configuration or the model cannot be used: then no study can be computed.
    """
    outcomes: dict[int, SourceOutcome] = {}

    def done(number: int, outcome: SourceOutcome) -> None:
        outcomes[number] = outcome
        on_done(outcome)

    waiting = deque(range(len(sources)))
    suspects: deque[int] = deque()
    with _remembered_interrupt() as interrupted:
        while waiting or suspects:
            # Whoever was at work when a process died is worked on once more, alone: then it is known who did it.
            queue, at_a_time = (waiting, jobs) if waiting else (deque([suspects.popleft()]), 1)
            lost = _work_through(queue, sources, order, at_a_time, done)
            if interrupted.is_set():  # Ctrl-C reaches the processes, too: that they died is nobody's fault
                raise KeyboardInterrupt
            if len(lost) == 1:
                done(lost[0], _died(sources[lost[0]]))
            else:
                suspects.extend(lost)
    return [outcomes[number] for number in sorted(outcomes)]


@contextmanager
def _remembered_interrupt() -> Iterator[threading.Event]:
    """Set once Ctrl-C was pressed. The exception itself can be lost in a library's callback, where none may fly."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only there Python lets one look at signals
        yield interrupted
        return

    def remember(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _work_through(
    queue: deque[int], sources: Sequence[Source], order: Order, jobs: int, done: Callable[[int, SourceOutcome], None]
) -> list[int]:
    """Empty `queue`, `jobs` at a time; returns early with those at work if a process died."""
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of torch's threads
    running: dict[Future[SourceOutcome], int] = {}
    with ProcessPoolExecutor(min(jobs, len(queue)), mp_context=context, initializer=_start_process) as pool:
        while queue or running:
            while queue and len(running) < jobs:
                number = queue.popleft()
                running[pool.submit(_work, sources[number], order)] = number
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            lost = [running.pop(future) for future in finished if isinstance(future.exception(), BrokenProcessPool)]
            for future in finished:
                if future in running:
                    number = running.pop(future)
                    done(number, _outcome(future, sources[number]))
            if lost:
                return sorted([*lost, *running.values()])
    return []


def _outcome(future: Future[SourceOutcome], source: Source) -> SourceOutcome:
    """What the process answered; an exception is a fault of ours that concerns this study alone."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, ConfigError):
        raise error
    # The message of an exception may quote the patient's header, so only its type is told, except for the disk's.
    said = f": {error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else ""
    return _failed(source, f"{type(error).__name__}{said}; please report it with the output of the same study alone")


def _died(source: Source) -> SourceOutcome:
    return _failed(source, "the process that computed it was killed; is there enough memory for so many --jobs?")


def _failed(source: Source, problem: str) -> SourceOutcome:
    return SourceOutcome(name=source.name, folder=str(source.folder), state=SourceState.FAILED, problem=problem)


@contextmanager
def only_one(results: Path) -> Iterator[None]:
    """Hold `results` while the block runs; the kernel lets go of it however the process ends.

    Raises
    ------
    UnusableInput
        If another process works there.
    """
    with (results / LOCK).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnusableInput(
                f"{results}: another process writes its results there; wait for it, or choose another --out"
            ) from None
        yield


# ------------------------------------------------------------------------------------- in a process of its own


def _start_process() -> None:
    """End with Ctrl-C without a word, and with the parent if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _work(source: Source, order: Order) -> SourceOutcome:
    from dicom_node.cohort.work import work_source

    bench = make_bench(order)
    now = datetime.now().astimezone()
    return work_source(source, order.results / source.name, bench, encoded_at=now)


@cache
def make_bench(order: Order) -> Bench:
    """Segmenter and options as configured; made once in each process.

    Raises
    ------
    ConfigError
        If the configuration, a site rule or the model cannot be used.
    """
    from dicom_node.cli.logs import silence_quotations
    from dicom_node.cohort.work import Bench

    silence_quotations()
    loaded = load_settings(order.config)
    options = case_options(loaded, from_file=order.config is not None)
    if order.threads is not None:
        options = _with_threads(options, order.threads)
    return Bench(segmenter=make_segmenter(loaded), options=options, nifti=order.nifti, again=order.again)


def _with_threads(options: CaseOptions, threads: int) -> CaseOptions:
    """The same results with so many threads."""
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    return replace(options, threads=threads)
