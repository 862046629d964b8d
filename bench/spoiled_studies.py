"""Studies that a node must refuse, and studies that it must measure, with what has to happen to each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from moved_patients import COLUMNS, SLICES, Series, changed, moved_during
from scipy import ndimage

from inference.anatomy import EarSide
from inference.geometry import Volume, VolumeGeometry
from inference.phantom import ContrastState, PhantomOptions, PhantomStudy, make_study
from inference.phantom.imaging import HydropsCoding

PAIR = ("MRC", "PPI", "PEI")
SMALL: Mapping[str, Any] = {"matrix": (288, 176, 64), "step_mm": 0.15}
"""144 x 88 x 64 mm: both ears and the cisterns between them, in a quarter of the time of a whole slab."""


class Must(StrEnum):
    """What has to happen to a kind of study."""

    MEASURED = "measured"
    """Both ears get a number."""
    REFUSED = "refused"
    """No ear gets a number, and a code says why."""
    EAR_REFUSED = "left refused"
    """The left ear gets no number; the right one may."""
    WARNED = "warned"
    """An ear is refused, or its number carries a remark with one of the codes and its interval holds the truth."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Kind:
    """One way to be good or bad: how the patient is scanned, what spoils the series, and what must come of it."""

    name: str
    must: Must
    codes: frozenset[str] = frozenset()
    options: Callable[[int], PhantomOptions]
    spoil: Callable[[Series, PhantomStudy], Series] = lambda series, _study: series


# ------------------------------------------------------------------------------------------------ patients


def patient(seed: int, series: Sequence[str] = PAIR, **changed: Any) -> PhantomOptions:
    """A patient who can be measured: any severity, slabs tilted as technicians do, some motion, usual noise."""
    rng = np.random.default_rng([seed, 815])
    left, right = (float(ratio) for ratio in rng.uniform(0.06, 0.5, 2))
    drawn = PhantomOptions(
        seed=seed,
        eh_ratio={EarSide.LEFT: left, EarSide.RIGHT: right},
        series=tuple(series),
        contrast=ContrastState.STRONG if seed % 4 == 3 else ContrastState.NORMAL,
        oblique_deg=(float(rng.uniform(-20, 20)), float(rng.uniform(-8, 8)), float(rng.uniform(-8, 8))),
        contrast_snr=float(rng.uniform(5.0, 15.0)),
        mrc_snr=float(rng.uniform(25.0, 60.0)),
        motion_mm=float(rng.uniform(0.0, 3.0)),
        motion_deg=float(rng.uniform(0.0, 3.0)),
        side_difference=float(rng.uniform(-0.2, 0.2)),
        **SMALL,
    )
    return replace(drawn, **changed)


def scanned(series: Sequence[str] = PAIR, **changed: Any) -> Callable[[int], PhantomOptions]:
    """Patients with one thing changed for all."""
    return lambda seed: patient(seed, series, **changed)


def cut_below(seed: int) -> PhantomOptions:
    """The slab ends 2 mm above the middle of both labyrinths."""
    upright = patient(seed, oblique_deg=(0.0, 0.0, 0.0))
    return replace(upright, slab_shift_mm=(0.0, 0.0, upright.matrix[2] * upright.spacing_mm[2] / 2 + 2.0))


def cut_beside(seed: int) -> PhantomOptions:
    """The slab ends at the left labyrinth: 39 mm of the patient's left, less 1 mm."""
    upright = patient(seed, oblique_deg=(0.0, 0.0, 0.0))
    return replace(upright, slab_shift_mm=(38.0 - upright.matrix[0] * upright.spacing_mm[0] / 2, 0.0, 0.0))


def cut_through(seed: int) -> PhantomOptions:
    """The slab ends 1 to 4 mm below the middle of both labyrinths: a piece of each is missing."""
    upright = patient(seed, oblique_deg=(0.0, 0.0, 0.0))
    below_mm = 1.0 + seed % 4
    return replace(upright, slab_shift_mm=(0.0, 0.0, upright.matrix[2] * upright.spacing_mm[2] / 2 - below_mm))


def cut_lateral(seed: int) -> PhantomOptions:
    """The slab ends 1 to 4 mm lateral of the middle of the left labyrinth."""
    upright = patient(seed, oblique_deg=(0.0, 0.0, 0.0))
    beside_mm = 1.0 + seed % 4
    return replace(upright, slab_shift_mm=(39.0 + beside_mm - upright.matrix[0] * upright.spacing_mm[0] / 2, 0.0, 0.0))


# ------------------------------------------------------------------------------------------------ what spoils a study


def swapped(series: Series, _study: PhantomStudy) -> Series:
    """PPI sent as PEI and the other way round."""
    return series | {"PPI": series["PEI"], "PEI": series["PPI"]}


def inverted(series: Series, _study: PhantomStudy) -> Series:
    """Subtracted the other way round."""
    return series | {"HYDROPS": changed(series["HYDROPS"], -series["HYDROPS"].array)}


def magnitude(series: Series, _study: PhantomStudy) -> Series:
    """The console stored the magnitude of the difference."""
    return series | {"HYDROPS": changed(series["HYDROPS"], np.abs(series["HYDROPS"].array))}


def mrc_twice(series: Series, _study: PhantomStudy) -> Series:
    """The cisternogram itself, sent as HYDROPS: CSF is bright."""
    return series | {"HYDROPS": series["MRC"]}


def noise_only(series: Series, study: PhantomStudy) -> Series:
    """Magnitude noise in every series."""
    rng = np.random.default_rng([study.options.seed, 1])
    return {role: changed(one, 50.0 * rng.rayleigh(size=one.array.shape)) for role, one in series.items()}


def constant(series: Series, _study: PhantomStudy) -> Series:
    """PPI and PEI without any content."""
    return series | {role: changed(series[role], np.full(series[role].array.shape, 100.0)) for role in ("PPI", "PEI")}


def saturated(series: Series, _study: PhantomStudy) -> Series:
    """The receiver was overdriven: the cisternogram ends at half of its fluid level."""
    level = np.percentile(series["MRC"].array[study_middle(series["MRC"])], 99.0)
    return series | {"MRC": changed(series["MRC"], np.minimum(series["MRC"].array, 0.5 * level))}


def study_middle(volume: Volume) -> tuple[slice, slice, slice]:
    """The inner half of a slab along every axis."""
    k, j, i = (slice(n // 4, 3 * n // 4) for n in volume.array.shape)
    return k, j, i


def thick(series: Series, _study: PhantomStudy) -> Series:
    """Three slices averaged into one of 3 mm, in every series."""
    return {role: averaged(one, (3, 1, 1)) for role, one in series.items()}


def averaged(volume: Volume, blocks: tuple[int, int, int]) -> Volume:
    """Blocks of voxels averaged into one."""
    shape = tuple(n // b for n, b in zip(volume.array.shape, blocks, strict=True))
    k, j, i = shape
    (a, b, c) = blocks
    array = volume.array[: k * a, : j * b, : i * c].reshape(k, a, j, b, i, c).mean(axis=(1, 3, 5))
    index_to_lps = volume.geometry.index_to_lps.copy()
    index_to_lps[:3, :3] *= blocks
    index_to_lps[:3, 3] = volume.geometry.to_lps((np.array(blocks) - 1) / 2.0)
    geometry = VolumeGeometry(
        shape=(k, j, i), index_to_lps=index_to_lps, frame_of_reference_uid=volume.geometry.frame_of_reference_uid
    )
    return Volume(array=array.astype(np.float32), geometry=geometry)


def other_scale(series: Series, _study: PhantomStudy) -> Series:
    """PEI without its rescale slope: half as bright as on PPI's scale."""
    return series | {"PEI": changed(series["PEI"], 0.5 * series["PEI"].array)}


def contrast_above(series: Series, study: PhantomStudy) -> Series:
    """PPI and PEI were planned too high: they end in the middle of the ears."""
    return series | {role: above_middle(series[role], study) for role in ("PPI", "PEI")}


def pei_above(series: Series, study: PhantomStudy) -> Series:
    """PEI alone was planned too high."""
    return series | {"PEI": above_middle(series["PEI"], study)}


def above_middle(volume: Volume, study: PhantomStudy) -> Volume:
    """The slab without what lies below the middle of the ears."""
    first = plane_of_ears(volume, study)
    return volume.crop((first, 0, 0), (volume.array.shape[0] - first, *volume.array.shape[1:]))


def plane_of_ears(volume: Volume, study: PhantomStudy) -> int:
    """Index of the slice through the middle of both ears."""
    middle = np.mean([ear.center_lps_mm for ear in study.truth.ears.values()], axis=0)
    return round(float(volume.geometry.to_index(middle)[0]))


def padded_ppi(series: Series, study: PhantomStudy) -> Series:
    """PPI was reformatted, and what it lacks below the middle of the ears filled up with zeros."""
    return series | {"PPI": padded(series["PPI"], study)}


def padded_hydrops(series: Series, study: PhantomStudy) -> Series:
    """The same of HYDROPS."""
    return series | {"HYDROPS": padded(series["HYDROPS"], study)}


def padded(volume: Volume, study: PhantomStudy) -> Volume:
    """The same slab with zeros, as they are stored, below the middle of the ears."""
    array = np.array(volume.array)
    array[: plane_of_ears(volume, study)] = 0.0
    return changed(volume, array)


def smoothed_before(series: Series, _study: PhantomStudy) -> Series:
    """The console smoothed the cisternogram before it multiplied, so nothing gives HYDROPS back."""
    mrc, product = series["MRC"].array, series["HYDROPS_MI2"]
    smooth = ndimage.gaussian_filter(mrc, (0.3, 0.6, 0.6))
    return series | {"HYDROPS_MI2": changed(product, product.array / np.maximum(mrc, 1e-3) * smooth)}


def someone_else(series: Series, study: PhantomStudy) -> Series:
    """PPI and PEI of another patient."""
    other = make_study(replace(study.options, seed=study.options.seed + 5000))
    return series | {role: other.volumes[role] for role in ("PPI", "PEI")}


def faint(series: Series, study: PhantomStudy) -> Series:
    """Half of weak contrast, T1 3.45 s. Up to there endolymph and perilymph keep their signs, so magnitudes mix."""
    without = make_study(replace(study.options, contrast=ContrastState.NONE))
    mean = {role: 0.5 * (series[role].array + without.volumes[role].array) for role in ("PPI", "PEI")}
    return series | {role: changed(series[role], array) for role, array in mean.items()}


LAST: dict[str, PhantomStudy] = {}
"""The study drawn last: several kinds spoil the same one."""


def drawn(options: PhantomOptions) -> PhantomStudy:
    """A study, drawn again only if it is another than the last one."""
    key = repr(options)
    if key not in LAST:
        LAST.clear()
        LAST[key] = make_study(options)
    return LAST[key]


HYDROPS = ("MRC", "HYDROPS")
NO_EAR = frozenset({"EAR_NOT_FOUND", "CONTENT", "NO_CONTRAST", "CONTRAST_SIGN", "SIDE_UNSURE"})
LITTLE_CONTRAST = frozenset({"NO_CONTRAST", "WEAK_CONTRAST"})
MOVED = frozenset({"REG_POOR", "MOTION", "DISAGREEMENT"})

KINDS = (
    Kind(name="good PPI + PEI", must=Must.MEASURED, options=scanned()),
    Kind(name="good HYDROPS", must=Must.MEASURED, options=scanned(HYDROPS)),
    Kind(
        name="good HYDROPS, offset",
        must=Must.MEASURED,
        options=scanned(HYDROPS, hydrops_coding=HydropsCoding.OFFSET),
    ),
    Kind(name="good HYDROPS-Mi2", must=Must.MEASURED, options=scanned(("MRC", "HYDROPS_MI2"))),
    Kind(name="good 3D-real IR", must=Must.MEASURED, options=scanned(("MRC", "REAL_IR"))),
    Kind(
        name="weak contrast",
        must=Must.WARNED,
        codes=LITTLE_CONTRAST,
        options=scanned(contrast=ContrastState.WEAK),
    ),
    Kind(
        name="faint contrast",
        must=Must.REFUSED,
        codes=LITTLE_CONTRAST,
        options=scanned(contrast=ContrastState.WEAK),
        spoil=faint,
    ),
    Kind(name="no contrast", must=Must.REFUSED, codes=LITTLE_CONTRAST, options=scanned(contrast=ContrastState.NONE)),
    Kind(
        name="no contrast, HYDROPS",
        must=Must.REFUSED,
        codes=LITTLE_CONTRAST,
        options=scanned(HYDROPS, contrast=ContrastState.NONE),
    ),
    Kind(
        name="no contrast, 3D-real IR",
        must=Must.REFUSED,
        codes=LITTLE_CONTRAST,
        options=scanned(("MRC", "REAL_IR"), contrast=ContrastState.NONE),
    ),
    Kind(name="swapped PPI and PEI", must=Must.REFUSED, codes=NO_EAR, options=scanned(), spoil=swapped),
    Kind(
        name="moved 14 mm, 12 degrees",
        must=Must.REFUSED,
        codes=MOVED | NO_EAR,
        options=scanned(motion_mm=14, motion_deg=12),
    ),
    Kind(name="moved during PPI", must=Must.REFUSED, codes=MOVED, options=scanned(), spoil=moved_during("PPI", 4.0)),
    Kind(name="moved during PEI", must=Must.REFUSED, codes=MOVED, options=scanned(), spoil=moved_during("PEI", 4.0)),
    Kind(
        name="moved during 3D-real IR",
        must=Must.REFUSED,
        codes=MOVED,
        options=scanned(("MRC", "REAL_IR")),
        spoil=moved_during("REAL_IR", 4.0),
    ),
    Kind(
        name="moved 3 mm sideways in PPI",
        must=Must.REFUSED,
        codes=MOVED,
        options=scanned(),
        spoil=moved_during("PPI", 3.0, along=COLUMNS),
    ),
    Kind(name="moved during MRC", must=Must.REFUSED, codes=MOVED, options=scanned(), spoil=moved_during("MRC", 4.0)),
    Kind(
        name="moved 3 mm down in MRC",
        must=Must.REFUSED,
        codes=MOVED,
        options=scanned(),
        spoil=moved_during("MRC", 3.0, along=SLICES),
    ),
    Kind(
        name="moved 2 mm during MRC, HYDROPS",
        must=Must.REFUSED,
        codes=MOVED,
        options=scanned(HYDROPS),
        spoil=moved_during("MRC", 2.0, along=COLUMNS),
    ),
    Kind(
        name="moved during MRC, Mi2",
        must=Must.REFUSED,
        codes=MOVED,
        options=scanned(("MRC", "HYDROPS_MI2")),
        spoil=moved_during("MRC", 4.0, share=0.4),
    ),
    Kind(
        name="moved during MRC, 3D-real IR",
        must=Must.REFUSED,
        codes=MOVED,
        options=scanned(("MRC", "REAL_IR")),
        spoil=moved_during("MRC", 3.0),
    ),
    Kind(
        name="moved 2 mm before HYDROPS-Mi2",
        must=Must.REFUSED,
        codes=MOVED,
        options=scanned(("MRC", "HYDROPS_MI2"), motion_mm=2.0, motion_deg=0.0),
        spoil=smoothed_before,
    ),
    Kind(name="another patient's PPI, PEI", must=Must.REFUSED, codes=MOVED, options=scanned(), spoil=someone_else),
    Kind(name="both ears cut off", must=Must.REFUSED, codes=NO_EAR | {"EAR_CUT_OFF"}, options=cut_below),
    Kind(name="left ear cut off", must=Must.EAR_REFUSED, codes=NO_EAR | {"EAR_CUT_OFF"}, options=cut_beside),
    Kind(
        name="both ears cut below their middle",
        must=Must.REFUSED,
        codes=NO_EAR | {"EAR_CUT_OFF"},
        options=cut_through,
    ),
    Kind(
        name="left ear cut beside its middle",
        must=Must.EAR_REFUSED,
        codes=NO_EAR | {"EAR_CUT_OFF", "REG_POOR"},
        options=cut_lateral,
    ),
    Kind(
        name="left ear missing",
        must=Must.EAR_REFUSED,
        codes=NO_EAR,
        options=scanned(ears=frozenset({EarSide.RIGHT})),
    ),
    Kind(name="no ears", must=Must.REFUSED, codes=NO_EAR, options=scanned(ears=frozenset())),
    Kind(
        name="top of the head",
        must=Must.REFUSED,
        codes=NO_EAR,
        options=scanned(slab_shift_mm=(0.0, 0.0, 70.0)),
    ),
    Kind(
        name="inverted HYDROPS",
        must=Must.REFUSED,
        codes=frozenset({"CONTRAST_SIGN"}),
        options=scanned(HYDROPS),
        spoil=inverted,
    ),
    Kind(
        name="magnitude HYDROPS",
        must=Must.REFUSED,
        codes=frozenset({"CONTRAST_SIGN", "CONTRAST_CLIPPED"}),
        options=scanned(HYDROPS),
        spoil=magnitude,
    ),
    Kind(
        name="MRC sent as HYDROPS",
        must=Must.REFUSED,
        codes=frozenset({"CONTRAST_SIGN"}),
        options=scanned(HYDROPS),
        spoil=mrc_twice,
    ),
    Kind(
        name="clipped HYDROPS",
        must=Must.REFUSED,
        codes=frozenset({"CONTRAST_CLIPPED"}),
        options=scanned(HYDROPS, hydrops_coding=HydropsCoding.CLIPPED),
    ),
    Kind(
        name="noise 1.2 of perilymph",
        must=Must.REFUSED,
        codes=frozenset({"LOW_SIGNAL", "REG_POOR", "EAR_NOT_FOUND", "NO_CONTRAST"}),
        options=scanned(contrast_snr=1.2),
    ),
    Kind(
        name="noise 0.3 of MRC fluid",
        must=Must.REFUSED,
        codes=frozenset({"LOW_SIGNAL", "REG_POOR", "EAR_NOT_FOUND"}),
        options=scanned(mrc_snr=3.0),
    ),
    Kind(name="noise only", must=Must.REFUSED, codes=NO_EAR, options=scanned(), spoil=noise_only),
    Kind(
        name="constant PPI and PEI",
        must=Must.REFUSED,
        codes=frozenset({"OUT_OF_DOMAIN"}) | NO_EAR,
        options=scanned(),
        spoil=constant,
    ),
    Kind(
        name="PEI on another scale",
        must=Must.REFUSED,
        codes=NO_EAR | {"OUT_OF_DOMAIN", "WEAK_CONTRAST"},
        options=scanned(),
        spoil=other_scale,
    ),
    Kind(
        name="PPI and PEI end in the ears",
        must=Must.REFUSED,
        codes=NO_EAR | {"EAR_CUT_OFF", "REG_POOR"},
        options=scanned(oblique_deg=(0.0, 0.0, 0.0)),
        spoil=contrast_above,
    ),
    Kind(
        name="PEI alone ends in the ears",
        must=Must.REFUSED,
        codes=NO_EAR | {"EAR_CUT_OFF", "REG_POOR"},
        options=scanned(oblique_deg=(0.0, 0.0, 0.0)),
        spoil=pei_above,
    ),
    Kind(
        name="PPI padded in the ears",
        must=Must.REFUSED,
        codes=NO_EAR | {"EAR_CUT_OFF", "REG_POOR"},
        options=scanned(oblique_deg=(0.0, 0.0, 0.0)),
        spoil=padded_ppi,
    ),
    Kind(
        name="HYDROPS, offset, padded in the ears",
        must=Must.REFUSED,
        codes=NO_EAR | {"EAR_CUT_OFF", "REG_POOR"},
        options=scanned(HYDROPS, hydrops_coding=HydropsCoding.OFFSET, oblique_deg=(0.0, 0.0, 0.0)),
        spoil=padded_hydrops,
    ),
    Kind(
        name="no contrast, voxels of 1.2 mm",
        must=Must.REFUSED,
        codes=LITTLE_CONTRAST,
        options=scanned(contrast=ContrastState.NONE, matrix=(120, 74, 54), spacing_mm=(1.2, 1.2, 1.2)),
    ),
    Kind(
        name="overdriven MRC", must=Must.REFUSED, codes=frozenset({"OUT_OF_DOMAIN"}), options=scanned(), spoil=saturated
    ),
    Kind(name="3 mm slices", must=Must.REFUSED, codes=frozenset({"OUT_OF_DOMAIN"}), options=scanned(), spoil=thick),
)
