"""A patient who moved during an acquisition: the contrast series then shows the labyrinth twice, beside itself.

Who lies elsewhere for a part of the echo trains is seen at both places, fainter at each. Bone around a labyrinth is
dark on every series, so the fainter picture stands out there: HYDROPS around the ear, where the MRC shows bone, is
compared with the ear's own HYDROPS moved by every shift. Both ears lie in one head, so one shift must explain both; a
second picture of PPI has the sign of the first, one of PEI, which is subtracted, the other. 3D-real IR is one
acquisition: its second picture has the sign of the first. It shows soft tissue as well, which HYDROPS subtracts away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.ear_signal import FULL_VOXEL, MIN_VOXELS
from inference.findings import EarFluid, EarImages, QualityCode, QualityFlag, Severity
from inference.geometry import FloatArray
from inference.quality import MIN_POSITIVE_SHARE
from inference.shifted_sums import Array, sums_by_shift

SHARED_VOXELS: Final = 3
"""How far along each axis noise that neighbors share is looked for: images interpolated twofold share it over two."""

SHARED_NOISE: Final = 0.25
"""Correlation of neighbors in bone above which their noise is one: 0.6 in images interpolated twofold, below 0.2 in
others, be the ears in them seen twice or not."""

REACH_MM: Final = 8.0
"""Farthest shift looked at, along each axis; ears' boxes leave this much room around a labyrinth."""

EMPTY_SHARE: Final = 0.15
"""Of the fluid level on MRC: below it lie bone and air; brain has 0.18 and more."""

EMPTY_AROUND_SHARE: Final = 0.12
"""The same for the mean of a voxel and its 26 neighbors. Soft tissue in a small part of a voxel, at the edge of brain
or as mucosa in air cells, is as dark on MRC as bone, but up to 0.6 of perilymph on 3D-real IR, where a shift of the ear
was then found that there was not (6 of 80 patients). Around it MRC is brighter. Noise alone has 0.12 at an SNR of 10;
the darker half of what lies below `EMPTY_SHARE` is bone in any case, or motion beside a noisy MRC would go unseen."""

SEEN_SHARE: Final = 0.3
"""Of a labyrinth's picture that must fall on bone for a shift to be judged; otherwise a few voxels decide."""

DOUBLED_SD: Final = 8.0
"""How far a second picture must stand out of the noise. Over all shifts, phantoms that lay still reach 5.8 (fluid SNR 3
to 12, also weakly enhanced), and interpolated ones no more; on 3D-real IR traces below 0.08 of the first picture reach
11, and what is stronger than `DOUBLED_SHARE` reaches 5.7. A half picture 4 mm away in PPI reaches 12 to 56, in PEI 30
to 35. Not so in much noise: at an SNR of 3 another phantom (seed 911) reached 6 to 9 in PPI and 6 to 7 in PEI, so that
such motion may go unseen."""

DOUBLED_SHARE: Final = 0.15
"""Strength of a second picture over that of the first. It keeps what is no picture, but real in a very quiet image,
from being called one: ringing and blur stay below 0.1. Where 0.2 was seen, ratios were off by 0.12."""


@dataclass(frozen=True, kw_only=True)
class DoubleImage:
    """The shift (LPS mm) at which the second picture is surest, and its signed strength over the first's.

    `sd` is the strength in standard deviations of the noise. Below zero the shift need not be the patient's: PEI shows
    all fluid, and what of it comes to lie on bone is matched as well as may be.
    """

    shift_lps_mm: tuple[float, float, float]
    strength: float
    sd: float

    @property
    def certain(self) -> bool:
        """True if this is a second picture, and neither noise nor a trace."""
        return self.sd >= DOUBLED_SD and abs(self.strength) >= DOUBLED_SHARE


def check_double_image(ears: Sequence[tuple[EarImages, EarFluid]]) -> tuple[QualityFlag, ...]:
    """A STOP if the ears' contrast shows a second picture: their numbers would be of two positions at once.

    Parameters
    ----------
    ears
        Of one study, on crops of one MRC. An ear without fluid or contrast agent, or whose contrast says nothing about
        bone (HYDROPS-Mi2), is left out.
    """
    found = surest_second_picture(ears)
    if found is None or not found.certain:
        return ()
    series = "3D-real IR" if ears[0][0].phase_sensitive else "HYDROPS"
    message = (
        f"{series} shows the inner ears a second time in the bone beside them, {abs(found.strength):.0%} as strong:"
        " the patient moved during the acquisition of a contrast series"
    )
    flag = QualityFlag(
        code=QualityCode.MOTION,
        severity=Severity.STOP,
        message=message,
        measured=abs(found.strength),
        limit=DOUBLED_SHARE,
    )
    return (flag,)


def surest_second_picture(ears: Sequence[tuple[EarImages, EarFluid]]) -> DoubleImage | None:
    """The shift that most surely brings the ears' own picture onto what bone shows; None if no shift can be judged."""
    matches = [match for images, fluid in ears if (match := _match(images, fluid)) is not None]
    if not matches:
        return None
    product, overlap, noise = (sum(parts) for parts in zip(*(one.by_shift for one in matches), strict=True))
    judged = overlap >= SEEN_SHARE * sum(one.whole for one in matches)
    sd = np.zeros_like(product)
    if all(images.phase_sensitive for images, _fluid in ears):
        judged &= product > 0.0
    np.divide(product, np.sqrt(noise), out=sd, where=judged & (noise > 0.0))
    best = np.unravel_index(int(np.argmax(np.abs(sd))), sd.shape)
    if sd[best] == 0.0:
        return None
    x, y, z = (float(mm) for mm in matches[0].step_lps_mm @ (np.array(best) - np.array(sd.shape) // 2))
    return DoubleImage(
        shift_lps_mm=(x, y, z), strength=float(product[best] / overlap[best]), sd=float(np.abs(sd[best]))
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Match:
    """One ear, shift by shift (the middle is no shift).

    `by_shift` is the sum of picture times bone's value, that of the picture squared where bone is, and the first one's
    variance by noise alone; `whole` the picture squared, all of it. `step_lps_mm` (3, 3) is a shift of one voxel.
    """

    by_shift: tuple[Array, Array, Array]
    whole: float
    step_lps_mm: FloatArray


def _match(images: EarImages, fluid: EarFluid) -> _Match | None:
    mrc, hydrops = (np.asarray(one.array, dtype=np.float64) for one in (images.mrc, images.hydrops))
    fraction = np.asarray(fluid.total_fluid_fraction.array)
    full = fraction >= FULL_VOXEL
    if np.count_nonzero(full) < MIN_VOXELS:
        return None
    level = float(np.percentile(mrc[full], 75.0))
    dark = (mrc < EMPTY_SHARE * level) & ~ndimage.binary_dilation(fraction > 0.0)
    if not dark.any():
        return None
    around = ndimage.uniform_filter(mrc, 3)
    bone = dark & (around <= max(EMPTY_AROUND_SHARE * level, float(np.median(around[dark]))))
    noise_sd = float(hydrops[bone].std())
    if noise_sd == 0.0:
        return None
    hydrops = hydrops - np.median(hydrops[bone])  # bone is not at zero if PPI and PEI differ in noise: no picture of it
    picture = _picture(hydrops, full)
    if float((picture[full] > 0.0).mean()) < MIN_POSITIVE_SHARE:
        return None  # no contrast agent: all fluid looks alike, and any CSF beside the ear resembles its picture
    geometry = images.mrc.geometry
    reach = [int(REACH_MM / spacing) for spacing in geometry.spacing_mm]
    product = sums_by_shift(picture, np.where(bone, hydrops, 0.0), reach)
    overlap = np.maximum(sums_by_shift(picture**2, bone.astype(np.float64), reach), 0.0)
    noise = noise_sd**2 * _shared_noise(hydrops, bone, picture)
    return _Match(
        by_shift=(product, overlap, noise * overlap),
        whole=float((picture**2).sum()),
        step_lps_mm=geometry.index_to_lps[:3, :3],
    )


def _picture(hydrops: Array, full: NDArray[np.bool_]) -> Array:
    """HYDROPS of the labyrinth, averaged over neighbors that are full of fluid too; zero elsewhere."""
    around = ndimage.uniform_filter(np.where(full, hydrops, 0.0), 3)
    share = ndimage.uniform_filter(full.astype(np.float64), 3)
    picture: Array = np.where(full, around / np.maximum(share, 1e-6), 0.0)
    return picture


def _shared_noise(hydrops: Array, bone: NDArray[np.bool_], picture: Array) -> float:
    """By what neighbors that share their noise multiply the variance of a sum over the picture; 1 if none does.

    Interpolated images have fewer independent voxels than voxels. What neighbors share is read from bone, along each
    axis, values cut at one SD: a second picture, which fills a small part of the bone, hardly counts as noise then.
    """
    sd = 1.4826 * float(np.median(np.abs(hydrops[bone])))
    noise = np.where(bone, np.clip(hydrops, -sd, sd), 0.0)
    alone = float((noise**2).sum()) / np.count_nonzero(bone)
    if alone == 0.0:
        return 1.0
    spread: Array = picture
    for axis in range(3):
        one, is_bone = np.moveaxis(noise, axis, 0), np.moveaxis(bone, axis, 0)
        shared = []
        for lag in range(1, SHARED_VOXELS + 1):
            pairs = max(1, int(np.count_nonzero(is_bone[lag:] & is_bone[:-lag])))
            shared.append(float((one[lag:] * one[:-lag]).sum()) / (alone * pairs))
        if shared[0] > SHARED_NOISE:
            kernel = np.array([*reversed(shared), 1.0, *shared])
            spread = np.asarray(ndimage.convolve1d(spread, kernel, axis=axis, mode="constant"), dtype=np.float64)
    return max(1.0, float((picture * spread).sum() / (picture**2).sum()))
