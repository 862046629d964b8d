"""Whose study a page is about: the head of every sheet, and what all sheets say at their foot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pydicom

from dicom_node import __version__
from dicom_node.encoding.codes import RESEARCH_USE_TEXT
from dicom_node.encoding.person_names import written_name
from dicom_node.summary.lettering import first_writable, missing_characters
from dicom_node.summary.sheet import SIZE, Sheet

MARGIN: Final = 20.0

HEAD_HEIGHT: Final = 92.0
FOOT_TOP: Final = 972.0


@dataclass(frozen=True, kw_only=True)
class PageIdentity:
    """Patient and study as the page shows them; `name_remark` says why a name is not written as the study writes it."""

    name: str
    name_remark: str
    patient_id: str
    birth_date: str
    sex: str
    study_date: str
    accession_number: str
    description: str
    scanner: str


def page_identity(inherited: pydicom.Dataset) -> PageIdentity:
    """The identity in a clean copy of the source's attributes (`patient_module.inherit_modules`)."""
    name, remark = writable_name(str(inherited.get("PatientName") or ""))
    shown = {keyword: writable(str(inherited.get(keyword) or "")) for keyword in _SHOWN}
    return PageIdentity(
        name=name,
        name_remark=remark,
        patient_id=shown["PatientID"],
        birth_date=_date(shown["PatientBirthDate"]),
        sex=shown["PatientSex"],
        study_date=_date(shown["StudyDate"]),
        accession_number=shown["AccessionNumber"],
        description=shown["StudyDescription"],
        scanner=" ".join(filter(None, (shown["Manufacturer"], shown["ManufacturerModelName"]))),
    )


_SHOWN: Final = (
    "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber", "StudyDescription", "Manufacturer",
    "ManufacturerModelName",
)  # fmt: skip


def writable_name(value: str) -> tuple[str, str]:
    """A PN value as the fonts here can write it, and a remark if that is not all of it."""
    whole = written_name(value)
    if not whole:
        return "Name not stated", ""
    alphabetic = written_name(value.split("=")[0])
    chosen = first_writable((whole, alphabetic))
    if chosen == whole:
        return whole, ""
    if chosen is not None:
        return chosen, "other scripts of the name cannot be written here"
    return "Name: see the patient ID", "no font here writes this name"


def writable(text: str) -> str:
    """The text on one line, with a question mark for what cannot be written: never an empty box."""
    missing = frozenset(missing_characters(text))
    return "".join("?" if char in missing or not char.isprintable() else char for char in text)


def _date(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdigit() else text


def draw_head(sheet: Sheet, identity: PageIdentity, title: str) -> None:
    """Patient on the left, study on the right, a rule below."""
    quiet = sheet.theme.quiet
    half = SIZE / 2 - 2 * MARGIN
    right = SIZE - MARGIN
    sheet.write(MARGIN, 14, sheet.fitting(identity.name, half, size=22, bold=True), size=22, bold=True)
    person = [f"ID {identity.patient_id or 'not stated'}", f"born {identity.birth_date or 'not stated'}", identity.sex]
    sheet.write(MARGIN, 43, sheet.fitting("   ".join(filter(None, person)), half))
    if identity.name_remark:
        sheet.write(MARGIN, 66, sheet.fitting(f"({identity.name_remark})", half, size=13), size=13, color=quiet)
    sheet.write(right, 14, sheet.fitting(title, half, size=19, bold=True), size=19, bold=True, align="right")
    study = [f"Study of {identity.study_date or 'unknown date'}", identity.description]
    sheet.write(right, 43, sheet.fitting("   ".join(filter(None, study)), half), align="right")
    made = [f"Accession {identity.accession_number}" if identity.accession_number else "", identity.scanner]
    origin = sheet.fitting("   ".join(filter(None, made)), half, size=13)
    sheet.write(right, 66, origin, size=13, color=quiet, align="right")
    sheet.line(MARGIN, HEAD_HEIGHT - 4, right, HEAD_HEIGHT - 4)


def draw_foot(sheet: Sheet, model: str) -> None:
    """The research-use text, the model, and the program."""
    sheet.line(MARGIN, FOOT_TOP - 4, SIZE - MARGIN, FOOT_TOP - 4)
    first, rest = RESEARCH_USE_TEXT.split(". ", 1)
    sheet.write(MARGIN, FOOT_TOP, f"{first}.", size=18, bold=True, color=sheet.theme.warning)
    made_by = f"Model {model}. Hydrops Node {__version__}." if model else f"Hydrops Node {__version__}."
    for number, line in enumerate(sheet.wrapped(rest, SIZE - 2 * MARGIN, size=12.5)):
        sheet.write(MARGIN, FOOT_TOP + 23 + 14 * number, line, size=12.5, color=sheet.theme.quiet)
    wide = SIZE / 2 + 100
    sheet.write(SIZE - MARGIN, FOOT_TOP + 2, sheet.fitting(made_by, wide, size=14), size=14, align="right")
