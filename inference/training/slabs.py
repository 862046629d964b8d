"""What a slab shows of a head: one training example of the ear finder, drawn anew every time.

A synthetic head is not a real one, so its surroundings are made unreliable: slabs of any obliquity cut it, clutter and
holes come into it, and half of the examples keep only a ball or block around each ear and put the rest of another head,
moved or upside down, or no head at all, around it. Without the last, a finder that was right within 0.8 mm in every
synthetic head looked for petrous bones and went 28 mm astray around real ears.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from inference.ear_proposals import BRIGHTEST, FLUID_PERCENTILE, GRID_MM
from inference.geometry import FloatArray
from inference.training.heads import GRAYS, SHAPE, HeadImages

FloatImage = NDArray[np.float32]

WINDOW: Final = (56, 72, 88)
"""Of a head that one example shows (K, J, I): both ears wherever it lies, and half the work of a whole head."""

WHOLE_MM: Final = 5.0
"""An ear this far inside the slab is to be found, one `GONE_MM` outside is not; between the two it does not count."""
GONE_MM: Final = 4.0

NO_HEAD: Final = 0.08
"""Share of examples that show shapes and no head."""

SLAB_MM: Final = ((30.0, 45.0, 60.0, 80.0, 104.0, 104.0, 104.0), (140.0, 200.0), (150.0, 200.0))
"""Thicknesses, and the ranges of the two edges."""

OBLIQUITY_DEG: Final = (0.0, 15.0, 30.0, 45.0)
"""Largest turn about each axis, one of these."""

KEPT_MM: Final = (10.0, 22.0)
"""Radius around an ear that stays when its surroundings are exchanged; the labyrinth itself reaches to 9 mm."""

CLEAR_MM: Final = 16.0
"""Clutter stays this far from an ear's centroid."""

_INDEX: Final = np.indices(WINDOW, dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Slab:
    """One example: `image` (WINDOW) float32 as `ear_proposals.along_patient` makes it, and its ears.

    `ears` is (2, 3) indices as in `HeadImages`; `present` (2,) is 1 for an ear to be found, 0 for none, -1 for one that
    the border cuts.
    """

    image: FloatImage
    ears: FloatArray
    present: NDArray[np.int64]


def draw_slab(rng: np.random.Generator, heads: Sequence[HeadImages], *, plain: bool = False) -> Slab:
    """A slab of one of `heads`; `plain` changes nothing but the slab, for validation."""
    # Drawn first, so that the network's blocks fall anywhere and nothing is computed that is not shown.
    start = _start(rng)
    if plain or rng.random() >= NO_HEAD:
        head = heads[int(rng.integers(len(heads)))]
        image, ears = _mirrored(rng, _window(head, rng, start), head.ears - start)
    else:
        image, ears = _no_head(rng), np.full((2, 3), np.nan)
    if not plain:
        image = _disturbed(rng, image, ears, heads)
    depth_mm, ears_mm = _slab_depth(rng, ears, start)
    inside = depth_mm > 0.0
    level = max(float(np.percentile(image[inside][::3], FLUID_PERCENTILE)), 1e-6)
    image = np.clip(np.where(inside, image, 0.0) / level, 0.0, BRIGHTEST)
    if not plain:
        image = image * rng.uniform(0.8, 1.2)
    present = np.where(ears_mm > WHOLE_MM, 1, np.where(ears_mm < -GONE_MM, 0, -1))
    return Slab(image=image.astype(np.float32), ears=ears, present=np.where(np.isnan(ears).any(axis=1), 0, present))


def _start(rng: np.random.Generator) -> NDArray[np.int64]:
    """First index (k, j, i) of a window of a head."""
    return np.array([rng.integers(whole - size + 1) for whole, size in zip(SHAPE, WINDOW, strict=True)])


def _window(head: HeadImages, rng: np.random.Generator, start: NDArray[np.int64]) -> FloatImage:
    """A part of one of a head's images, float32."""
    part = tuple(slice(low, low + size) for low, size in zip(start, WINDOW, strict=True))
    shown: FloatImage = head.images[int(rng.integers(GRAYS))][part].astype(np.float32)
    return shown


def _mirrored(rng: np.random.Generator, image: FloatImage, ears: FloatArray) -> tuple[FloatImage, FloatArray]:
    """Half of the time left and right exchanged, the ears with their names."""
    if rng.random() < 0.5:
        return image, ears
    swapped = ears[::-1].copy()
    swapped[:, 2] = WINDOW[2] - 1 - swapped[:, 2]
    return image[:, :, ::-1].copy(), swapped


def _disturbed(
    rng: np.random.Generator, image: FloatImage, ears: FloatArray, heads: Sequence[HeadImages]
) -> FloatImage:
    """Other surroundings, clutter, holes, blur, uneven gain, another gray curve, noise: each now and then."""
    if rng.random() < 0.5:
        image = _transplanted(rng, image, ears, heads)
    _clutter(rng, image, ears, rng.poisson(6))
    if rng.random() < 0.3:
        image = ndimage.gaussian_filter(image, rng.uniform(0.2, 0.6))
    if rng.random() < 0.7:
        image = image * np.exp(np.clip(_smooth(rng), -2.0, 2.0) * np.float32(rng.uniform(0.0, 0.25)))
    if rng.random() < 0.5:
        image = image ** np.float32(rng.uniform(0.65, 1.6))
    _holes(rng, image, ears)
    if rng.random() < 0.5:
        image = np.abs(image + rng.normal(0.0, rng.uniform(0.0, 0.06), WINDOW).astype(np.float32))
    return image


def _transplanted(
    rng: np.random.Generator, image: FloatImage, ears: FloatArray, heads: Sequence[HeadImages]
) -> FloatImage:
    """The ears of `image` with something else around them."""
    radius_mm, edge_mm, block = rng.uniform(*KEPT_MM), rng.choice([2.0, 4.0]), rng.random() < 0.3
    keep = np.zeros(WINDOW, np.float32)
    for ear in ears[~np.isnan(ears).any(axis=1)]:
        middle = ear + rng.normal(0.0, 1.5, 3) / GRID_MM
        away = np.abs(_INDEX - middle.astype(np.float32)[:, None, None, None]) * np.float32(GRID_MM)
        if block:
            along = (rng.uniform(0.8, 1.6), 1.0, rng.uniform(0.6, 1.0))
            distance = np.max([d * np.float32(factor) for d, factor in zip(away, along, strict=True)], axis=0)
        else:
            distance = np.sqrt((away**2).sum(axis=0))
        np.maximum(keep, np.clip((radius_mm - distance) / edge_mm + 0.5, 0.0, 1.0), out=keep)
    other = _no_head(rng) if rng.random() < 0.4 else _earless(rng, heads)
    replaced: FloatImage = image * keep + other * (1.0 - keep)
    return replaced


def _earless(rng: np.random.Generator, heads: Sequence[HeadImages]) -> FloatImage:
    """Another head whose labyrinths are blurred away or painted over, moved, turned over, blurred."""
    head = heads[int(rng.integers(len(heads)))]
    start = _start(rng)
    image, ears = _window(head, rng, start), head.ears - start
    for ear in ears[~np.isnan(ears).any(axis=1)]:
        box = tuple(slice(max(0, int(at) - 5), max(0, int(at) - 5) + 10) for at in ear)
        image[box] = rng.uniform(0.0, 0.2) if rng.random() < 0.5 else ndimage.gaussian_filter(image[box], 3.0)
    if rng.random() < 0.5:
        image = np.flip(image, tuple(axis for axis in range(3) if rng.random() < 0.5))
    if rng.random() < 0.4:
        image = ndimage.gaussian_filter(image, rng.uniform(0.5, 2.5))
    moved = np.roll(image, np.rint(rng.uniform(-1.0, 1.0, 3) * (15, 15, 12)).astype(int), (0, 1, 2))
    return moved * np.float32(rng.uniform(0.4, 1.3))


def _no_head(rng: np.random.Generator) -> FloatImage:
    """One to three large bodies with fluid in them."""
    image = np.zeros(WINDOW, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        middle, half_mm = rng.uniform(0.2, 0.8, 3) * WINDOW, rng.uniform(15.0, 70.0, 3)
        scaled = [(_INDEX[axis] - middle[axis]) * GRID_MM / half_mm[axis] for axis in range(3)]
        image[np.sqrt(sum(part**2 for part in scaled)) < 1.0] = rng.uniform(0.02, 0.5)
    _clutter(rng, image, np.full((2, 3), np.nan), int(rng.integers(2, 40)))
    noise = rng.normal(0.0, 0.02, (2, *WINDOW))
    noisy: FloatImage = np.hypot(image + noise[0], noise[1]).astype(np.float32)
    return noisy


def _clutter(rng: np.random.Generator, image: FloatImage, ears: FloatArray, count: int) -> None:
    """Paint blobs, tubes and sheets of fluid into `image`, away from its ears."""
    for _ in range(count):
        middle = rng.uniform(0.0, 1.0, 3) * WINDOW
        if (np.linalg.norm((ears - middle) * GRID_MM, axis=1) < CLEAR_MM).any():
            continue
        half_mm = [
            rng.uniform(1.0, 5.0, 3),
            np.append(rng.uniform(0.7, 2.0, 2), rng.uniform(5.0, 20.0)),
            np.append(rng.uniform(0.6, 1.2), rng.uniform(5.0, 15.0, 2)),
        ][int(rng.integers(3))]
        half = half_mm / GRID_MM
        low = np.maximum(middle - half.max() - 1, 0).astype(int)
        high = np.minimum(middle + half.max() + 2, WINDOW).astype(int)
        if (high <= low).any():
            continue
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix() / half[:, None]
        offset = _INDEX[(slice(None), *box)] - middle.astype(np.float32)[:, None, None, None]
        radius = np.linalg.norm(np.tensordot(turn.astype(np.float32), offset, 1), axis=0)
        share = np.clip((1.0 - radius) * half.min() + 0.5, 0.0, 1.0)
        image[box] += share * (rng.uniform(0.3, 1.2) - image[box])


def _holes(rng: np.random.Generator, image: FloatImage, ears: FloatArray) -> None:
    """Blank a block now and then, away from the ears."""
    for _ in range(rng.poisson(0.7)):
        middle, half = rng.uniform(0.0, 1.0, 3) * WINDOW, rng.uniform(8.0, 30.0, 3) / GRID_MM
        if (np.abs(ears - middle) < half + 14.0 / GRID_MM).all(axis=1).any():
            continue
        low, high = np.maximum(middle - half, 0).astype(int), np.minimum(middle + half, WINDOW).astype(int)
        image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = rng.uniform(0.0, 0.4)


def _smooth(rng: np.random.Generator) -> FloatImage:
    """A slowly varying field, SD about 1."""
    knots = torch.from_numpy(rng.normal(size=(1, 1, 5, 5, 5)).astype(np.float32))
    field: FloatImage = torch.nn.functional.interpolate(knots, size=WINDOW, mode="trilinear", align_corners=True)[
        0, 0
    ].numpy()
    return field


def _slab_depth(rng: np.random.Generator, ears: FloatArray, start: NDArray[np.int64]) -> tuple[FloatImage, FloatArray]:
    """(K, J, I) and (2,): mm inside the nearest border of a random slab; negative outside, NaN for a missing ear."""
    thickness, (short, long) = rng.choice(SLAB_MM[0]), (rng.uniform(*edges) for edges in SLAB_MM[1:])
    normals = Rotation.from_euler(
        "xyz", rng.uniform(-1.0, 1.0, 3) * rng.choice(OBLIQUITY_DEG), degrees=True
    ).as_matrix()
    if rng.random() < 0.3:
        normals = normals[rng.permutation(3)]
    middle = np.array([34.0, 50.0, 47.5]) - start + rng.normal(0.0, (4.0, 4.0, 3.0))
    for axis, (least, most) in ((2, (15.0, 30.0)), (0, (5.0, 30.0))):
        if rng.random() < 0.15:
            middle[axis] += rng.choice([-1.0, 1.0]) * rng.uniform(least, most)
    depth_mm, ears_mm = np.full(WINDOW, np.inf, np.float32), np.full(2, np.inf)
    for normal, size_mm in zip(normals, (thickness, short, long), strict=True):
        weight = normal * GRID_MM
        along = np.tensordot(weight.astype(np.float32), _INDEX, 1) - np.float32(weight @ middle)
        np.minimum(depth_mm, np.float32(size_mm / 2) - np.abs(along), out=depth_mm)
        ears_mm = np.minimum(ears_mm, size_mm / 2 - np.abs((ears - middle) @ weight))
    return depth_mm, ears_mm
