"""How hydrops shows in one ear: which compartment swells sooner, what shape it takes, and fluid that was lost.

Onsets (see `labyrinth`) order the points of an ear by the severity that turns them into endolymph. A pattern changes
that order from ear to ear, so that cochlear and vestibular hydrops go together without being equal; the wanted ratio
is then still met exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.phantom.waves import Waves


@dataclass(frozen=True, kw_only=True, eq=False)
class HydropsPattern:
    """One ear's way to swell; the default is the average ear.

    Parameters
    ----------
    cochlea, saccule, utricle, canals
        Pace of each compartment, > 0: at 2 it reaches a given distension at half the severity. Normal membranes
        (severity 0) stay where they are.
    shape, shape_amplitude
        A smooth random field that makes endolymph bulge here and recede there, and its size in units of onset.
    """

    cochlea: float = 1.0
    saccule: float = 1.0
    utricle: float = 1.0
    canals: float = 1.0
    shape: Waves | None = None
    shape_amplitude: float = 0.0

    def __post_init__(self) -> None:
        for name in ("cochlea", "saccule", "utricle", "canals"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be a pace above 0, found {getattr(self, name)}")

    @classmethod
    def draw(cls, rng: np.random.Generator) -> HydropsPattern:
        """A random ear: the saccule usually leads, canals trail, cochlea and vestibule differ by a factor of 1.6 (SD).

        Vestibular without cochlear hydrops and the reverse are both seen in patients; no published covariance was
        found, so the spread is chosen to hold both.
        """
        vestibule, cochlea = rng.normal(0.0, 0.33, 2)
        saccule, utricle, canals = np.array([0.3, -0.05, -0.4]) + vestibule + rng.normal(0.0, 0.2, 3)
        return cls(
            cochlea=float(np.exp(cochlea)),
            saccule=float(np.exp(saccule)),
            utricle=float(np.exp(utricle)),
            canals=float(np.exp(canals)),
            shape=Waves.draw(rng, float(rng.uniform(1.5, 4.0))),
            shape_amplitude=float(rng.uniform(0.0, 0.2)),
        )

    def bulge(self, points: Tensor) -> Tensor | float:
        """(N,) what the ear's own shape adds to the onset at `points` (3, N) of the ear's frame."""
        return 0.0 if self.shape is None else self.shape_amplitude * self.shape.at(points)


def paced(onset: Tensor, pace: float) -> Tensor:
    """Onsets of a compartment that swells at `pace`; the normal membrane (onset <= 0) is not moved."""
    return torch.where(onset > 0.0, onset / pace, onset)


@dataclass(frozen=True, kw_only=True, eq=False)
class FluidLoss:
    """Fluid that disease replaced: by bone from the round window on, or by scar in the perilymph.

    Parameters
    ----------
    ossified
        Part of the labyrinth's fluid that became bone, 0 up to (not including) 1. Labyrinthitis ossificans starts in
        the basal turn at the round window.
    perilymph_lost
        Part of the remaining perilymph that is obliterated, 0 up to (not including) 1, in patches.
    patches
        Where.

    Raises
    ------
    ValueError
        If a part is out of range.
    """

    patches: Waves
    ossified: float = 0.0
    perilymph_lost: float = 0.0

    def __post_init__(self) -> None:
        for name in ("ossified", "perilymph_lost"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be at least 0 and below 1, found {getattr(self, name)}")

    @classmethod
    def draw(cls, rng: np.random.Generator, *, ossified: float = 0.0, perilymph_lost: float = 0.0) -> FluidLoss:
        """Losses of the given size at random places, in patches of some 3 mm."""
        return cls(patches=Waves.draw(rng, 3.0), ossified=ossified, perilymph_lost=perilymph_lost)

    def open(self, points: Tensor, remoteness: Tensor) -> NDArray[np.bool_]:
        """(N,) which `points` (3, N) are not bone; `remoteness` (N,) is 0 at the round window, 1 at the far ends."""
        rank = (remoteness + 0.2 * self.patches.at(points)).numpy()
        return _all_but_lowest(rank, round(self.ossified * len(rank)))

    def endolymph_share(self, eh_ratio: float) -> float:
        """The part of the fluid to turn into endolymph so that the ratio holds after perilymph was lost."""
        return eh_ratio * (1.0 - self.perilymph_lost) / (1.0 - eh_ratio * self.perilymph_lost)

    def spared(self, points: Tensor, is_endolymph: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(N,) which `points` (3, N) are still fluid after perilymph was obliterated."""
        kept = is_endolymph.copy()
        rank = self.patches.at(points).numpy()[~is_endolymph]
        kept[~is_endolymph] = _all_but_lowest(rank, round(self.perilymph_lost * len(rank)))
        return kept


def _all_but_lowest(rank: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    kept = np.ones(len(rank), dtype=np.bool_)
    if count:
        kept[np.argpartition(rank, count - 1)[:count]] = False
    return kept
