"""The story: volumes in, findings out. One named step per line, no I/O, no DICOM.

    check the images -> read the contrast -> find both ears -> align every series to the MRC -> bring it onto the ears'
    grids -> segment the fluid -> ask the method without training too -> measure each ear -> keep what people look at

What comes before (series to volumes) and after (findings to SEG and SR) is `casework`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from dicom_node.assembly.headers import SeriesRole
from dicom_node.errors import Reason, Refusal, RejectedStudy
from inference.anatomy import EarSide
from inference.cisternogram_motion import check_cisternogram
from inference.contrast import (
    ContrastCoding,
    fluid_level,
    hydrops_from_mi2,
    hydrops_from_ppi_pei,
    hydrops_mi2,
    made_with,
    read_signed,
)
from inference.coverage import unseen
from inference.domain import check_series
from inference.double_image import check_double_image
from inference.findings import (
    Alignment,
    EarFindings,
    EarFluid,
    EarImages,
    EarROI,
    QualityCode,
    QualityFlag,
    Severity,
    StudyFindings,
)
from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.localization import EarSearch, FirstLook, around_ears, first_look, locate_ears
from inference.mirroring import compare_with_mirror
from inference.perilymph_search import SEARCH_MM
from inference.product_motion import check_product
from inference.quantification import measure_ear
from inference.registration import RegistrationOptions, align, align_roughly
from inference.resampling import Interpolation, coarsen, resample, resample_where
from inference.segmentation import FluidSegmenter, ThresholdSegmenter

Volumes = Mapping[SeriesRole, Volume]

ALIGNMENT_ORDER: Final = (
    SeriesRole.PEI,
    SeriesRole.PPI,
    SeriesRole.HYDROPS,
    SeriesRole.HYDROPS_MI2,
    SeriesRole.REAL_IR,
)
"""PEI before PPI: cerebrospinal fluid is bright on PEI and steers it; PPI shows perilymph alone and starts from PEI."""


SIGNED_ROLES: Final = frozenset({SeriesRole.HYDROPS, SeriesRole.HYDROPS_MI2, SeriesRole.REAL_IR})
"""Perilymph above zero, endolymph below; PPI and PEI are magnitudes."""


class StepTimer:
    """Names the running step to whoever listens and keeps the seconds each step took."""

    def __init__(
        self,
        clock: Callable[[], float],
        on_step: Callable[[str], None] = lambda _name: None,
        on_done: Callable[[str, float], None] = lambda _name, _seconds: None,
    ) -> None:
        self._clock = clock
        self._on_step = on_step
        self._on_done = on_done
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block as step `name`."""
        self._on_step(name)
        begin = self._clock()
        yield
        self.seconds[name] = round(self._clock() - begin, 3)
        self._on_done(name, self.seconds[name])


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """What a site may choose about the measurement."""

    registration: RegistrationOptions = field(default_factory=RegistrationOptions)


def measure_study(
    volumes: Volumes, *, segmenter: FluidSegmenter, options: PipelineOptions, step: StepTimer
) -> StudyFindings:
    """Both ears' fluid volumes and EH ratios, with the reasons where there is no number.

    Parameters
    ----------
    volumes
        Physical values of the MRC and of one accepted contrast set, each on its own grid.

    Raises
    ------
    RejectedStudy
        If no ear got a number, or a series could not be read or aligned; the refusals say why.
    """
    mrc = volumes[SeriesRole.MRC]
    with step("check images"):
        doubts = check_images(volumes)
    with step("read contrast"):
        readable = read_contrast(volumes)
    with step("find ears"):
        search = find_ears(mrc, readable)
    with step("read contrast at the ears"):
        contrast = read_contrast(volumes, search.rois.values())
    with step("align series"):
        alignments = align_series(contrast, mrc, search, options)
        refuse_mirrored(contrast, mrc, search, alignments)
    with step("crop ears"):
        images = [ear_images(roi, mrc, contrast, alignments) for roi in search.rois.values()]
    with step("segment fluid"):
        fluids = segmenter.segment(images)
    with step("ask for a second opinion"):
        opinions = second_opinions(images, segmenter)
    with step("measure"):
        level = fluid_level(mrc)
        remarks = remarks_of_ears(search, motion_remarks(images, fluids, contrast, volumes))
        ears = [measure(*ear, mrc, remarks, level) for ear in zip(images, fluids, opinions, strict=True)]
    with step("keep pictures"):
        ears = [with_pictures(*ear, contrast) for ear in zip(ears, images, strict=True)]
    findings = StudyFindings(
        ears=with_missing_ears(ears, search),
        alignments={role.value: alignment for role, alignment in alignments.items()},
        model=segmenter.identity,
        quality=(*doubts, *study_remarks(search)),
        timings_s=step.seconds,
    )
    require_alignment(findings)
    require_a_number(findings)
    return findings


def check_images(volumes: Volumes) -> tuple[QualityFlag, ...]:
    """Remarks on series that differ from what the methods were made for.

    Raises
    ------
    RejectedStudy
        OUT_OF_DOMAIN, naming the series: values that are no numbers, no content, voxels too thick.
    """
    flags = tuple(flag for role, volume in volumes.items() for flag in check_series(role.value, volume))
    if any(flag.severity is Severity.STOP for flag in flags):
        raise RejectedStudy(*_refusals(flags, fallback=Reason.OUT_OF_DOMAIN))
    return flags


def read_contrast(volumes: Volumes, ears: Iterable[EarROI] | None = None) -> dict[SeriesRole, Volume]:
    """The contrast series with signed values restored; magnitude series (PPI, PEI) as they are.

    A HYDROPS-Mi2 becomes the HYDROPS that was multiplied, still where it was acquired.

    Before the ears are known (None) a series whose sign is still unsure is left out; afterwards it is refused.

    Raises
    ------
    RejectedStudy
        CONTRAST_CLIPPED or CONTRAST_SIGN, naming the series.
    """
    mrc = volumes[SeriesRole.MRC]
    contrast = {role: volumes[role] for role in ALIGNMENT_ORDER if role in volumes}
    for role in SIGNED_ROLES & contrast.keys():
        reading = read_signed(contrast[role], mrc, ears=tuple(ears or ()))
        if reading.volume is not None:
            product = role is SeriesRole.HYDROPS_MI2
            contrast[role] = hydrops_from_mi2(reading.volume, mrc) if product else reading.volume
        elif ears is None and reading.coding is ContrastCoding.UNSURE:
            del contrast[role]
        else:
            clipped = reading.coding is ContrastCoding.CLIPPED
            reason = Reason.CONTRAST_CLIPPED if clipped else Reason.CONTRAST_SIGN
            raise RejectedStudy(Refusal(reason=reason, detail=f"{role}: {reading.reason}"))
    return contrast


def find_ears(mrc: Volume, contrast: Volumes) -> EarSearch:
    """Both ears' boxes; the contrast is used where the headers put it, before registration, no finer than searched."""
    seen = first_look(mrc)
    hydrops = _coarse_hydrops(seen, contrast) if contrast and seen else None
    search = locate_ears(mrc, hydrops, seen=seen)
    if not search.rois:
        raise RejectedStudy(*_refusals(search.quality, fallback=Reason.EAR_NOT_FOUND))
    return search


def _coarse_hydrops(seen: FirstLook, contrast: Volumes) -> Volume:
    """Signed HYDROPS on the search grid; where ears may be, as exactly as at the ears later on."""
    grid = seen.maps.volume(seen.maps.mrc)
    near = around_ears(seen.proposals, grid.geometry)
    coarsened = {role: coarsen(volume, SEARCH_MM) for role, volume in contrast.items()}
    brought = together(coarsened)
    on_grid = {}
    for role, coarse in coarsened.items():
        alignment = brought.get(role)
        if alignment is None or not alignment.accepted:
            on_grid[role] = resample(coarse, grid.geometry)
        else:
            on_grid[role] = resample_where(coarse, grid.geometry, near, moving_to_fixed=alignment.moving_to_fixed)
    return _hydrops(on_grid)


def together(contrast: Volumes) -> dict[SeriesRole, Alignment]:
    """PEI brought to PPI, roughly: subtracted as they are, a patient who moved between them leaves false perilymph."""
    if SeriesRole.PPI not in contrast or SeriesRole.PEI not in contrast:
        return {}
    return {SeriesRole.PEI: align_roughly(contrast[SeriesRole.PEI], contrast[SeriesRole.PPI])}


def align_series(
    contrast: Volumes, mrc: Volume, search: EarSearch, options: PipelineOptions
) -> dict[SeriesRole, Alignment]:
    """The rigid alignment of every contrast series to the MRC, believed or not; `require_alignment` decides later."""
    alignments: dict[SeriesRole, Alignment] = {}
    ears = tuple(search.rois.values())
    for role, moving in contrast.items():
        start = alignments.get(SeriesRole.PEI)
        alignments[role] = align(moving, mrc, ears, options=options.registration, start=start)
    return alignments


def refuse_mirrored(
    contrast: Volumes, mrc: Volume, search: EarSearch, alignments: Mapping[SeriesRole, Alignment]
) -> None:
    """Refuse a study in which a series fits the MRC with right and left exchanged: an ear would get the other's number.

    Also where it was not aligned: that the patient moved would then be the wrong thing to say.
    """
    refusals = []
    for role, moving in contrast.items():
        seen = compare_with_mirror(moving, mrc, tuple(search.rois.values()), alignments[role])
        if seen is not None and seen.is_mirrored:
            detail = (
                f"{role}: with right and left exchanged it fits the MRC better (similarity {seen.mirrored:.3f}) than "
                f"as it is ({seen.as_it_is:.3f}); one of the two was mirrored after the scan"
            )
            refusals.append(Refusal(reason=Reason.SIDE_UNSURE, detail=detail))
    if refusals:
        raise RejectedStudy(*refusals)


def ear_images(roi: EarROI, mrc: Volume, contrast: Volumes, alignments: Mapping[SeriesRole, Alignment]) -> EarImages:
    """Everything a segmenter needs of one ear, on the ear's crop of the MRC grid."""
    own = mrc.crop(_first_index(roi, mrc), roi.geometry.shape)
    on_grid = _onto_grid(own, contrast, alignments)
    return EarImages(
        roi=roi,
        mrc=own,
        hydrops=_hydrops(on_grid),
        phase_sensitive=SeriesRole.REAL_IR in contrast,
        from_product=SeriesRole.HYDROPS_MI2 in contrast,
        ppi=on_grid.get(SeriesRole.PPI),
        unseen=_unseen(own.geometry, contrast, alignments),
    )


def _unseen(grid: VolumeGeometry, contrast: Volumes, alignments: Mapping[SeriesRole, Alignment]) -> Volume | None:
    """Where one of the contrast series shows nothing; an ear is judged only where all do.

    None for what was divided out of a product: that is 0 where the MRC was dark, which is no padding.
    """
    if SeriesRole.HYDROPS_MI2 in contrast:
        return None
    nothing = [
        unseen(volume, grid, moving_to_fixed=_believed(alignments.get(role))) for role, volume in contrast.items()
    ]
    return Volume(array=np.logical_or.reduce(nothing), geometry=grid)


def second_opinions(images: Sequence[EarImages], segmenter: FluidSegmenter) -> Sequence[EarFluid | None]:
    """Each ear's fluid by the method without training, to hold a network's against; None if that method was asked."""
    return ThresholdSegmenter().segment(images) if segmenter.identity.learned else [None] * len(images)


def motion_remarks(
    images: Sequence[EarImages], fluids: Sequence[EarFluid], contrast: Volumes, volumes: Volumes
) -> dict[EarSide, tuple[QualityFlag, ...]]:
    """Motion that no alignment mends, by ear: during a series, and inside a HYDROPS-Mi2 that nothing gives back."""
    of_both = (*check_cisternogram(images), *check_double_image(list(zip(images, fluids, strict=True))))
    of_one: Mapping[EarSide, tuple[QualityFlag, ...]] = {}
    mrc, divided = volumes[SeriesRole.MRC], contrast.get(SeriesRole.HYDROPS_MI2)
    if divided is not None and not made_with(volumes[SeriesRole.HYDROPS_MI2], mrc):
        product = hydrops_mi2(divided, resample(mrc, divided.geometry))
        of_one = check_product(product, mrc, [ear.roi for ear in images])
    return {ear.roi.side: (*of_both, *of_one.get(ear.roi.side, ())) for ear in images}


def remarks_of_ears(
    search: EarSearch, motion: Mapping[EarSide, tuple[QualityFlag, ...]]
) -> dict[EarSide, tuple[QualityFlag, ...]]:
    """What the search and the looks for motion remarked, by ear."""
    return {side: (*search.by_side.get(side, ()), *motion.get(side, ())) for side in EarSide}


def measure(
    images: EarImages,
    fluid: EarFluid,
    unlearned: EarFluid | None,
    mrc: Volume,
    remarks: Mapping[EarSide, tuple[QualityFlag, ...]],
    slab_fluid_level: float,
) -> EarFindings:
    """One ear's numbers, its slices counted on the whole MRC, with what was already remarked about it."""
    return measure_ear(
        images,
        fluid,
        first_slice=_first_index(images.roi, mrc)[0],
        remarks=remarks.get(images.roi.side, ()),
        slab_fluid_level=slab_fluid_level,
        unlearned=unlearned,
    )


def with_pictures(ear: EarFindings, images: EarImages, contrast: Volumes) -> EarFindings:
    """The ear with what people look at: its images, and the contrast as it lay before it was aligned."""
    return replace(ear, images=images, hydrops_before_alignment=hydrops_on(images.mrc, contrast, {}))


def _first_index(roi: EarROI, mrc: Volume) -> tuple[int, int, int]:
    """Where the ear's box begins on the MRC grid; it lies on whole voxels by construction."""
    k, j, i = np.rint(mrc.geometry.to_index(roi.geometry.to_lps((0, 0, 0)))).astype(int).tolist()
    return k, j, i


def hydrops_on(mrc: Volume, contrast: Volumes, alignments: Mapping[SeriesRole, Alignment]) -> Volume:
    """Signed HYDROPS on the grid of `mrc`, computed from whatever the accepted set has."""
    return _hydrops(_onto_grid(mrc, contrast, alignments))


def _onto_grid(mrc: Volume, contrast: Volumes, alignments: Mapping[SeriesRole, Alignment]) -> dict[SeriesRole, Volume]:
    """Every contrast series on the grid of `mrc`."""
    return {role: _onto(mrc, role, volume, alignments) for role, volume in contrast.items()}


def _hydrops(on_grid: Volumes) -> Volume:
    """Signed HYDROPS from series that lie on one grid; a product was divided already (`read_contrast`)."""
    if SeriesRole.PPI in on_grid and SeriesRole.PEI in on_grid:
        return hydrops_from_ppi_pei(on_grid[SeriesRole.PPI], on_grid[SeriesRole.PEI])
    (signed,) = (on_grid[role] for role in SIGNED_ROLES & on_grid.keys())
    return signed


def _onto(mrc: Volume, role: SeriesRole, volume: Volume, alignments: Mapping[SeriesRole, Alignment]) -> Volume:
    """One series on the grid of `mrc`: by its alignment if there is one to believe, by the headers otherwise."""
    moving_to_fixed = _believed(alignments.get(role))
    if moving_to_fixed is None:
        return resample(volume, mrc.geometry)
    return resample(volume, mrc.geometry, moving_to_fixed=moving_to_fixed, interpolation=Interpolation.BSPLINE)


def _believed(alignment: Alignment | None) -> FloatArray | None:
    """The transform of an alignment that was accepted; None leaves a series where the headers put it."""
    return alignment.moving_to_fixed if alignment is not None and alignment.accepted else None


def with_missing_ears(ears: Iterable[EarFindings], search: EarSearch) -> dict[EarSide, EarFindings]:
    """Both sides, right first; a side that was not found is "not evaluated", never a zero volume."""
    found = {ear.side: ear for ear in ears}
    return {
        side: found.get(side)
        or EarFindings(side=side, ratio=None, fluid=None, quality=tuple(search.by_side.get(side, ())))
        for side in (EarSide.RIGHT, EarSide.LEFT)
    }


def study_remarks(search: EarSearch) -> tuple[QualityFlag, ...]:
    """What holds for the whole study: remarks of neither ear."""
    of_an_ear = {flag for flags in search.by_side.values() for flag in flags}
    return tuple(flag for flag in search.quality if flag not in of_an_ear)


def require_alignment(findings: StudyFindings) -> None:
    """Refuse a study in which a series could not be aligned, unless the reason lies deeper: no contrast agent.

    Without contrast agent PPI shows next to nothing to align on; "the patient moved" would then send the reader
    the wrong way.
    """
    poor = [(role, alignment) for role, alignment in findings.alignments.items() if not alignment.accepted]
    if not poor:
        return
    flags = [flag for ear in findings.ears.values() for flag in ear.quality if flag.code is QualityCode.NO_CONTRAST]
    refusals = [Refusal(reason=Reason.REG_POOR, detail=f"{role}: {alignment.reason}") for role, alignment in poor]
    raise RejectedStudy(*(_refusals(flags, fallback=Reason.NO_CONTRAST) if flags else []), *refusals)


def require_a_number(findings: StudyFindings) -> None:
    """Refuse a study in which neither ear could be measured, with every ear's reason."""
    if findings.computed:
        return
    flags = [flag for ear in findings.ears.values() for flag in ear.quality if flag.severity is Severity.STOP]
    raise RejectedStudy(*_refusals(flags, fallback=Reason.NO_EAR_MEASURED))


def _refusals(flags: Iterable[QualityFlag], *, fallback: Reason) -> list[Refusal]:
    """One refusal per distinct STOP flag, in order; at least one."""
    found = [
        Refusal(reason=Reason(flag.code.value), detail=flag.message) for flag in flags if flag.severity is Severity.STOP
    ]
    return list(dict.fromkeys(found)) or [Refusal(reason=fallback, detail=fallback.sentence)]
