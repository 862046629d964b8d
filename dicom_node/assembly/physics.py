"""What a series can be, judged from how it was acquired; names and descriptions play no part here.

Typical values, ms (TR / TE / TI): MR cisternography 4400 / 544 / none or 1000 / 133 / none; PPI 9000 / 544 / 2250;
PEI 9000 / 544 / 2050; the improved pair 16000 / 544 / 2700 and 2500; real inversion recovery 15130 / 549 / 2700.
HYDROPS and HYDROPS-Mi2 are made from these, so an image type of DERIVED is what they must look like.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dicom_node.assembly.headers import ENHANCED_MR_CLASSES, MR_IMAGE_STORAGE, SeriesHeader, SeriesRole
from dicom_node.errors import Reason

HEAVY_T2_ECHO_TIME_MS: Final = 300.0
"""PPI and PEI have TE of about 540 ms; a plain 3D-FLAIR (TE 128-134) shows bone as dark as endolymph."""
CISTERNOGRAPHY_ECHO_TIME_MS: Final = 100.0
"""Shortest TE taken as a cisternogram: 133 ms (SPACE) is in use, brain T2 images have 80-100 ms."""
CISTERNOGRAPHY_REPETITION_TIME_MS: Final = 8000.0
"""Longest TR taken as a cisternogram without inversion: 4400 ms is usual, the inversion pair starts at 9000 ms."""
INVERSION_REPETITION_TIME_MS: Final = 5000.0
"""Shortest TR at which an inversion time near 2000 ms can null a fluid."""
FLUID_INVERSION_TIME_MS: Final = (1500.0, 3500.0)
"""Inversion times that null a fluid with T1 of 3-4 s; STIR (150-250 ms) and MPRAGE (900-1100 ms) lie below."""
PAIR_INVERSION_TIMES_MS: Final = ((9000.0, 2050.0, 2250.0), (16000.0, 2500.0, 2700.0))
"""(TR, TI of PEI, TI of PPI) of the classic and the improved pair; between them the dividing TI is interpolated."""
INVERSION_TIME_MARGIN_MS: Final = 30.0
"""A lone series whose TI is closer than this to the dividing one is not called PPI or PEI."""
BALANCED_ECHO_TIME_MS: Final = 10.0
BALANCED_REPETITION_TIME_MS: Final = 20.0
"""CISS, FIESTA-C and their like run with TR 5-12 ms and TE 2-6 ms, as do T1-weighted gradient echoes."""
FINE_IN_PLANE_MM: Final = 0.9
FINE_SLICE_MM: Final = 1.5
"""Coarser than this, a long-TE 3D series is a brain or bile-duct image, not a cisternogram of the ear."""

SUBTRACTION_TYPES: Final = frozenset({"SUBTRACTION", "SUBTRACT", "SUBTRACTED", "SUB"})
PRODUCT_TYPES: Final = frozenset({"MULTIPLICATION", "MULTIPLY", "PRODUCT", "MULT"})
REAL_TYPES: Final = frozenset({"R", "REAL", "R_IR", "REAL_IR", "R_SE", "R_TSE", "PSIR"})
PHASE_TYPES: Final = frozenset({"P", "PHASE", "PHASE MAP", "P_IR", "P_SE", "P_TSE", "PHASE CONTRAST", "I", "IMAGINARY"})
LOCALIZER_TYPES: Final = frozenset({"LOCALIZER", "SCOUT", "SURVEY"})
PROJECTION_TYPES: Final = frozenset(
    {"MPR", "CSA MPR", "MIP", "CSA MIP", "MINIP", "PROJECTION IMAGE", "MAX_IP", "MIN_IP", "REFORMATTED", "RESAMPLED"}
    | {"VOLUME_RENDERED", "CSA BLACK IMAGE", "CPR"}
)
CAPTURE_TYPES: Final = frozenset({"SCREEN SAVE", "SCREENSAVE", "SCREEN CAPTURE", "CSA REPORT", "REPORT"})
DIFFUSION_TYPES: Final = frozenset({"DIFFUSION", "ADC", "TRACEW", "FA", "EADC", "DWI", "TENSOR", "DIFFUSION_ANISO"})
MAP_TYPES: Final = frozenset({"T1", "T2", "T2_STAR", "B0", "B1", "FIELD MAP", "PERFUSION", "CBF", "T1 MAP", "T2 MAP"})
OTHER_BODY_PARTS: Final = frozenset(
    {"ABDOMEN", "BREAST", "CHEST", "CSPINE", "TSPINE", "LSPINE", "SPINE", "PELVIS", "PROSTATE", "LIVER", "PANCREAS"}
    | {"KIDNEY", "HEART", "UTERUS", "KNEE", "HIP", "ANKLE", "FOOT", "SHOULDER", "ELBOW", "WRIST", "HAND", "LEG", "ARM"}
)

DERIVED_ROLES: Final = (SeriesRole.HYDROPS, SeriesRole.HYDROPS_MI2)
EVERY_ROLE: Final = tuple(role for role in SeriesRole if role is not SeriesRole.OTHER)


@dataclass(frozen=True, kw_only=True)
class PhysicsVerdict:
    """The roles that the acquisition allows.

    `certain` means the one role in `roles` stands. Otherwise a site rule may choose among `roles`, and, where
    `names_may_decide`, the names given by people may. `doubt` says why this may be more than an unrelated series.
    """

    roles: tuple[SeriesRole, ...]
    rule: str
    reason: str
    certain: bool = False
    names_may_decide: bool = False
    doubt: Reason | None = None


def judge_physics(header: SeriesHeader) -> PhysicsVerdict:
    """What `header` can be by TR, TE, TI, dimension, resolution and image type."""
    for rule, applies, sentence in _EXCLUSIONS:
        if applies(header):
            return PhysicsVerdict(roles=(SeriesRole.OTHER,), rule=rule, reason=sentence, certain=True)
    if is_subtraction_or_product(header):
        return _judge_derived(header)
    if is_real_part(header):
        return _judge_real_part(header)
    if is_inversion_recovery(header):
        return _judge_derived(header) if is_derived(header) else _judge_inversion(header)
    return _judge_without_inversion(header)


def acquisition(header: SeriesHeader) -> str:
    """TR, TE, TI and dimension in words, for reasons."""
    times = (("TR", header.repetition_time_ms), ("TE", header.echo_time_ms), ("TI", header.inversion_time_ms))
    words = [f"{name} {value:g} ms" if value is not None else f"no {name}" for name, value in times]
    return ", ".join([*words, {True: "3D", False: "2D", None: "2D or 3D not stated"}[header.acquisition_3d]])


def is_derived(header: SeriesHeader) -> bool:
    """True if the image type's first value is DERIVED."""
    return header.image_type[:1] == ("DERIVED",)


def is_subtraction_or_product(header: SeriesHeader) -> bool:
    """True if the image type says that images were subtracted or multiplied."""
    return bool(set(header.image_type) & (SUBTRACTION_TYPES | PRODUCT_TYPES))


def is_real_part(header: SeriesHeader) -> bool:
    """True if the pixels are the signed real part of the complex image."""
    return header.complex_image_component == "REAL" or bool(set(header.image_type[2:]) & REAL_TYPES)


def is_inversion_recovery(header: SeriesHeader) -> bool:
    """True if an inversion time or an IR scanning sequence is stated."""
    return header.inversion_time_ms is not None or "IR" in header.scanning_sequence


def dividing_inversion_time_ms(repetition_time_ms: float) -> float:
    """The TI between PEI (below) and PPI (above) at this TR; longer TR needs longer TI to null the same fluid."""
    (low_tr, *low_pair), (high_tr, *high_pair) = PAIR_INVERSION_TIMES_MS
    low, high = sum(low_pair) / 2, sum(high_pair) / 2
    return low + (high - low) * (repetition_time_ms - low_tr) / (high_tr - low_tr)


def _judge_inversion(header: SeriesHeader) -> PhysicsVerdict:
    """An original magnitude image after inversion: PPI or PEI if it is heavily T2-weighted and TI fits."""
    ti, te, tr = header.inversion_time_ms, header.echo_time_ms, header.repetition_time_ms
    if te is not None and te < HEAVY_T2_ECHO_TIME_MS:
        return _unknown("inversion recovery, but not heavily T2-weighted", header)
    if ti is None:
        return PhysicsVerdict(
            roles=(SeriesRole.PPI, SeriesRole.PEI, SeriesRole.REAL_IR),
            rule="inversion-time-missing",
            reason=f"inversion recovery without one inversion time ({acquisition(header)}): PPI and PEI differ in "
            "nothing else, so the series is not guessed",
            doubt=Reason.ROLE_UNSURE,
        )
    if not FLUID_INVERSION_TIME_MS[0] <= ti <= FLUID_INVERSION_TIME_MS[1]:
        return _unknown("inversion recovery, but the inversion time nulls no inner-ear fluid", header)
    if tr is not None and tr < INVERSION_REPETITION_TIME_MS:
        return _unknown("inversion recovery, but the repetition time is too short for this inversion time", header)
    return _ppi_or_pei(header, ti, tr if te is not None else None)


def _ppi_or_pei(header: SeriesHeader, ti: float, tr: float | None) -> PhysicsVerdict:
    if tr is None or abs(ti - dividing_inversion_time_ms(tr)) < INVERSION_TIME_MARGIN_MS:
        return PhysicsVerdict(
            roles=(SeriesRole.PPI, SeriesRole.PEI),
            rule="inversion-time",
            reason=f"inversion recovery ({acquisition(header)}) that fits both PPI and PEI",
            doubt=Reason.ROLE_UNSURE,
        )
    role = SeriesRole.PPI if ti > dividing_inversion_time_ms(tr) else SeriesRole.PEI
    dark = "endolymph" if role is SeriesRole.PPI else "perilymph with contrast agent"
    return PhysicsVerdict(
        roles=(role,),
        rule="inversion-time",
        reason=f"heavily T2-weighted inversion recovery ({acquisition(header)}) whose inversion time nulls {dark}",
        certain=True,
    )


def _judge_real_part(header: SeriesHeader) -> PhysicsVerdict:
    """A signed image: real inversion recovery if an inversion that nulls a fluid stands behind it."""
    ti, te = header.inversion_time_ms, header.echo_time_ms
    low, high = FLUID_INVERSION_TIME_MS
    fits = ti is not None and low <= ti <= high and (te is None or te >= CISTERNOGRAPHY_ECHO_TIME_MS)
    if not fits:
        doubt = Reason.ROLE_UNSURE if ti is None and is_inversion_recovery(header) else None
        return PhysicsVerdict(
            roles=(SeriesRole.REAL_IR,),
            rule="real-part",
            reason=f"real-part image, but the inversion does not fit real inversion recovery ({acquisition(header)})",
            doubt=doubt,
        )
    return PhysicsVerdict(
        roles=(SeriesRole.REAL_IR,),
        rule="real-part",
        reason=f"signed real-part image after an inversion that nulls a fluid ({acquisition(header)})",
        certain=True,
    )


def _judge_derived(header: SeriesHeader) -> PhysicsVerdict:
    """A computed image: HYDROPS is a difference, HYDROPS-Mi2 that difference times the cisternogram."""
    if header.echo_time_ms is not None and header.echo_time_ms < CISTERNOGRAPHY_ECHO_TIME_MS:
        return _unknown("computed image, but not from heavily T2-weighted ones", header)
    if set(header.image_type) & PRODUCT_TYPES:
        return PhysicsVerdict(
            roles=(SeriesRole.HYDROPS_MI2,),
            rule="image-type-product",
            reason="the image type says that images were multiplied",
            certain=True,
        )
    subtraction = bool(set(header.image_type) & SUBTRACTION_TYPES)
    what = "the image type says that images were subtracted" if subtraction else "a computed image after inversion"
    return PhysicsVerdict(
        roles=DERIVED_ROLES,
        rule="image-type-subtraction" if subtraction else "derived-after-inversion",
        reason=f"{what} ({acquisition(header)})",
        names_may_decide=True,
        doubt=Reason.ROLE_UNSURE,
    )


def _judge_without_inversion(header: SeriesHeader) -> PhysicsVerdict:
    te, tr = header.echo_time_ms, header.repetition_time_ms
    if te is None or tr is None:
        return PhysicsVerdict(
            roles=EVERY_ROLE,
            rule="times-missing",
            reason=f"repetition or echo time is missing ({acquisition(header)}), so the contrast is unknown",
            doubt=Reason.ROLE_UNSURE,
        )
    if te <= BALANCED_ECHO_TIME_MS and tr <= BALANCED_REPETITION_TIME_MS and is_fine(header):
        return PhysicsVerdict(
            roles=(SeriesRole.MRC,),
            rule="balanced-gradient-echo",
            reason=f"fine 3D gradient echo ({acquisition(header)}): balanced (CISS, FIESTA) or T1-weighted",
            names_may_decide=True,
        )
    if te < CISTERNOGRAPHY_ECHO_TIME_MS or not is_fine(header):
        return _unknown("neither a fine heavily T2-weighted 3D series nor inversion recovery", header)
    return _judge_long_echo(header, tr)


def _judge_long_echo(header: SeriesHeader, tr: float) -> PhysicsVerdict:
    if is_derived(header):
        return PhysicsVerdict(
            roles=(SeriesRole.MRC, *DERIVED_ROLES),
            rule="derived-without-inversion",
            reason=f"computed heavily T2-weighted image without inversion time ({acquisition(header)})",
            names_may_decide=True,
            doubt=Reason.ROLE_UNSURE,
        )
    if tr > CISTERNOGRAPHY_REPETITION_TIME_MS:
        return PhysicsVerdict(
            roles=EVERY_ROLE,
            rule="inversion-time-missing",
            reason=f"repetition time of an inversion recovery, but no inversion time ({acquisition(header)})",
            doubt=Reason.ROLE_UNSURE,
        )
    return PhysicsVerdict(
        roles=(SeriesRole.MRC,),
        rule="heavy-t2",
        reason=f"fine, heavily T2-weighted 3D series without inversion ({acquisition(header)})",
        certain=True,
    )


def is_fine(header: SeriesHeader) -> bool:
    """True unless the first plane is too coarse to show a labyrinth."""
    frame = header.frames[0]
    thin = frame.slice_thickness_mm is None or frame.slice_thickness_mm <= FINE_SLICE_MM
    return thin and (frame.pixel_spacing_mm is None or max(frame.pixel_spacing_mm) <= FINE_IN_PLANE_MM)


def _unknown(what: str, header: SeriesHeader) -> PhysicsVerdict:
    """No known fingerprint: unrelated, unless a site rule knows better."""
    return PhysicsVerdict(roles=EVERY_ROLE, rule="no-known-contrast", reason=f"{what} ({acquisition(header)})")


def _has(types: frozenset[str]) -> Callable[[SeriesHeader], bool]:
    return lambda header: bool(set(header.image_type) & types)


def _is_phase(header: SeriesHeader) -> bool:
    return header.complex_image_component in {"PHASE", "IMAGINARY"} or bool(set(header.image_type[2:]) & PHASE_TYPES)


_EXCLUSIONS: Final[tuple[tuple[str, Callable[[SeriesHeader], bool], str], ...]] = (
    (
        "not-an-mr-image",
        lambda header: header.sop_class_uid not in {MR_IMAGE_STORAGE, *ENHANCED_MR_CLASSES},
        "not an MR image (another kind of object, such as a screen capture, segmentation or report)",
    ),
    ("localizer", _has(LOCALIZER_TYPES), "the image type says localizer"),
    ("screen-capture", _has(CAPTURE_TYPES), "the image type says screen capture"),
    ("projection", _has(PROJECTION_TYPES), "the image type says projection or reformatted image (MIP, MPR)"),
    ("diffusion", lambda header: header.diffusion or _has(DIFFUSION_TYPES)(header), "diffusion-weighted image or map"),
    ("phase", _is_phase, "phase or imaginary image"),
    ("parameter-map", _has(MAP_TYPES), "computed map of a tissue parameter"),
    ("two-dimensional", lambda header: header.acquisition_3d is False, "2D acquisition; every series we use is 3D"),
    (
        "other-body-part",
        lambda header: header.body_part.upper().replace(" ", "") in OTHER_BODY_PARTS,
        "the examined body part is not the head",
    ),
)
