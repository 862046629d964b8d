"""The summary page as finished objects: drawn, encoded, read back, and only then let go.

One drawing makes both forms. The picture is what a PACS shows; the PDF has the same text as text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

from dicom_node.delivery.outbox import OutboxObject
from dicom_node.encoding.measurements import StudyMeasurements
from dicom_node.encoding.part10 import part10_bytes
from dicom_node.encoding.patient_module import inherit_modules
from dicom_node.encoding.summary_objects import SummarySource, build_summary_document, build_summary_image
from dicom_node.encoding.summary_verification import SideMark, verify_summary_document, verify_summary_image
from dicom_node.errors import Refusal
from dicom_node.summary.heading import page_identity
from dicom_node.summary.page import draw_side_mark, draw_summary, summary_pictures
from dicom_node.summary.refused_page import UnderstoodSeries, draw_refusal
from dicom_node.summary.sheet import MONITOR, PAPER, Sheet, Theme
from inference.anatomy import EarSide
from inference.findings import StudyFindings

Draw = Callable[[Theme], Sheet]


def computed_summary(
    findings: StudyFindings, measurements: StudyMeasurements, source: SummarySource
) -> tuple[OutboxObject, ...]:
    """The summary of a computed study in the forms that the site wants.

    Raises
    ------
    OutputMismatch
        If what was written is not what was drawn.
    """
    if not _wanted(source):
        return ()
    identity = page_identity(inherit_modules(source.header).dataset)
    pictures = summary_pictures(findings, measurements)
    return _objects(lambda theme: draw_summary(pictures, measurements, identity, theme), source, side_marks())


def refused_summary(
    refusals: Sequence[Refusal], understood: Sequence[UnderstoodSeries], source: SummarySource
) -> tuple[OutboxObject, ...]:
    """The page of a study without a result in the forms that the site wants.

    Raises
    ------
    OutputMismatch
        If what was written is not what was drawn.
    """
    if not _wanted(source):
        return ()
    identity = page_identity(inherit_modules(source.header).dataset)
    model = "" if source.model is None else f"{source.model.name} {source.model.version}"
    return _objects(lambda theme: draw_refusal(refusals, understood, identity, model, theme), source, ())


@cache
def side_marks() -> tuple[SideMark, ...]:
    """The letters R and L as they must be found in the pixels, each drawn on an empty sheet."""
    return tuple(_side_mark(side) for side in EarSide)


def _side_mark(side: EarSide) -> SideMark:
    sheet = Sheet(MONITOR)
    draw_side_mark(sheet, side)
    (written,) = sheet.written()
    left, top = math.floor(written.box[0]), math.floor(written.box[1])
    right, bottom = math.ceil(written.box[2]), math.ceil(written.box[3])
    return SideMark(side=side, top=top, left=left, pixels=sheet.pixels()[top:bottom, left:right])


def _wanted(source: SummarySource) -> bool:
    return source.options.summary or source.options.pdf


def _objects(draw: Draw, source: SummarySource, marks: Sequence[SideMark]) -> tuple[OutboxObject, ...]:
    made = []
    if source.options.summary:
        pixels = draw(MONITOR).pixels()
        dataset = build_summary_image(pixels, source)
        data = part10_bytes(dataset)
        verify_summary_image(data, pixels, marks, source.header)
        made.append(("SC", dataset, data))
    if source.options.pdf:
        pdf = draw(PAPER).pdf(title=source.description, at=source.encoded_at)
        dataset = build_summary_document(pdf, source)
        data = part10_bytes(dataset)
        verify_summary_document(data, pdf, source.header)
        made.append(("PDF", dataset, data))
    return tuple(
        OutboxObject(
            kind=kind,
            sop_class_uid=str(dataset.SOPClassUID),
            sop_instance_uid=str(dataset.SOPInstanceUID),
            series_instance_uid=str(dataset.SeriesInstanceUID),
            data=data,
        )
        for kind, dataset, data in made
    )
