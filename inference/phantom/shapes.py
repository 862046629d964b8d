"""Signed distances to simple solids, in millimeters: negative inside, positive outside.

Points are float32 tensors of shape (3, N), one row per coordinate (three times faster than (N, 3) on a CPU); every
function returns (N,). A distance may be approximate, but its sign is exact and it never exceeds the true distance by
more than a third, which `voxelization.sample_inside` relies on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inference.geometry import FloatArray

_TINY = 1e-6


def column(values: FloatArray | tuple[float, ...]) -> Tensor:
    """(n, 1) float32 tensor of a point or direction, ready to meet (n, N) points."""
    return torch.as_tensor(values, dtype=torch.float32)[:, None]


def length(vectors: Tensor) -> Tensor:
    """(N,) Euclidean length of (n, N) vectors."""
    total: Tensor = vectors.square().sum(dim=0).sqrt_()
    return total


def ellipsoid(points: Tensor, center: Tensor, semi_axes: Tensor) -> Tensor:
    """Distance to an ellipsoid whose axes follow the coordinate axes; first order, exact at the surface."""
    scaled = (points - center) / semi_axes
    radius = length(scaled)
    return radius * (radius - 1.0) / (length(scaled / semi_axes) + _TINY)


def relative_radius(points: Tensor, center: Tensor, semi_axes: Tensor) -> Tensor:
    """How many times the ellipsoid must be enlarged to reach each point; 1 on its surface."""
    return length((points - center) / semi_axes)


def capsule(points: Tensor, start: Tensor, end: Tensor, start_radius: float, end_radius: float | None = None) -> Tensor:
    """Distance to a rod with round ends whose radius changes linearly from `start` to `end`."""
    axis = end - start
    from_start = points - start
    along = ((axis.T @ from_start)[0] / float((axis * axis).sum())).clamp_(0.0, 1.0)
    radius = start_radius + ((start_radius if end_radius is None else end_radius) - start_radius) * along
    return length(from_start - axis * along) - radius


def smooth_union(first: Tensor, second: Tensor, width_mm: float) -> Tensor:
    """Union whose inner edge is rounded over `width_mm` (polynomial smooth minimum)."""
    mix = (width_mm - (first - second).abs()).clamp(min=0.0) / width_mm
    return torch.minimum(first, second) - mix * mix * width_mm / 4.0


def occupancy(distance: Tensor, edge_mm: float) -> Tensor:
    """Part 0..1 of a cell of size `edge_mm` that lies inside, if the surface is flat there."""
    return (0.5 - distance / edge_mm).clamp_(0.0, 1.0)
