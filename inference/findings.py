"""What the node found out about a study: plain records that SEG, SR, JSON and the dashboard are all made from.

Volumes are mm3, ratios 0..1 (per cent only where they are printed). ``None`` means "not known", never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from inference.anatomy import EarSide
from inference.geometry import Volume, VolumeGeometry


class QualityCode(StrEnum):
    """Why a number is doubtful or missing. The sentence for people stands in the flag's `message`."""

    NO_CONTRAST = "NO_CONTRAST"
    WEAK_CONTRAST = "WEAK_CONTRAST"
    CONTRAST_CLIPPED = "CONTRAST_CLIPPED"
    CONTRAST_SIGN = "CONTRAST_SIGN"
    MOTION = "MOTION"
    REGISTRATION_POOR = "REG_POOR"
    EAR_NOT_FOUND = "EAR_NOT_FOUND"
    EAR_CUT_OFF = "EAR_CUT_OFF"
    SIDE_UNSURE = "SIDE_UNSURE"
    CONTENT = "CONTENT"
    VOLUME_IMPLAUSIBLE = "VOLUME_IMPLAUSIBLE"
    ENDOLYMPH_OUTSIDE_FLUID = "ENDOLYMPH_OUTSIDE_FLUID"
    LOW_SIGNAL = "LOW_SIGNAL"
    FRAME_OF_REFERENCE_DIFFERS = "FOR_DIFFERS"
    OUT_OF_DOMAIN = "OUT_OF_DOMAIN"
    DISAGREEMENT = "DISAGREEMENT"
    LOW_CONFIDENCE = "LOW_CONFIDENCE"
    LOW_DEPTH = "LOW_DEPTH"


class Severity(StrEnum):
    """WARN: the number stands, read it with care. STOP: there is no number."""

    WARN = "warn"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class QualityFlag:
    """One remark about quality: a code for machines, a sentence for radiologists, and the value that raised it."""

    code: QualityCode
    severity: Severity
    message: str
    measured: float | None = None
    limit: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class EarROI:
    """One ear's box in patient space: `geometry` is a crop of the MRC grid around the labyrinth.

    `score` is 0..1, how sure the localizer is.
    """

    side: EarSide
    center_lps_mm: tuple[float, float, float]
    geometry: VolumeGeometry
    score: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """A rigid transform of one series to the MRC, and whether we believe it.

    `moving_to_fixed` is (4, 4), LPS mm to LPS mm: fixed_point = moving_to_fixed @ moving_point.
    `translation_mm` is the displacement at the ears' midpoint, `rotation_deg` the total angle.
    `metric_before` and `metric_after` are the similarity (larger is better) with the header geometry and after.
    """

    moving_to_fixed: NDArray[np.float64]
    metric_before: float
    metric_after: float
    translation_mm: float
    rotation_deg: float
    accepted: bool
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class EarImages:
    """What a segmenter sees of one ear; every volume lies on `roi.geometry`, float32, in scanner units.

    `mrc` >= 0, all fluid bright. `hydrops` is SIGNED: perilymph > 0, endolymph < 0, bone about 0.
    `ppi` is present only if the study had one (perilymph bright, endolymph dark, magnitude). `phase_sensitive` says
    that `hydrops` is a real inversion recovery, linear in the mixture, and no difference of two magnitudes;
    `from_product` that it was divided out of a HYDROPS-Mi2; it may be 0 where MRC is dark (`contrast.made_with`).
    `unseen` (bool) is where one of the contrast series shows nothing (`coverage`); None if nobody looked.
    """

    roi: EarROI
    mrc: Volume
    hydrops: Volume
    ppi: Volume | None = None
    phase_sensitive: bool = False
    from_product: bool = False
    unseen: Volume | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class EarFluid:
    """One ear's fluid on `roi.geometry`.

    Fractions are float32 0..1 of each voxel (partial volume), endolymph <= total fluid; numbers come from them.
    Masks are bool, endolymph inside total fluid; the SEG shows them.
    `ratio_half_width` (0..1) is the calibrated half width of the ratio's 95 % interval, if the segmenter knows its own
    error; None if it does not.

    Raises
    ------
    ValueError
        If `ratio_half_width` is not between 0 and 1.
    """

    roi: EarROI
    total_fluid_fraction: Volume
    endolymph_fraction: Volume
    total_fluid_mask: Volume
    endolymph_mask: Volume
    ratio_half_width: float | None = None

    def __post_init__(self) -> None:
        if self.ratio_half_width is not None and not 0.0 <= self.ratio_half_width <= 1.0:
            raise ValueError(f"the half width of a ratio lies between 0 and 1, found {self.ratio_half_width}")


@dataclass(frozen=True, kw_only=True)
class EHRatio:
    """Endolymph volume / total fluid volume of one ear, 0..1, with its 95 % interval [low, high]."""

    endolymph_mm3: float
    total_fluid_mm3: float
    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (0.0 <= self.low <= self.value <= self.high <= 1.0):
            raise ValueError(f"need 0 <= low <= value <= high <= 1, found {self.low}, {self.value}, {self.high}")
        if not self.total_fluid_mm3 > 0:
            raise ValueError(f"a ratio without fluid is undefined; total fluid is {self.total_fluid_mm3} mm3")


@dataclass(frozen=True, kw_only=True)
class SliceRatio:
    """Areas in one slice of the MRC grid; a 2D area ratio, not a grade."""

    slice_index: int
    total_fluid_mm2: float
    endolymph_mm2: float
    ratio: float


@dataclass(frozen=True, kw_only=True)
class LevelRatio:
    """The 2D area ratio of one part of the labyrinth on the slice that shows most of it; not a grade.

    `part` is "vestibule" or "cochlea". If the level cannot be told, `reason` says why and everything else is None.
    `slice_index` counts the slices of the MRC grid from 0.

    Raises
    ------
    ValueError
        If there are both a ratio and a reason for having none, or neither.
    """

    part: str
    slice_index: int | None = None
    total_fluid_mm2: float | None = None
    endolymph_mm2: float | None = None
    ratio: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        numbers = (self.slice_index, self.total_fluid_mm2, self.endolymph_mm2, self.ratio)
        if not (all(one is None for one in numbers) if self.reason else all(one is not None for one in numbers)):
            raise ValueError(
                f"{self.part} level: need either every number or a reason, found {numbers}, {self.reason!r}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class EarFindings:
    """One ear: measured (`ratio` and `fluid` present) or not evaluated (both None, with a STOP flag saying why).

    `images` is what the segmenter saw, for people to look at; None for an ear that was not found.
    `hydrops_before_alignment` is HYDROPS on the same grid where the headers alone put it.
    """

    side: EarSide
    ratio: EHRatio | None
    fluid: EarFluid | None
    slices: tuple[SliceRatio, ...] = ()
    levels: tuple[LevelRatio, ...] = ()
    quality: tuple[QualityFlag, ...] = ()
    images: EarImages | None = None
    hydrops_before_alignment: Volume | None = None

    @property
    def evaluated(self) -> bool:
        """True if this ear has a number."""
        return self.ratio is not None


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which method made the numbers; `sha256` is the digest of its weights, or of its constants.

    `learned` is False for a rule that needed no training; reports must not call such a rule artificial intelligence.
    """

    name: str
    version: str
    sha256: str
    learned: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyFindings:
    """Everything SEG, SR and summary need. `alignments` is keyed by the role name of the moving series."""

    ears: Mapping[EarSide, EarFindings]
    alignments: Mapping[str, Alignment]
    model: ModelIdentity
    quality: tuple[QualityFlag, ...] = ()
    timings_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def computed(self) -> bool:
        """True if at least one ear has a number."""
        return any(ear.evaluated for ear in self.ears.values())
