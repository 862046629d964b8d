"""One exception tree, and the one list of reasons.

    NodeError
    ├── RejectedStudy      explain and stop: becomes a "not computed" report
    ├── UnusableInput      nothing here that we could even explain in a report (no MR images, unreadable folder)
    ├── ConfigError        refuse to start; names the key
    ├── TransientError     try again later (peer down, disk full, database busy)
    └── OutputMismatch     a written object does not say what the arrays say: never released

Anything else is our bug: let it fly. Messages name UID, expected and found; never a patient's name or ID.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a study, series or ear got no number. The value is the code in logs, findings.json and the SR.

    The B numbers are the cases of the bad-input list in docs/bad-input.md.
    """

    # One value is not a legal DICOM value (B05, B60)
    TAG_INVALID = "TAG_INVALID"
    # Geometry (B06, B28-B41)
    GEOM_MISSING = "GEOM_MISSING"
    GEOM_NONFINITE = "GEOM_NONFINITE"
    FOR_MISSING = "FOR_MISSING"
    FOR_MIXED = "FOR_MIXED"
    FOR_DIFFERS = "FOR_DIFFERS"
    ORIENT_MIXED = "ORIENT_MIXED"
    ORIENT_INVALID = "ORIENT_INVALID"
    SLICE_GAP = "SLICE_GAP"
    SLICE_DUP = "SLICE_DUP"
    SPACING = "SPACING"
    SHEAR = "SHEAR"
    MATRIX_MIXED = "MATRIX_MIXED"
    # Pixels (B12-B15, B24-B27)
    PIXEL_LENGTH = "PIXEL_LENGTH"
    PIXEL_FORMAT = "PIXEL_FORMAT"
    PIXEL_MISSING = "PIXEL_MISSING"
    DECODE = "DECODE"
    LOSSY = "LOSSY"
    TS_UNSUPPORTED = "TS_UNSUPPORTED"
    ENHANCED_UNSUPPORTED = "ENHANCED_UNSUPPORTED"
    SIZE_LIMIT = "SIZE_LIMIT"
    # Identity (B42-B46, B59)
    PATIENT_MISMATCH = "PATIENT_MISMATCH"
    PATIENT_UNKNOWN = "PATIENT_UNKNOWN"
    CONFLICT = "CONFLICT"
    SOURCE_CORRUPT = "SOURCE_CORRUPT"
    # Which series is which (B47-B52)
    PARTNER_MISSING = "PARTNER_MISSING"
    INCOMPLETE = "INCOMPLETE"
    AMBIGUOUS = "AMBIGUOUS"
    ROLE_UNSURE = "ROLE_UNSURE"
    NO_HYDROPS_STUDY = "NO_HYDROPS_STUDY"
    CONTRAST_CLIPPED = "CONTRAST_CLIPPED"
    # What the pixels say (B41, B53-B57)
    REG_POOR = "REG_POOR"
    NO_EAR_MEASURED = "NO_EAR_MEASURED"
    CONTENT = "CONTENT"
    # ... of one ear; the same codes as `inference.findings.QualityCode`
    NO_CONTRAST = "NO_CONTRAST"
    WEAK_CONTRAST = "WEAK_CONTRAST"
    CONTRAST_SIGN = "CONTRAST_SIGN"
    MOTION = "MOTION"
    EAR_NOT_FOUND = "EAR_NOT_FOUND"
    EAR_CUT_OFF = "EAR_CUT_OFF"
    SIDE_UNSURE = "SIDE_UNSURE"
    VOLUME_IMPLAUSIBLE = "VOLUME_IMPLAUSIBLE"
    ENDOLYMPH_OUTSIDE_FLUID = "ENDOLYMPH_OUTSIDE_FLUID"
    LOW_SIGNAL = "LOW_SIGNAL"
    OUT_OF_DOMAIN = "OUT_OF_DOMAIN"
    DISAGREEMENT = "DISAGREEMENT"
    LOW_CONFIDENCE = "LOW_CONFIDENCE"
    LOW_DEPTH = "LOW_DEPTH"
    OUTPUT_MISMATCH = "OUTPUT_MISMATCH"
    # A person's or the node's own decision
    CANCELED = "CANCELED"
    BEGUN_ON_REQUEST = "BEGUN_ON_REQUEST"
    INTERNAL = "INTERNAL"

    @property
    def sentence(self) -> str:
        """One sentence a radiologist can read without knowing the code."""
        return _SENTENCES[self]

    @property
    def next_step(self) -> str:
        """What the reader, or whoever runs scanner and node, can do about it."""
        return _NEXT_STEPS[self]


_SENTENCES: dict[Reason, str] = {
    Reason.TAG_INVALID: "An image attribute that we depend on has an illegal value.",
    Reason.GEOM_MISSING: "An image does not say where it lies in the patient.",
    Reason.GEOM_NONFINITE: "An image position or orientation is not a finite number.",
    Reason.FOR_MISSING: "The series does not name its frame of reference.",
    Reason.FOR_MIXED: "Images of one series use different frames of reference.",
    Reason.FOR_DIFFERS: "The series do not share a frame of reference and could not be brought together.",
    Reason.ORIENT_MIXED: "Images of one series have different orientations.",
    Reason.ORIENT_INVALID: "The image orientation is not a pair of perpendicular unit vectors.",
    Reason.SLICE_GAP: "One or more slices are missing.",
    Reason.SLICE_DUP: "Two or more slices lie at the same position and cannot be told apart.",
    Reason.SPACING: "The slices are not evenly spaced.",
    Reason.SHEAR: "The slices are shifted against each other (tilted stack).",
    Reason.MATRIX_MIXED: "Images of one series differ in size or pixel spacing.",
    Reason.PIXEL_LENGTH: "The pixel data do not have the size that the header announces.",
    Reason.PIXEL_FORMAT: "The pixel format is not one of an MR image.",
    Reason.PIXEL_MISSING: "An image has no pixel data.",
    Reason.DECODE: "The compressed pixel data could not be decoded.",
    Reason.LOSSY: "The images were compressed with loss; volumes would not be trustworthy.",
    Reason.TS_UNSUPPORTED: "The images are stored in a form that this node cannot read.",
    Reason.ENHANCED_UNSUPPORTED: "This kind of enhanced multi-frame image is not supported.",
    Reason.SIZE_LIMIT: "The series or image is larger than this node is set to accept.",
    Reason.PATIENT_MISMATCH: "The images do not all belong to the same patient.",
    Reason.PATIENT_UNKNOWN: "The images do not name a patient.",
    Reason.CONFLICT: "The same image was received twice with different content.",
    Reason.SOURCE_CORRUPT: "An image changed between its source and this node.",
    Reason.PARTNER_MISSING: "The study lacks a series that is needed: MR cisternography plus "
    "HYDROPS, HYDROPS-Mi2, PPI and PEI, or real inversion recovery.",
    Reason.INCOMPLETE: "A series that is needed has not arrived completely.",
    Reason.AMBIGUOUS: "Several series could be the one that is needed, and nothing decides between them.",
    Reason.ROLE_UNSURE: "The content of a series does not fit its header.",
    Reason.NO_HYDROPS_STUDY: "No series of this study belongs to an inner-ear hydrops examination.",
    Reason.CONTRAST_CLIPPED: "Negative values of the subtraction image were cut off, "
    "so endolymph cannot be told from bone.",
    Reason.REG_POOR: "The series could not be aligned well enough; the patient probably moved.",
    Reason.NO_EAR_MEASURED: "Neither ear could be measured.",
    Reason.CONTENT: "The images do not show inner ears as expected.",
    Reason.NO_CONTRAST: "The perilymph shows no contrast agent, so endolymph cannot be told from it.",
    Reason.WEAK_CONTRAST: "The perilymph shows too little contrast agent to tell endolymph from it.",
    Reason.CONTRAST_SIGN: "The subtraction image has the wrong sign or no fixed zero level.",
    Reason.MOTION: "The patient moved during the acquisition.",
    Reason.EAR_NOT_FOUND: "An inner ear could not be found.",
    Reason.EAR_CUT_OFF: "An inner ear is cut off by the edge of the images.",
    Reason.SIDE_UNSURE: "It is not certain whether the ear is the right or the left one.",
    Reason.VOLUME_IMPLAUSIBLE: "The measured fluid volume is not that of an inner ear.",
    Reason.ENDOLYMPH_OUTSIDE_FLUID: "Endolymph was found outside the fluid of the inner ear.",
    Reason.LOW_SIGNAL: "The images are too noisy.",
    Reason.OUT_OF_DOMAIN: "The images differ from what this method was made for.",
    Reason.DISAGREEMENT: "Two independent methods disagree about this ear.",
    Reason.LOW_CONFIDENCE: "The ratio is too uncertain to compare ears or examinations by it.",
    Reason.LOW_DEPTH: "The images have too few gray levels.",
    Reason.OUTPUT_MISMATCH: "The result failed its own check before sending and was withheld.",
    Reason.CANCELED: "The calculation was canceled by a person.",
    Reason.BEGUN_ON_REQUEST: "A person had the calculation begin before all images were known to be there.",
    Reason.INTERNAL: "The node failed; the study is kept and can be repeated.",
}

_NEXT_STEPS: dict[Reason, str] = {
    Reason.TAG_INVALID: "Send the originals from the scanner; look which system rewrote them.",
    Reason.GEOM_MISSING: "Send the original images, not a screen capture or a reformatted copy.",
    Reason.GEOM_NONFINITE: "Send the originals; the header is damaged.",
    Reason.FOR_MISSING: "Send the originals; anonymizers sometimes remove it.",
    Reason.FOR_MIXED: "Export the series again as one acquisition.",
    Reason.FOR_DIFFERS: "Scan both series in one session, without repositioning.",
    Reason.ORIENT_MIXED: "Send the series as scanned, not merged with a reformat.",
    Reason.ORIENT_INVALID: "Send the originals; the header was rewritten.",
    Reason.SLICE_GAP: "Send the series again; the missing slices re-open the study.",
    Reason.SLICE_DUP: "Send one reconstruction per series.",
    Reason.SPACING: "Send the originals, not a thinned-out copy.",
    Reason.SHEAR: "Scan without gantry tilt or shear; do not send reformats.",
    Reason.MATRIX_MIXED: "Send one reconstruction per series.",
    Reason.PIXEL_LENGTH: "Compare with the original; it was cut off or damaged.",
    Reason.PIXEL_FORMAT: "Send MR magnitude or real images, not color captures.",
    Reason.PIXEL_MISSING: "Send the images with their pixels.",
    Reason.DECODE: "Let the sender use another lossless form or none.",
    Reason.LOSSY: "Send the lossless originals.",
    Reason.TS_UNSUPPORTED: "Let the sender use uncompressed or lossless JPEG, JPEG-LS, JPEG 2000 or RLE.",
    Reason.ENHANCED_UNSUPPORTED: "Send the series as classic MR images.",
    Reason.SIZE_LIMIT: "If the series is right, raise the limit in the configuration.",
    Reason.PATIENT_MISMATCH: "Correct the patient's data; the report names the attributes.",
    Reason.PATIENT_UNKNOWN: "Fill in the Patient ID.",
    Reason.CONFLICT: "Find out which of the two is right; a changed image needs a UID of its own.",
    Reason.SOURCE_CORRUPT: "Check disk and network between Orthanc and the node.",
    Reason.PARTNER_MISSING: "Send the missing series of the same study.",
    Reason.INCOMPLETE: "Send the series again; the missing images re-open the study.",
    Reason.AMBIGUOUS: "Send only one of the series, in a study copy of its own if need be.",
    Reason.ROLE_UNSURE: "Look at the series; if it is right, add a rule to config/series_rules.toml.",
    Reason.NO_HYDROPS_STUDY: "Nothing to do; the study is not meant for this node. No report is sent.",
    Reason.CONTRAST_CLIPPED: "Send PPI and PEI, or a subtraction that keeps negative values.",
    Reason.REG_POOR: "Look for motion; repeat the series.",
    Reason.NO_EAR_MEASURED: "See the remarks on each ear.",
    Reason.CONTENT: "Check that the slab covers both inner ears.",
    Reason.NO_CONTRAST: "Check dose and delay; the ears are not evaluated.",
    Reason.WEAK_CONTRAST: "Check dose and delay; look at the overlay.",
    Reason.CONTRAST_SIGN: "Send PPI and PEI, or check how the subtraction was made.",
    Reason.MOTION: "Repeat the series.",
    Reason.EAR_NOT_FOUND: "Check that the slab covers the ear.",
    Reason.EAR_CUT_OFF: "Place the slab so that the whole labyrinth is inside.",
    Reason.SIDE_UNSURE: "Check the images' orientation at the scanner.",
    Reason.VOLUME_IMPLAUSIBLE: "Look at the overlay; fluid outside the ear or a malformation.",
    Reason.ENDOLYMPH_OUTSIDE_FLUID: "Look at the overlay; probably motion between the series.",
    Reason.LOW_SIGNAL: "More averages, or a closer coil.",
    Reason.OUT_OF_DOMAIN: "Compare the protocol with what the method expects.",
    Reason.DISAGREEMENT: "Look at the overlay; where it follows the labyrinth, the number may still be right.",
    Reason.LOW_CONFIDENCE: "Go by the overlay and the interval; where there are PPI and PEI, or HYDROPS, send them.",
    Reason.LOW_DEPTH: "Send images with their full bit depth.",
    Reason.OUTPUT_MISMATCH: "Nothing left the node. Report it with the log; it is a fault of ours or of a decoder.",
    Reason.CANCELED: "Nothing to do.",
    Reason.BEGUN_ON_REQUEST: "Images that come later re-open the study and give a new result.",
    Reason.INTERNAL: "See the log; report it.",
}


class NodeError(Exception):
    """Base of everything this node raises on purpose."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A decision against computing: the reason, and what exactly was expected and found (no patient data)."""

    reason: Reason
    detail: str
    series_instance_uid: str | None = None


class RejectedStudy(NodeError):
    """The study (or a series it needs) cannot be computed; explain and stop."""

    def __init__(self, refusal: Refusal, *further: Refusal) -> None:
        super().__init__(f"{refusal.reason}: {refusal.detail}")
        self.refusal = refusal
        self.refusals = (refusal, *further)


class UnusableInput(NodeError):
    """The input holds nothing that a report could be written about."""


class ConfigError(NodeError):
    """A configuration key is unknown or has a bad value; the message starts with the key."""


class TransientError(NodeError):
    """It may work later: peer down, disk full, database busy."""


class OutputMismatch(NodeError):
    """A written SEG or SR, read back, does not say what the arrays say; it must not leave the node."""


_SAID_WITHOUT_MEMORY = ("out of memory", "allocate memory", "bad_alloc", "bad allocation", "can't start new thread")
"""How torch, SimpleITK, C++ and the interpreter say it where they raise a RuntimeError; compared in lower case."""


def fault_in_words(error: Exception) -> str:
    """A fault of ours as a study's history tells it: that memory ran out, if it did, and the error's class.

    Never the error's own text, which may hold what an image says.
    """
    kind = type(error).__name__
    without_memory = (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or any(words in str(error).lower() for words in _SAID_WITHOUT_MEMORY)
    )
    return f"memory ran out ({kind})" if without_memory else kind


def meant_instead(name: str, known: Iterable[str]) -> str:
    """ " (did you mean `allowed`?)" for a name that is nearly one of the known ones; empty when none is near."""
    from difflib import get_close_matches  # here: only a mistake needs it, and the start is counted in milliseconds

    near = get_close_matches(name.lower().replace("-", "_"), list(known), n=1)
    return f" (did you mean `{near[0]}`?)" if near else ""


def left_by(workers: int, problem: str) -> str:
    """That so many workers did not come to the end of a study or a page, and what the last of them met."""
    return f"{workers} workers failed on it or ended over it, the last one because of this: {problem}"
