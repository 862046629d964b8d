"""What this machine can do at best: multiplications and memory, measured in the run whose figures they bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

MATRIX: Final = 1024
COPIED_BYTES: Final = 64 * 2**20
"""Larger than any cache that one core has to itself."""
TRIES: Final = 60
"""Short ones, so that some fall between what others do on the machine."""


@dataclass(frozen=True, kw_only=True)
class MachineLimits:
    """Billions of float32 operations a second (a multiplication and an addition are two), and bytes copied."""

    gflop_per_s: float
    gb_per_s: float

    def arithmetic_s(self, gflop: float) -> float:
        """Seconds that so many operations take at least."""
        return gflop / self.gflop_per_s

    def memory_s(self, read_and_written_bytes: float) -> float:
        """Seconds that so many bytes take at least, read or written once."""
        return read_and_written_bytes / 1e9 / self.gb_per_s


def machine_limits(clock: Callable[[], float] = time.perf_counter) -> MachineLimits:
    """The best of many tries: what others do on the machine meanwhile is no limit of it.

    `clock` counts seconds; that of the processor counts all threads together, for figures that do so, too.
    """
    one, other = torch.rand(MATRIX, MATRIX), torch.rand(MATRIX, MATRIX)
    source = np.ones(COPIED_BYTES, dtype=np.uint8)
    target = np.empty_like(source)
    return MachineLimits(
        gflop_per_s=2 * MATRIX**3 / 1e9 / _fastest(lambda: torch.mm(one, other), clock),
        gb_per_s=2 * COPIED_BYTES / 1e9 / _fastest(lambda: np.copyto(target, source), clock),
    )


def _fastest(task: Callable[[], object], clock: Callable[[], float]) -> float:
    taken = []
    for _ in range(TRIES):
        began = clock()
        task()
        taken.append(clock() - began)
    return min(taken)


def network_gflop(build: Callable[[], torch.nn.Module], shape: tuple[int, ...]) -> float:
    """Arithmetic of a network's forward pass; nothing is computed for it.

    Parameters
    ----------
    shape
        Of its input, (B, C, K, J, I).
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        build()(torch.empty(*shape))
    return float(counter.get_total_flops()) / 1e9
