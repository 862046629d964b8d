"""Smooth random fields without a grid: they vary persons' shapes and texture, the same at every resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.phantom.shapes import column


@dataclass(frozen=True, kw_only=True, eq=False)
class Waves:
    """A smooth random field: a sum of plane waves, SD 0.7, features about `period_mm` wide."""

    directions: Tensor
    phases: Tensor

    @classmethod
    def draw(cls, rng: np.random.Generator, period_mm: float, count: int = 7) -> Waves:
        """Random waves with wavelengths around `period_mm`."""
        directions = rng.normal(size=(3, count))
        directions *= 2 * np.pi / period_mm * rng.uniform(0.7, 1.4, count) / np.linalg.norm(directions, axis=0)
        return cls(
            directions=torch.from_numpy(directions.T.astype(np.float32)),
            phases=column(rng.uniform(0, 2 * np.pi, count)),
        )

    def at(self, points: Tensor) -> Tensor:
        """(N,) value at `points` (3, N) mm."""
        total = torch.zeros(points.shape[1])
        for wave, phase in zip(self.directions, self.phases, strict=True):
            total += torch.sin(wave @ points + phase)
        field: Tensor = total / len(self.phases) ** 0.5
        return field


@dataclass(frozen=True, kw_only=True, eq=False)
class Warp:
    """A smooth deformation of space: each point moves along every axis by `amplitude_mm` times a field of its own.

    Distances to a warped solid stay within a third of the true ones while `amplitude_mm` is below a twentieth of the
    period, which `voxelization.sample_inside` relies on.
    """

    amplitude_mm: float
    axes: tuple[Waves, Waves, Waves]

    @classmethod
    def draw(cls, rng: np.random.Generator, amplitude_mm: float, period_mm: float) -> Warp:
        """A random deformation with features about `period_mm` wide."""
        x, y, z = (Waves.draw(rng, period_mm, count=5) for _ in range(3))
        return cls(amplitude_mm=amplitude_mm, axes=(x, y, z))

    def at(self, points: Tensor) -> Tensor:
        """(3, N) where `points` (3, N) mm went."""
        return points + self.amplitude_mm * torch.stack([waves.at(points) for waves in self.axes])
