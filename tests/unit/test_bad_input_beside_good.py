"""Every bad study of the list at one desk, a good one among them: one code each, nothing lost, the good one unharmed.

What is refused on the wire already is in tests/integration/intake/test_listener_store.py, in the same way. The studies
are so small that nobody can find an ear: CONTENT is how one ends with which nothing is wrong before that.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from desk_parts import LOCALIZER, PARTNER_WAIT_S, DeskParts, series_of
from mr_images import data_set_bytes
from mutants import plain_bytes
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless
from scanned_series import (
    AXIAL_FROM_ABOVE,
    CORONAL,
    HYDROPS,
    MRC,
    PEI,
    PPI,
    Scan,
    enhanced_data_set,
    with_raw,
)

from dicom_node.ledger import StudyEvent, StudyState

GOOD: str = "2.25.900"
TAKEN = "CONTENT"
SMALL = {"shape": (5, 6, 5)}
SLICES = 5

Change = Callable[[Dataset], object]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One bad (or merely unusual) study of the list, the one code that it ends with, and what is told to the PACS."""

    row: str
    what: str
    images: Callable[[str], list[Dataset]]
    code: str
    sent: tuple[str, ...] = ("SR",)

    @property
    def study(self) -> str:
        """Its Study Instance UID, made from row and words."""
        return f"2.25.{int.from_bytes(f'{self.row}{self.what}'.encode()[:14], 'big')}"


def of(scans: Sequence[Scan], study: str) -> list[Dataset]:
    """The images of several series of one study, small ones."""
    return [one for scan in scans for one in series_of(scan.but(**SMALL), study)]


def whole(**attributes: object) -> Callable[[str], list[Dataset]]:
    """MRC, PPI and PEI with these attributes in every image."""
    return lambda study: of([scan.with_attributes(**attributes) for scan in (MRC, PPI, PEI)], study)


def with_mrc(scan: Scan) -> Callable[[str], list[Dataset]]:
    """The study with another MRC."""
    return lambda study: of((scan, PPI, PEI), study)


def each(change: Change) -> Callable[[str], list[Dataset]]:
    """The study with a change to each image of the MRC."""

    def images(study: str) -> list[Dataset]:
        found = of((MRC, PPI, PEI), study)
        for one in found[:SLICES]:
            change(one)
        return found

    return images


def one(change: Change) -> Callable[[str], list[Dataset]]:
    """The study with a change to one image in the middle of the MRC."""

    def images(study: str) -> list[Dataset]:
        found = of((MRC, PPI, PEI), study)
        change(found[SLICES // 2])
        return found

    return images


def put(**attributes: object) -> Change:
    """Attributes to be set in an image."""
    return lambda image: [setattr(image, keyword, value) for keyword, value in attributes.items()]


def raw(keyword: str, vr: str, value: bytes) -> Change:
    """One element as it stands in a file, lawful or not."""
    return lambda image: with_raw(image, keyword, vr, value)


def gone(keyword: str) -> Change:
    """An attribute to be left out."""
    return lambda image: delattr(image, keyword)


def shifted(image: Dataset, *by_mm: float) -> None:
    """The image somewhere else."""
    image.ImagePositionPatient = [
        f"{float(at) + by:.4f}" for at, by in zip(image.ImagePositionPatient, by_mm, strict=True)
    ]


def sheared(image: Dataset) -> None:
    shifted(image, 0.2 * image.InstanceNumber, 0.0, 0.0)


def compressed(image: Dataset) -> None:
    """An RLE frame whose header points behind its end."""
    image.file_meta.TransferSyntaxUID = RLELossless
    image.PixelData = encapsulate([struct.pack("<16I", 2, 64, 0xFFFFFF00, *[0] * 13) + bytes(20)])
    image["PixelData"].VR, image["PixelData"].is_undefined_length = "OB", True


def of_8_bits(image: Dataset) -> None:
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelData = bytes(range(image.Rows * image.Columns))


def filled_above(image: Dataset) -> None:
    """Ones in the four bits above the twelve that are stored."""
    image.PixelData = (np.frombuffer(image.PixelData, "<u2") | 0xF000).astype("<u2").tobytes()


def rescaled(image: Dataset) -> None:
    """The same values by another intercept than the slices beside it."""
    image.PixelData = (np.frombuffer(image.PixelData, "<u2") + 5).astype("<u2").tobytes()
    image.RescaleSlope, image.RescaleIntercept = "1", "-5"


def without(*numbers: int) -> Callable[[str], list[Dataset]]:
    """The study without these images of the MRC."""
    return lambda study: [image for n, image in enumerate(of((MRC, PPI, PEI), study)) if n not in numbers]


def twice(study: str) -> list[Dataset]:
    """An image under a second name at the same place."""
    found = of((MRC, PPI, PEI), study)
    again = of((MRC,), study)[1]
    again.SOPInstanceUID += ".1"
    return [*found, again]


def other_content(study: str) -> list[Dataset]:
    """An image of another content under a name that is taken."""
    found = of((MRC, PPI, PEI), study)
    other = of((MRC,), study)[1]
    other.PixelData = bytes(len(other.PixelData))
    return [*found, other]


def in_two_series(study: str) -> list[Dataset]:
    """One name in two series."""
    found = of((MRC, PPI, PEI), study)
    found[SLICES].SOPInstanceUID = found[0].SOPInstanceUID
    return found


def enhanced(study: str) -> list[Dataset]:
    """The MRC as one multi-frame image."""
    frames = enhanced_data_set(MRC.but(study_uid=study, **SMALL))
    frames.SeriesInstanceUID = f"{study}.{MRC.number}"
    return [frames, *of((PPI, PEI), study)]


HOSTILE = "<script>alert(1)</script>^{{7*7}}^=cmd"
CASES = (
    Case(row="B05", what="no number", images=one(raw("PixelSpacing", "DS", b"abc ")), code="TAG_INVALID"),
    Case(
        row="B05",
        what="5 cosines",
        images=one(raw("ImageOrientationPatient", "DS", rb"1\0\0\0\1 ")),
        code="TAG_INVALID",
    ),
    Case(row="B06", what="NaN", images=one(raw("ImagePositionPatient", "DS", rb"NaN\0\0 ")), code="GEOM_NONFINITE"),
    Case(row="B13", what="forged", images=each(put(Rows=65535, Columns=65535)), code="PIXEL_LENGTH"),
    Case(row="B13", what="frames", images=one(put(NumberOfFrames=2**31 - 1)), code="PIXEL_LENGTH"),
    Case(row="B13", what="no rows", images=each(put(Rows=0)), code="PIXEL_LENGTH"),
    Case(row="B14", what="bits", images=one(put(BitsStored=17)), code="PIXEL_FORMAT"),
    Case(row="B14", what="color", images=one(put(SamplesPerPixel=3)), code="PIXEL_FORMAT"),
    Case(row="B14", what="palette", images=one(put(PhotometricInterpretation="PALETTE COLOR")), code="PIXEL_FORMAT"),
    Case(row="B15", what="RLE", images=one(compressed), code="DECODE"),
    Case(row="B17", what="8 bits", images=each(of_8_bits), code=TAKEN),
    Case(row="B18", what="signed", images=each(put(PixelRepresentation=1)), code=TAKEN),
    Case(row="B19", what="high bits", images=each(filled_above), code=TAKEN),
    Case(row="B20", what="slopes", images=one(rescaled), code=TAKEN),
    Case(row="B23", what="inverse", images=each(put(PhotometricInterpretation="MONOCHROME1")), code=TAKEN),
    Case(row="B25", what="lossy", images=whole(LossyImageCompression="01"), code="LOSSY"),
    Case(row="B27", what="enhanced", images=enhanced, code=TAKEN),
    Case(row="B28", what="place", images=one(gone("ImagePositionPatient")), code="GEOM_MISSING"),
    Case(row="B28", what="turn", images=one(gone("ImageOrientationPatient")), code="GEOM_MISSING"),
    Case(row="B28", what="spacing", images=one(gone("PixelSpacing")), code="GEOM_MISSING"),
    Case(row="B29", what="frame", images=with_mrc(MRC.but(frame_of_reference_uid=None)), code="FOR_MISSING"),
    Case(row="B30", what="thickness", images=whole(SliceThickness=None), code=TAKEN),
    Case(row="B31", what="mixed", images=one(put(ImageOrientationPatient=list(CORONAL))), code="ORIENT_MIXED"),
    Case(row="B32", what="skew", images=each(put(ImageOrientationPatient=[0.9, 0, 0, 0, 1, 0])), code="ORIENT_INVALID"),
    Case(row="B33", what="gap", images=without(2), code="SLICE_GAP"),
    Case(row="B34", what="tail", images=without(4), code="INCOMPLETE"),
    Case(row="B35", what="two", images=twice, code="SLICE_DUP"),
    Case(row="B36", what="uneven", images=one(lambda image: shifted(image, 0.0, 0.0, 0.3)), code="SPACING"),
    Case(row="B37", what="sheared", images=each(sheared), code="SHEAR"),
    Case(row="B38", what="numbers", images=whole(InstanceNumber=1), code=TAKEN),
    Case(row="B39", what="sizes", images=one(put(PixelSpacing=["0.5", "0.7"])), code="MATRIX_MIXED"),
    Case(row="B40", what="frames", images=with_mrc(MRC.but(frame_of_reference_uid="2.25.401")), code=TAKEN),
    Case(row="B42", what="ID", images=one(put(PatientID="PHANTOM-2")), code="PATIENT_MISMATCH"),
    Case(row="B42", what="name", images=each(put(PatientName="Phantom^Two")), code="PATIENT_MISMATCH"),
    Case(row="B42", what="born", images=each(put(PatientBirthDate="19700102")), code="PATIENT_MISMATCH"),
    Case(row="B42", what="sex", images=each(put(PatientSex="F")), code="PATIENT_MISMATCH"),
    Case(
        row="B43",
        what="issuer",
        images=lambda study: of(
            (
                MRC.with_attributes(IssuerOfPatientID="A"),
                PPI.with_attributes(IssuerOfPatientID="B"),
                PEI.with_attributes(IssuerOfPatientID="B"),
            ),
            study,
        ),
        code="PATIENT_MISMATCH",
    ),
    Case(row="B44", what="again", images=lambda study: [*of((MRC, PPI, PEI), study), *of((MRC,), study)], code=TAKEN),
    Case(row="B45", what="content", images=other_content, code="CONFLICT"),
    Case(row="B46", what="series", images=in_two_series, code="CONFLICT"),
    Case(row="B47", what="MRC only", images=lambda study: of((MRC,), study), code="PARTNER_MISSING"),
    Case(row="B47", what="PPI only", images=lambda study: of((PPI,), study), code="PARTNER_MISSING"),
    Case(
        row="B48",
        what="twins",
        images=lambda study: of((MRC, MRC.but(name="copy", number=12), PPI, PEI), study),
        code="AMBIGUOUS",
    ),
    Case(
        row="B49",
        what="days",
        images=lambda study: of((MRC.with_attributes(AcquisitionDate="20260109"), PPI, PEI), study),
        code="PARTNER_MISSING",
    ),
    Case(row="B50", what="swapped", images=whole(SeriesDescription="HYDROPS"), code=TAKEN),
    Case(
        row="B50",
        what="name only",
        images=lambda study: of(
            (MRC, PPI.but(inversion_time_ms=None).with_attributes(ScanningSequence=["SE", "IR"]), PEI), study
        ),
        code="ROLE_UNSURE",
    ),
    Case(row="B51", what="derived", images=lambda study: of((MRC, HYDROPS), study), code=TAKEN),
    Case(row="B52", what="more", images=lambda study: of((LOCALIZER.but(number=20), MRC, PPI, PEI), study), code=TAKEN),
    Case(row="B55", what="above", images=with_mrc(MRC.but(orientation=AXIAL_FROM_ABOVE)), code=TAKEN),
    Case(row="B56", what="1.5 T", images=whole(MagneticFieldStrength="1.5", Manufacturer="Other"), code=TAKEN),
    Case(
        row="B58",
        what="Korean",
        images=whole(SpecificCharacterSet=["", "ISO 2022 IR 149"], PatientName="Hong^Gildong=洪^吉洞=홍^길동"),
        code=TAKEN,
    ),
    Case(row="B58", what="no such", images=each(raw("SpecificCharacterSet", "CS", b"ISO_IR 999")), code=TAKEN),
    Case(row="B59", what="nobody", images=whole(PatientID=""), code="PATIENT_UNKNOWN"),
    Case(row="B59", what="no date", images=whole(PatientName=None, PatientBirthDate=None, PatientSex=None), code=TAKEN),
    # An identity is not shortened, and so no report can name this patient; neither could a result.
    Case(row="B60", what="long ID", images=whole(PatientID="9" * 80), code=TAKEN, sent=()),
    Case(row="B60", what="odd sex", images=whole(PatientSex="X", StudyDate="2026-01-01"), code=TAKEN),
    Case(row="B61", what="markup", images=whole(PatientName=HOSTILE, SeriesDescription=HOSTILE), code=TAKEN),
    Case(row="B62", what="shell", images=whole(StationName="$(id); rm -rf /", StudyDescription="'; DROP"), code=TAKEN),
    Case(row="B66", what="nameless", images=whole(PatientIdentityRemoved="YES"), code=TAKEN),
)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DeskParts, list[logging.LogRecord]]]:
    """All cases and the good study have come, one image after the other, and everything has ended."""
    parts = DeskParts(tmp_path_factory.mktemp("desk"))
    lines: list[logging.LogRecord] = []
    listening = logging.Handler()
    listening.emit = lines.append  # type: ignore[method-assign]
    logging.getLogger("dicom_node").addHandler(listening)
    good = of((MRC, PPI, PEI), GOOD)
    try:
        parts.receive(good[:7])
        for case in CASES:
            parts.receive(case.images(case.study))
        parts.receive(good[7:])
        parts.work_off()
        for work in parts.look_round_after(PARTNER_WAIT_S + 1.0):
            parts.desk.compute(work)
        yield parts, lines
    finally:
        logging.getLogger("dicom_node").removeHandler(listening)
        parts.engine.dispose()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row} {case.what}")
def test_a_bad_study_ends_with_one_code_and_keeps_all_its_images(desk, case: Case) -> None:
    parts, _ = desk
    assert parts.state(case.study) == (StudyState.REFUSED, case.code)
    assert parts.events(case.study).count(StudyEvent.REFUSED) == 1
    assert tuple(kind for kind, _ in parts.sent(case.study)) == case.sent
    kept = [data_set_bytes(one.path.read_bytes()) for one in parts.spool.instances(case.study)]
    assert {plain_bytes(one) for one in case.images(case.study)} == set(kept)


def test_the_good_study_among_them_ends_as_it_does_alone(desk, tmp_path) -> None:
    parts, _ = desk
    alone = DeskParts(tmp_path)
    try:
        alone.receive(of((MRC, PPI, PEI), GOOD))
        alone.work_off()
        assert parts.state(GOOD) == alone.state(GOOD) == (StudyState.REFUSED, TAKEN)
        assert parts.sent(GOOD) == alone.sent(GOOD)
        assert [one.sop_instance_uid for one in parts.outbox.deliveries(GOOD)] == [
            one.sop_instance_uid for one in alone.outbox.deliveries(GOOD)
        ]
    finally:
        alone.engine.dispose()


def test_nothing_of_it_is_a_fault_and_no_name_stands_in_the_log(desk) -> None:
    _, lines = desk
    told = [line.getMessage() for line in lines]
    assert [line.getMessage() for line in lines if line.exc_info] == []
    assert [text for text in told if "Phantom" in text or "PHANTOM-" in text or "script" in text or "\n" in text] == []
