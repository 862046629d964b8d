"""A site's own labeled ears as a source of training: on the network's grid, moved by whole voxels, nothing else turned.

Rotating or scaling an image of partial volumes on a clinical grid dilates thin canals (0.06 Dice was lost that way), so
geometry is only varied in the phantom, where it is exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from typing import Final

import numpy as np
import torch
from torch import Tensor

from inference.anatomy import EarSide
from inference.cases import CaseError, EarCase, InputSet
from inference.ear_grid import SHAPE, channels, ear_grid, onto_grid, scaled
from inference.learned import input_set
from inference.training.crops import CROP_SHAPE, MARGIN
from inference.training.scans import Scans, jittered
from inference.training.sources import EarSource

WHOLE_LABYRINTH: Final = 0.95
"""Of the labeled fluid that must lie on the network's grid around its center; a canal's rim may be cut off."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabeledEar:
    """One ear around its fluid's center on the network's axes (right ears mirrored), `MARGIN` wider on every side.

    `case` names it in files; `patient` keeps both ears and all cases of one person together and is never written.
    `channels` (4, K, J, I) float32 in scanner units; `total` and `endolymph` (K, J, I) parts 0..1 of each voxel.
    """

    case: str
    side: EarSide
    patient: str
    inputs: InputSet
    channels: Tensor
    total: Tensor
    endolymph: Tensor


def labeled_ear(case: EarCase) -> LabeledEar:
    """`case` on the network's grid.

    Tags used: `case`, its name; `patient`, who it is, where one person has several cases.

    Raises
    ------
    CaseError
        If the labeled fluid does not fit on the network's grid, or an image is constant there.
    """
    roi = case.images.roi
    name = f"{case.tags['case']}, {roi.side} ear"
    grid = ear_grid(roi.side, case.images.mrc.geometry, roi.center_lps_mm)
    k, j, i = (-margin for margin in MARGIN)
    wide = grid.crop((k, j, i), (CROP_SHAPE[0], CROP_SHAPE[1], CROP_SHAPE[2]))
    total = np.clip(onto_grid(case.total_fluid, wide), 0.0, 1.0)
    endolymph = np.clip(onto_grid(case.endolymph, wide), 0.0, total)
    middle = tuple(slice(margin, margin + n) for margin, n in zip(MARGIN, SHAPE, strict=True))
    labeled_mm3 = float(np.sum(case.total_fluid.array, dtype=np.float64)) * case.total_fluid.geometry.voxel_volume_mm3
    inside_mm3 = float(total[middle].sum(dtype=np.float64)) * grid.voxel_volume_mm3
    if inside_mm3 < WHOLE_LABYRINTH * labeled_mm3:
        raise CaseError(
            f"{name}: expected a labyrinth that fits into {np.round(SHAPE * grid.spacing_mm, 1).tolist()} mm, found "
            f"{inside_mm3:.0f} of {labeled_mm3:.0f} mm3 of fluid there; is something else labeled as well?"
        )
    images = channels(case.images, wide)
    for image, what in ((images[0], "MRC"), (images[1] + images[3], "HYDROPS or real IR")):
        if not torch.isfinite(image).all() or float(image.max()) == float(image.min()):
            raise CaseError(f"{name}: expected an image with contrast around the ear, found a constant {what}")
    return LabeledEar(
        case=str(case.tags["case"]),
        side=roi.side,
        patient=str(case.tags.get("patient", case.tags["case"])),
        inputs=InputSet(input_set(case.images)),
        channels=images,
        total=torch.from_numpy(total),
        endolymph=torch.from_numpy(endolymph),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Who is trained on, who chooses the best weights, and who is kept for `hydrops-node evaluate`; by patient."""

    training: tuple[LabeledEar, ...]
    validation: tuple[LabeledEar, ...]
    held_out: tuple[LabeledEar, ...] = ()

    def cases(self) -> dict[str, list[str]]:
        """Names of the cases of each part."""
        parts = {"training": self.training, "validation": self.validation, "held_out": self.held_out}
        return {part: sorted({ear.case for ear in ears}) for part, ears in parts.items()}

    def digest(self) -> str:
        """SHA-256 of every voxel and of who is where: equal only for the same ears in the same parts."""
        found = hashlib.sha256()
        for ear in (*self.training, *self.validation):
            found.update(f"{ear.case}:{ear.side}:{ear.inputs}:{ear in self.training}".encode())
            for image in (ear.channels, ear.total, ear.endolymph):
                found.update(image.numpy().tobytes())
        return found.hexdigest()


def split_by_patient(
    ears: Iterable[LabeledEar], *, seed: int, validation_share: float, held_out_share: float = 0.0
) -> Split:
    """Patients drawn at random: `held_out_share` of all, then `validation_share` of the others, at least one each.

    Raises
    ------
    CaseError
        If there are too few patients for that.
    """
    ordered = sorted(ears, key=lambda ear: ear.patient)
    by_patient = {name: tuple(own) for name, own in groupby(ordered, key=lambda ear: ear.patient)}
    held_out = ceil(held_out_share * len(by_patient))
    validation = max(1, round(validation_share * (len(by_patient) - held_out)))
    needed = 2 + (held_out_share > 0.0)
    if len(by_patient) < needed:
        parts = "to train on, to validate with" + (", to hold out" if held_out_share > 0.0 else "")
        raise CaseError(f"expected at least {needed} patients ({parts}), found {len(by_patient)}")
    names = np.random.default_rng([seed, 5]).permutation(sorted(by_patient)).tolist()

    def of(chosen: Sequence[str]) -> tuple[LabeledEar, ...]:
        return tuple(ear for name in sorted(chosen) for ear in by_patient[name])

    return Split(
        training=of(names[held_out + validation :]),
        validation=of(names[held_out : held_out + validation]),
        held_out=of(names[:held_out]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnEarSource:
    """An `EarSource`: an ear by chance, up to `MARGIN` voxels off center, its gray values a little off."""

    ears: Sequence[LabeledEar]

    def batch(self, size: int, *, step: int, rng: np.random.Generator) -> Scans:
        """`size` ears with their truth."""
        del step
        chosen = [self.ears[int(index)] for index in rng.integers(len(self.ears), size=size)]
        starts = [tuple(int(rng.integers(2 * margin + 1)) for margin in MARGIN) for _ in chosen]
        scans = _windows(chosen, starts)
        return Scans(images=jittered(scans.images, rng), total=scans.total, endolymph=scans.endolymph, sets=scans.sets)


def own_scans(ears: Sequence[LabeledEar], *, batch: int) -> list[Scans]:
    """Every ear once, centered and unchanged: to validate on."""
    groups = (ears[begin : begin + batch] for begin in range(0, len(ears), batch))
    return [_windows(group, [MARGIN] * len(group)) for group in groups]


def _windows(ears: Sequence[LabeledEar], starts: Sequence[tuple[int, ...]]) -> Scans:
    """The network's window of each ear from `starts` (k, j, i) on, gray values scaled as in serving."""
    windows = [tuple(slice(begin, begin + n) for begin, n in zip(start, SHAPE, strict=True)) for start in starts]
    images = torch.stack([ear.channels[(slice(None), *window)] for ear, window in zip(ears, windows, strict=True)])
    return Scans(
        images=scaled(images),
        total=torch.stack([ear.total[window] for ear, window in zip(ears, windows, strict=True)]),
        endolymph=torch.stack([ear.endolymph[window] for ear, window in zip(ears, windows, strict=True)]),
        sets=tuple(ear.inputs for ear in ears),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class MixedSource:
    """Two sources in one training: each ear of a batch comes from `second` with chance `second_share`."""

    first: EarSource
    second: EarSource
    second_share: float

    def batch(self, size: int, *, step: int, rng: np.random.Generator) -> Scans:
        """`size` ears with their truth; `step` and `rng` go on to both sources."""
        from_second = int(rng.binomial(size, self.second_share))
        counts = ((self.first, size - from_second), (self.second, from_second))
        drawn = [source.batch(count, step=step, rng=rng) for source, count in counts if count]
        return Scans(
            images=torch.cat([scans.images for scans in drawn]),
            total=torch.cat([scans.total for scans in drawn]),
            endolymph=torch.cat([scans.endolymph for scans in drawn]),
            sets=tuple(one for scans in drawn for one in scans.sets),
        )
