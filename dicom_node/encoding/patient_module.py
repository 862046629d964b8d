"""What a result inherits from its source: patient, study and acquisition equipment, legal and in UTF-8.

Sources come from every scanner and every modality worklist: Korean and Japanese names under ISO 2022, GB18030, bytes
in an undeclared character set, attributes stripped by a de-identifier, dates with dashes. highdicom copies such
values as they are, or fails on them. So a clean copy is made first, in ISO_IR 192; the source is never changed.
Identity is copied, never repaired: a value that names the patient and does not fit its attribute is a refusal.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pydicom
from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.uid import UID
from pydicom.valuerep import PersonName

from dicom_node.errors import Reason, Refusal, RejectedStudy

UTF8: Final = "ISO_IR 192"

IDENTITY_ATTRIBUTES: Final = ("PatientID", "IssuerOfPatientID", "PatientName")
"""Too long for the attribute means refusal: a shortened identity is another identity."""

TYPE_2_ATTRIBUTES: Final = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""PS3.3 C.7.1.1 and C.7.2.1: must be there, may be empty; highdicom raises AttributeError where they are not."""

OPTIONAL_ATTRIBUTES: Final = (
    "IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod",
    "PatientAge", "PatientSize", "PatientWeight", "StudyDescription",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
)  # fmt: skip
"""Patient, study and trial attributes worth carrying on; present in the result only where they have a value."""

EQUIPMENT_ATTRIBUTES: Final = (
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "StationName",
    "InstitutionName", "InstitutionalDepartmentName",
)  # fmt: skip
"""Read by highdicom to name the scanner in Contributing Equipment."""

LOSSY_ATTRIBUTES: Final = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")

_MAX_LENGTH: Final = {"LO": 64, "SH": 16, "CS": 16, "PN": 64, "AS": 4, "DS": 16, "LT": 10240, "ST": 1024}
_PATTERN: Final = {
    "DA": re.compile(r"\d{8}"),
    "TM": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"),
    "AS": re.compile(r"\d{3}[DWMY]"),
    "CS": re.compile(r"[A-Z0-9 _]*"),
    "DS": re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"),
}
_ENUMERATED: Final = {"PatientSex": {"M", "F", "O"}, "PatientIdentityRemoved": {"YES", "NO"}}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\\]")
_DELIMITERS: Final = {0x5C, 0x5E, 0x3D}  # backslash, ^ and = reset code extensions (PS3.5 6.1.2.5.3)
_ESCAPE_SEQUENCE: Final = re.compile(rb"\x1b[\x20-\x2f]+[\x30-\x7e]")


@dataclass(frozen=True, kw_only=True, eq=False)
class InheritedModules:
    """`dataset`: patient, study, equipment and frame of reference of the source, ready for highdicom.

    `remarks`: one sentence for each value that could not be carried on as it was; names the attribute, never the value.
    """

    dataset: pydicom.Dataset
    remarks: tuple[str, ...]


def inherit_modules(source: pydicom.Dataset) -> InheritedModules:
    """A clean copy of what a result inherits from `source`.

    Raises
    ------
    RejectedStudy
        TAG_INVALID if PatientID, its issuer or PatientName is longer than the attribute may be, or the
        Study Instance UID is missing or illegal.
    """
    clean = pydicom.Dataset()
    remarks: list[str] = []
    clean.SpecificCharacterSet = UTF8
    for keyword in (*TYPE_2_ATTRIBUTES, *OPTIONAL_ATTRIBUTES, *EQUIPMENT_ATTRIBUTES):
        text = _legal_text(source, keyword, remarks)
        if text or keyword in TYPE_2_ATTRIBUTES:
            setattr(clean, keyword, PersonName(text) if dictionary_VR(keyword) == "PN" else text)
    clean.StudyInstanceUID = required_uid(source, "StudyInstanceUID")
    for keyword in ("FrameOfReferenceUID", "PositionReferenceIndicator"):
        if source.get(keyword):
            setattr(clean, keyword, str(source.get(keyword)))
    if clean.get("PatientIdentityRemoved") == "YES" and not clean.get("DeidentificationMethod"):
        clean.DeidentificationMethod = "Not stated by the source"  # type 1C (PS3.3 C.7.1.1)
    return InheritedModules(dataset=clean, remarks=tuple(remarks))


def required_uid(source: pydicom.Dataset, keyword: str) -> str:
    """A UID that a result cannot do without.

    Raises
    ------
    RejectedStudy
        TAG_INVALID if it is missing or illegal.
    """
    uid = str(source.get(keyword) or "")
    if not UID(uid).is_valid or len(uid) > 64:
        raise _illegal(f"{keyword}: expected a legal UID, found {uid[:70]!r}")
    return uid


def inherit_lossiness(clean: pydicom.Dataset, sources: Sequence[pydicom.Dataset]) -> None:
    """Mark `clean` as lossy if any source image is or ever was: the flag is never reset (PS3.3 C.7.6.1.1.5)."""
    lossy = next((one for one in sources if one.get("LossyImageCompression") == "01"), None)
    clean.LossyImageCompression = "00" if lossy is None else "01"
    if lossy is None:
        return
    for keyword in LOSSY_ATTRIBUTES[1:]:
        if lossy.get(keyword) not in (None, ""):
            setattr(clean, keyword, lossy.get(keyword))


def _legal_text(source: pydicom.Dataset, keyword: str, remarks: list[str]) -> str:
    """The value of `keyword` if it is legal; empty, with a remark, if it is not."""
    text, sure = attribute_text(source, keyword)
    if not sure:
        remarks.append(f"{keyword} is not in the character set that the source states; doubtful bytes stand as [hex].")
    vr = dictionary_VR(keyword)
    problem = _problem(keyword, vr, text)
    if problem is None:
        return text
    if keyword in IDENTITY_ATTRIBUTES:
        raise _illegal(f"{keyword}: {problem}")
    remarks.append(f"{keyword} of the source is not legal ({problem}) and was left empty.")
    return ""


def _problem(keyword: str, vr: str, text: str) -> str | None:
    """What is wrong with `text` as a value of this attribute, without quoting it; None if nothing is."""
    if not text:
        return None
    groups = text.split("=") if vr == "PN" else [text]
    longest, limit = max(len(group) for group in groups), _MAX_LENGTH.get(vr)
    if limit is not None and longest > limit:
        return f"expected at most {limit} characters, found {longest}"
    if vr == "PN" and (len(groups) > 3 or any(group.count("^") > 4 for group in groups)):
        return "expected at most 3 groups of 5 name components"
    if vr not in ("LT", "ST") and _CONTROL.search(text):
        return "expected one value without control characters"
    if vr in _PATTERN and not _PATTERN[vr].fullmatch(text):
        return f"expected the form of a {vr} value"
    if keyword in _ENUMERATED and text not in _ENUMERATED[keyword]:
        return f"expected one of {', '.join(sorted(_ENUMERATED[keyword]))}"
    if vr in ("DA", "TM") and not _exists(vr, text):
        return "expected a date or time that exists"
    return None


def _exists(vr: str, text: str) -> bool:
    form = "%Y%m%d" if vr == "DA" else "%H%M%S"[: min(len(text), 6)]
    try:
        datetime.strptime(text[:8] if vr == "DA" else text[:6], form)  # noqa: DTZ007
    except ValueError:
        return False
    return True


def attribute_text(source: pydicom.Dataset, keyword: str) -> tuple[str, bool]:
    """The value of a text attribute as Unicode, and whether its character set was certain; empty if it is missing.

    Of several values of an LO attribute that names no patient, the first.
    """
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in source:
        return "", True
    raw = _undecoded(source.get_item(tag))
    if raw is not None:
        text, sure = decode_text(raw, _declared_character_sets(source))
    else:
        value = source[tag].value
        values = value if isinstance(value, pydicom.multival.MultiValue) else [value]
        text, sure = ("" if value is None else "\\".join(str(one) for one in values)), True
    if dictionary_VR(tag) == "LO" and keyword not in IDENTITY_ATTRIBUTES:
        text = text.split("\\")[0]  # SoftwareVersions and the like may have several values; one names the device
    return text.strip(" \x00"), sure


def _undecoded(element: RawDataElement | pydicom.DataElement | None) -> bytes | None:
    """The bytes of an element as they were read, if they are still there."""
    value = None if element is None else element.value
    if isinstance(value, PersonName):
        value = value.original_string
    return value if isinstance(value, bytes) else None


def _declared_character_sets(source: pydicom.Dataset) -> list[str]:
    """(0008,0005), with "ISO IR 100" and "ISO-IR 100" read as the ISO_IR 100 they were meant to be."""
    declared = source.get("SpecificCharacterSet") or ""
    names = [declared] if isinstance(declared, str) else list(declared)
    return [re.sub(r"^ISO[ -]IR", "ISO_IR", str(name or "")) for name in names]


def decode_text(raw: bytes, declared: Sequence[str]) -> tuple[str, bool]:
    """The text of an attribute's bytes, and True if they really are in the declared character sets (PS3.5 6.1.2).

    The whole value is decoded at once: pydicom splits a name at ``=`` and ``^`` first, which cuts ISO 2022 IR 87
    names in two wherever a kanji contains such a byte (the second byte of U+5341 is ``=``).
    Undeclared 8-bit bytes are tried as the declared multi-byte sets without escape sequences, then as UTF-8; what
    still is not text stands as ``[B1]``.
    """
    known = [name for name in declared if name in python_encoding]
    encodings = convert_encodings(known or [""])
    first_is_ascii = not known or known[0] in ("", "ISO_IR 6", "ISO 2022 IR 6")
    plain = _ESCAPE_SEQUENCE.sub(b"", raw)
    if raw.isascii() or not first_is_ascii or b"\x1b" in raw:
        text = _strict(raw, encodings)
        if text is not None:
            return text, raw.isascii() or len(known) == len(declared)
    for encoding in (*encodings[1:], "utf-8"):
        try:
            return plain.decode(encoding), False
        except UnicodeDecodeError:
            continue
    return "".join(chr(byte) if byte < 0x80 else f"[{byte:02X}]" for byte in plain), False


def _strict(raw: bytes, encodings: Sequence[str]) -> str | None:
    """`raw` decoded by PS3.5 6.1.2.5, or None if a byte does not belong to its character set."""
    with warnings.catch_warnings():  # of bad bytes; the remark of `_legal_text` says it
        warnings.simplefilter("ignore")
        text: str = decode_bytes(raw, encodings, _DELIMITERS)
    return None if "\ufffd" in text or "\x1b" in text else text


def _illegal(detail: str) -> RejectedStudy:
    return RejectedStudy(Refusal(reason=Reason.TAG_INVALID, detail=detail))
