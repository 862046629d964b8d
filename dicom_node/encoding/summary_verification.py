"""The last look at a summary before release: whose it is, whether the pixels are the page, and on which side R stands.

The markers R and L are found in the decoded pixels by themselves; a page that was mirrored or cut on its way into the
file is never sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pydicom
from numpy.typing import NDArray

from dicom_node.encoding import codes
from dicom_node.encoding.part10 import read_part10
from dicom_node.encoding.verification import check_equal, check_identity, values_of
from dicom_node.errors import OutputMismatch
from inference.anatomy import EarSide

MARK_TOLERANCE: Final = 8
"""Of 255, between a marker in the file and the same marker drawn by itself: nothing but rounding may differ."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SideMark:
    """What must be seen of one side's letter: `pixels` (rows, columns, 3) at row `top`, column `left` of the page."""

    side: EarSide
    top: int
    left: int
    pixels: NDArray[np.uint8]


def verify_summary_image(
    data: bytes, pixels: NDArray[np.uint8], marks: Sequence[SideMark], source: pydicom.Dataset
) -> None:
    """Check the bytes of a Secondary Capture against the page that was drawn.

    Parameters
    ----------
    data
        The complete Part 10 file, as it will be sent.
    marks
        The letters of both sides, drawn apart from the page; none for a page without ears.

    Raises
    ------
    OutputMismatch
        If patient, study, size or any pixel differs, the image does not say that names are burned in or what it may
        not be used for, or a side's letter is not where the patient's right and left belong.
    """
    written = read_part10(data)
    _check_common(written, source)
    check_equal("image comments", codes.RESEARCH_USE_TEXT, str(written.get("ImageComments")))
    check_equal("photometric interpretation", "RGB", str(written.PhotometricInterpretation))
    decoded = np.asarray(written.pixel_array)
    check_equal("size of the page", pixels.shape, decoded.shape)
    if not np.array_equal(decoded, pixels):
        raise OutputMismatch(f"summary: {int((decoded != pixels).any(axis=2).sum())} pixels differ from the page")
    for mark in marks:
        _check_mark(decoded, mark)


def verify_summary_document(data: bytes, pdf: bytes, source: pydicom.Dataset) -> None:
    """Check the bytes of an Encapsulated PDF against the document that was drawn.

    Raises
    ------
    OutputMismatch
        If patient, study, media type or any byte of the document differs, or it is no PDF.
    """
    written = read_part10(data)
    _check_common(written, source)
    check_equal("media type", "application/pdf", str(written.MIMETypeOfEncapsulatedDocument))
    length = int(written.EncapsulatedDocumentLength)
    check_equal("length of the document", len(pdf), length)
    document = bytes(written.EncapsulatedDocument)[:length]
    if document != pdf or not document.startswith(b"%PDF-"):
        raise OutputMismatch("summary document: expected the PDF that was drawn, found other bytes")


def _check_common(written: pydicom.Dataset, source: pydicom.Dataset) -> None:
    check_identity(written, [source])
    check_equal("burned in annotation", "YES", str(written.get("BurnedInAnnotation")))
    if not str(written.SeriesDescription).startswith("RESEARCH"):
        raise OutputMismatch(f"series description: expected RESEARCH ..., found {written.SeriesDescription}")
    references = [one for name in _REFERENCES for one in written.get(name, ())]
    own = str(written.SOPInstanceUID)
    if own in set(values_of(references, "ReferencedSOPInstanceUID")):
        raise OutputMismatch(f"summary {own}: refers to itself as a source")


_REFERENCES: Final = ("SourceImageSequence", "SourceInstanceSequence")


def _check_mark(decoded: NDArray[np.uint8], mark: SideMark) -> None:
    """The letter is where it was to be drawn, and that is the half of the page where the side belongs."""
    rows, columns = mark.pixels.shape[:2]
    middle = mark.left + columns / 2.0
    on_left_half = middle < decoded.shape[1] / 2.0
    if on_left_half is not (mark.side is EarSide.RIGHT):
        raise OutputMismatch(f"summary: the mark of the {mark.side} ear stands on the wrong half of the page")
    found = decoded[mark.top : mark.top + rows, mark.left : mark.left + columns].astype(int)
    if found.shape != mark.pixels.shape or np.abs(found - mark.pixels.astype(int)).max() > MARK_TOLERANCE:
        raise OutputMismatch(f"summary: expected the mark of the {mark.side} ear in its place, found something else")
    if int(mark.pixels.max()) - int(mark.pixels.min()) < 128:
        raise OutputMismatch(f"summary: the mark of the {mark.side} ear is not to be seen")
