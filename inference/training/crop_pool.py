"""Crops on disk, drawn by other processes while the network already trains on the first ones.

A crop is named by its seed, so a pool can be interrupted, kept, and shared by trainings; half-written files are never
seen, because they are renamed when complete.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from inference.training.crops import CROP_SHAPE, GROUPS, draw_crop

POLL_S: Final = 0.2

SAME_CROP: Final = 0.02
"""Mean difference, in 255ths, of one crop drawn on two machines: rounding turns a few points of a labyrinth's rim."""


class CropPoolError(RuntimeError):
    """Crops could not be drawn or read; the message names the file and what to do."""


class CropPool:
    """Crops `first_seed`, `first_seed` + 1, ... kept in `folder` and, once read, in memory (0.5 MB each)."""

    def __init__(self, folder: Path, *, first_seed: int, count: int) -> None:
        if count < 1:
            raise ValueError(f"a pool needs at least one crop, found count {count}")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.first_seed, self.count = folder, first_seed, count
        self._loaded: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return self.count

    def path(self, index: int) -> Path:
        """Where crop `index` lies, drawn or not."""
        return self.folder / f"ear-{self.first_seed + index:08d}.npy"

    @property
    def drawn(self) -> int:
        """How many crops are on disk."""
        return sum(self.path(index).exists() for index in range(self.count))

    def check(self) -> None:
        """Draw the first crop once more, if it is there, and compare: another version may have left other ears here.

        Raises
        ------
        CropPoolError
            If the crop on disk is not the one that this version draws, or its file is damaged.
        """
        if not self.path(0).exists():
            return
        off = np.abs(self.parts(0).astype(np.float64) - draw_crop(self.first_seed).parts).mean()
        if off > SAME_CROP:
            raise CropPoolError(
                f"{self.path(0)} differs by {off:.2f} of 255 per voxel from the ear that this version draws from seed "
                f"{self.first_seed}; delete {self.folder}, or name another folder for the crops"
            )

    @contextmanager
    def drawn_by(self, workers: int) -> Iterator[None]:
        """Draw what is missing in `workers` processes while the block runs; 0 draws nothing."""
        missing = [index for index in range(self.count) if not self.path(index).exists()]
        if not missing or workers < 1:
            yield
            return
        # A fresh interpreter each: a forked torch may deadlock in its thread pool.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin) as executor:
            futures = [executor.submit(_draw, self.path(index), self.first_seed + index) for index in missing]
            self._futures: list[Future[None]] = futures
            try:
                yield
            finally:
                executor.shutdown(wait=True, cancel_futures=True)

    def parts(self, index: int, *, patience_s: float = 600.0) -> NDArray[np.uint8]:
        """(group, K, J, I) uint8 of crop `index`, waiting until it is drawn.

        Raises
        ------
        CropPoolError
            If it is not drawn within `patience_s`, or its file is damaged.
        """
        if index not in self._loaded:
            self._loaded[index] = self._read(index, time.monotonic() + patience_s)
        return self._loaded[index]

    def _read(self, index: int, deadline: float) -> NDArray[np.uint8]:
        path = self.path(index)
        while not path.exists():
            for future in getattr(self, "_futures", ()):
                if future.done() and not future.cancelled() and (error := future.exception()) is not None:
                    raise CropPoolError(f"a synthetic ear could not be drawn: {error}") from error
            if time.monotonic() > deadline:
                raise CropPoolError(f"{path} was not drawn in time; is anything drawing crops into {self.folder}?")
            time.sleep(POLL_S)
        wanted = (len(GROUPS), *CROP_SHAPE)
        try:
            parts: NDArray[np.uint8] = np.load(path, allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            raise CropPoolError(f"{path} cannot be read ({error}); delete it and start again") from error
        if parts.shape != wanted or parts.dtype != np.uint8:
            raise CropPoolError(
                f"{path} holds {parts.dtype} {parts.shape}, expected uint8 {wanted}; delete it and start again"
            )
        return parts


def _begin() -> None:
    """One numerical thread, and an end when the training is killed: nobody else would end this process then."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "only a process that a pool started draws crops"
    parent.join()
    os._exit(1)


def _draw(path: Path, seed: int) -> None:
    """Draw one crop; the file appears only when it is complete."""
    temporary = path.with_suffix(f".{os.getpid()}.part")  # two trainings may share a folder
    with temporary.open("wb") as file:
        np.save(file, draw_crop(seed).parts)
    temporary.rename(path)
