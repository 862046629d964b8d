"""Every code and every fixed sentence that our objects contain, and where each comes from.

Standard codes stand where DICOM's own context groups have one (checked in the dictionary of pydicom 3.0.2).
SNOMED CT has no endolymph or perilymph in DICOM's subset, so endolymph is FMA 61112 (the Foundational Model of
Anatomy, a designator that PS3.16 section 8 lists). What no public scheme names is private under 99EHNODE, and the
Coding Scheme Identification Sequence of every object says whose scheme that is.

Not used on purpose: (113288, DCM, "Volume Ratio") is a diffusion anisotropy index (CID 7271), not a ratio of volumes.
"""

from __future__ import annotations

from typing import Final

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.color import CIELabColor
from pydicom.sr.coding import Code

from dicom_node.errors import Reason
from inference.anatomy import EarSide, FluidSpace
from inference.findings import ModelIdentity, QualityCode

PRIVATE_SCHEME: Final = "99EHNODE"
NODE_MANUFACTURER: Final = "Hydrops Node project"
NODE_MODEL_NAME: Final = "Hydrops Node"
"""Manufacturer's Model Name in our objects; by it (in Contributing Equipment) the node knows its own objects again."""


def _private(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE_SCHEME, meaning)


# --- Where and what -------------------------------------------------------------------------------------------------
INNER_EAR: Final = Code("22945000", "SCT", "Inner ear")  # CID 4028, 7151
LATERALITY: Final = {
    EarSide.RIGHT: Code("24028007", "SCT", "Right"),  # CID 244
    EarSide.LEFT: Code("7771000", "SCT", "Left"),
}
BODY_SUBSTANCE: Final = Code("91720002", "SCT", "Body Substance")  # CID 7150
FLUID: Final = {
    FluidSpace.TOTAL_FLUID_SPACE: _private("TFS", "Total fluid space of inner ear"),
    FluidSpace.ENDOLYMPH: Code("61112", "FMA", "Endolymph"),
}
SEGMENT_COLOR: Final = {
    (EarSide.RIGHT, FluidSpace.TOTAL_FLUID_SPACE): CIELabColor.from_rgb(86, 180, 233),  # blue pair: fluid
    (EarSide.LEFT, FluidSpace.TOTAL_FLUID_SPACE): CIELabColor.from_rgb(0, 114, 178),
    (EarSide.RIGHT, FluidSpace.ENDOLYMPH): CIELabColor.from_rgb(230, 159, 0),  # orange pair: endolymph
    (EarSide.LEFT, FluidSpace.ENDOLYMPH): CIELabColor.from_rgb(213, 94, 0),
}
"""Okabe-Ito colors: the two fluids stay apart for color-blind readers too."""

# --- Numbers --------------------------------------------------------------------------------------------------------
VOLUME: Final = Code("118565006", "SCT", "Volume")  # CID 7469
FLUID_VOLUME: Final = {
    FluidSpace.TOTAL_FLUID_SPACE: _private("TFSVOL", "Total fluid space volume"),
    FluidSpace.ENDOLYMPH: _private("ELVOL", "Endolymph volume"),
}
"""For a list of numbers that viewers print with their names only: "Volume" twice would not say whose."""
MM3: Final = Code("mm3", "UCUM", "cubic millimeter")
PERCENT: Final = Code("%", "UCUM", "Percent")
PARTIAL_VOLUME_METHOD: Final = _private("PVSUM", "Sum of voxel volumes weighted by fluid fraction")
"""Not (126030, DCM, "Sum of segmented voxel volumes"): our volumes also count the part of a rim voxel that is fluid."""
EH_RATIO: Final = _private("EHVR", "Endolymph to total fluid space volume ratio")
EH_RATIO_LOW: Final = _private("EHVRLOW", "EH volume ratio, lower limit of 95 % interval")
EH_RATIO_HIGH: Final = _private("EHVRHIGH", "EH volume ratio, upper limit of 95 % interval")
VOLUME_RATIO_METHOD: Final = _private("EHVRM", "Endolymph volume divided by total fluid space volume")

# --- Statements -----------------------------------------------------------------------------------------------------
QUALITATIVE_EVALUATIONS: Final = Code("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500, row 12
DIAGNOSTIC_IMAGING_REPORT: Final = Code("18748-4", "LN", "Diagnostic Imaging Report")  # CID 7000
FINDINGS: Final = Code("121070", "DCM", "Findings")  # CID 7001
PROCEDURE_REPORTED: Final = Code("25056-3", "LN", "MRI unspecified body region")  # CID 100 has no inner-ear MRI
RESULT_STATUS: Final = _private("STATUS", "Status of hydrops computation")
COMPUTED: Final = _private("COMPUTED", "Computed")
NOT_COMPUTED: Final = _private("NOTCOMPUTED", "Not computed")
EAR_STATUS: Final = {
    EarSide.RIGHT: _private("EARSTATUSR", "Status of right ear"),
    EarSide.LEFT: _private("EARSTATUSL", "Status of left ear"),
}
"""The side stands in the name, because an ear that was not evaluated has no group with a finding site."""
EAR_EVALUATED: Final = _private("EVALUATED", "Evaluated")
EAR_NOT_EVALUATED: Final = Code("373121007", "SCT", "Not Evaluated")
NOT_COMPUTED_REASON: Final = _private("REASON", "Reason for no result")
QUALITY_FLAG: Final = _private("QFLAG", "Quality remark")
IMAGE_QUALITY: Final = Code("111101", "DCM", "Image Quality")
QUALITY_GOOD: Final = Code("RID12", "RADLEX", "Diagnostic quality")  # CID 7036
QUALITY_LIMITED: Final = Code("RID13", "RADLEX", "Limited quality")
QUALITY_NON_DIAGNOSTIC: Final = Code("RID14", "RADLEX", "Non-diagnostic quality")
COMMENT: Final = Code("121106", "DCM", "Comment")
SYNTHESIZING_EQUIPMENT: Final = Code("109100", "DCM", "Synthesizing Equipment")  # CID 7005
LEARNED_ALGORITHM: Final = Code("123110", "DCM", "Artificial Intelligence")  # CID 7162
RULE_ALGORITHM: Final = Code("123105", "DCM", "Histogram Analysis")  # CID 7162 has no plain thresholding
ENGLISH: Final = Code("en-US", "RFC5646", "English (United States)")

# --- Fixed wording --------------------------------------------------------------------------------------------------
RESEARCH_USE_TEXT: Final = (
    "Research use only. Not for diagnostic use. Not a medical device; not CE-marked, not FDA-cleared. "
    "The output must be reviewed by a qualified reader. Developed on synthetic phantoms; "
    "accuracy on patients is unknown."
)
SEGMENTATION_LABEL: Final = "EH_FLUID_SPACES"
SEGMENTATION_DESCRIPTION: Final = "RESEARCH inner-ear fluid segmentation"
REPORT_DESCRIPTION: Final = "RESEARCH EH ratio report"
NOT_COMPUTED_DESCRIPTION: Final = "RESEARCH EH ratio not computed"
SUMMARY_DESCRIPTION: Final = "RESEARCH EH summary"
SUMMARY_NOT_COMPUTED_DESCRIPTION: Final = "RESEARCH EH summary: not computed"


def reason_code(reason: Reason | QualityCode) -> Code:
    """Why there is no number, or what lessens it; the value is the code of logs and findings.json."""
    return _private(reason.value, reason.value.replace("_", " ").capitalize())


def coding_schemes() -> list[CodingSchemeIdentificationItem]:
    """Whose codes 99EHNODE and FMA are (PS3.3 C.12.1)."""
    return [
        CodingSchemeIdentificationItem(
            designator=PRIVATE_SCHEME,
            name="Hydrops Node private codes",
            version="1",
            responsible_organization=NODE_MANUFACTURER,
        ),
        CodingSchemeIdentificationItem(
            designator="FMA",
            name="Foundational Model of Anatomy",
            registry="HL7",
            uid="2.16.840.1.113883.6.119",  # PS3.16 table 8-1
        ),
    ]


def algorithm_family(model: ModelIdentity) -> Code:
    """What kind of algorithm found the fluid (CID 7162)."""
    return LEARNED_ALGORITHM if model.learned else RULE_ALGORITHM
