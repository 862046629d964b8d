"""Every kind of object that the node makes, made by the node's own encoders from example studies.

Each example differs from the base in one respect, so that comparing tells where a value comes from and when an
attribute is there: from the source, from the configuration, from the moment, from the findings, or from nowhere but
the program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

import numpy as np
import pydicom

from dicom_node.conformance.example_study import ExampleStudy, sparse_source, talkative_source
from dicom_node.conformance.occurrences import occurrences
from dicom_node.encoding.identity import InputKey, input_key
from dicom_node.encoding.measurement_report import (
    DocumentReference,
    build_measurement_report,
    build_not_computed_report,
)
from dicom_node.encoding.part10 import part10_bytes, read_part10
from dicom_node.encoding.provenance import ResultOptions
from dicom_node.encoding.segmentation import build_segmentation
from dicom_node.encoding.summary_objects import SummarySource, build_summary_document, build_summary_image
from dicom_node.errors import Reason, Refusal
from dicom_node.summary.sheet import SIZE as PAGE_PIXELS
from inference.anatomy import EarSide
from inference.findings import ModelIdentity

MRC_SERIES, CONTRAST_SERIES = 1, 2


class Change(StrEnum):
    """In what an example differs from the base; EXTENT: fewer ears, no endolymph, a report that replaces another."""

    SOURCE = "source"
    CONFIGURATION = "configuration"
    MOMENT = "moment"
    FINDINGS = "findings"
    EXTENT = "extent"


@dataclass(frozen=True, kw_only=True)
class Example:
    """One way to make the objects; `change` says in what it differs from the base (None: the base itself)."""

    change: Change | None
    study: ExampleStudy = field(default_factory=ExampleStudy)
    options: ResultOptions = field(default_factory=ResultOptions)
    encoded_at: datetime = datetime(2026, 1, 3, 10, 0, 0, 1)  # noqa: DTZ001 - DICOM times are local
    predecessor: bool = False

    @property
    def key(self) -> InputKey:
        """The identity of the example's work."""
        headers = [*self.study.series(MRC_SERIES), *self.study.series(CONTRAST_SERIES)]
        digest = "a" if self.study.patient["PatientID"].endswith("1") else "b"
        return input_key(
            ((str(header.SOPInstanceUID), digest * 64) for header in headers),
            model_sha256=self.study.model.sha256,
            settings_digest="c" * 64,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ExampleObject:
    """One object as it would leave the node.

    `said_by_source` holds every value of the source images by keyword, and all their UIDs under "UI".
    """

    example: Example
    dataset: pydicom.Dataset
    said_by_source: Mapping[str, Set[str]]


Family = tuple[ExampleObject, ...]
"""The examples that one encoder made, the base first."""


Maker = Callable[[Example], pydicom.Dataset]

_BASE: Final = ExampleStudy()
EXAMPLES: Final[tuple[Example, ...]] = (
    Example(change=None),
    Example(
        change=Change.SOURCE,
        study=replace(
            _BASE,
            patient=talkative_source(2),
            shape=(26, 34, 36),
            spacing_mm=(1.1, 2.4, 2.6),
            origin_mm=(-40.0, -40.0, -10.0),
            tilt_deg=10.0,
            lossy=True,
        ),
    ),
    Example(
        change=Change.CONFIGURATION,
        options=ResultOptions(
            segmentation_series_number=1,
            report_series_number=2,
            summary_series_number=3,
            document_series_number=4,
            device_name="Device two",
            device_serial_number="2",
        ),
    ),
    Example(change=Change.MOMENT, encoded_at=datetime(2027, 2, 4, 11, 1, 2, 3)),  # noqa: DTZ001
    Example(
        change=Change.FINDINGS,
        study=replace(
            _BASE,
            depth=6,
            ratio=0.5,
            model=ModelIdentity(name="model-2", version="2.0", sha256="2" * 64, learned=False),
        ),
    ),
    Example(change=Change.SOURCE, study=replace(_BASE, patient=sparse_source(1))),
    Example(change=Change.SOURCE, study=replace(_BASE, enhanced=True)),
    Example(change=Change.EXTENT, study=replace(_BASE, ears=(EarSide.LEFT,))),
    Example(change=Change.EXTENT, study=replace(_BASE, endolymph=False)),
    Example(change=Change.EXTENT, predecessor=True),
)


def _segmentation(example: Example) -> pydicom.Dataset:
    return build_segmentation(
        example.study.findings(),
        example.study.series(MRC_SERIES),
        key=example.key,
        options=example.options,
        encoded_at=example.encoded_at,
    )


def _report(example: Example) -> pydicom.Dataset:
    return build_measurement_report(
        example.study.findings(),
        example.study.series(MRC_SERIES),
        example.study.series(CONTRAST_SERIES),
        _segmentation(example),
        key=example.key,
        options=example.options,
        encoded_at=example.encoded_at,
        predecessor=_predecessor(example),
    )


def _not_computed(example: Example) -> pydicom.Dataset:
    source = example.study.series(MRC_SERIES)
    return build_not_computed_report(
        [Refusal(reason=Reason.PARTNER_MISSING, detail="no series with contrast")],
        source[0],
        source,
        key=example.key,
        options=example.options,
        encoded_at=example.encoded_at,
        model=example.study.model,
        predecessor=_predecessor(example),
    )


def _predecessor(example: Example) -> DocumentReference | None:
    if not example.predecessor:
        return None
    return DocumentReference(
        study_instance_uid=example.study.patient["StudyInstanceUID"],
        series_instance_uid="2.25.300",
        sop_instance_uid="2.25.301",
    )


def _summary_source(example: Example, *reasons: Reason) -> SummarySource:
    headers = [*example.study.series(MRC_SERIES), *example.study.series(CONTRAST_SERIES)]
    return SummarySource(
        header=headers[0],
        instances=() if reasons else headers,
        key=example.key,
        options=example.options,
        model=example.study.model,
        encoded_at=example.encoded_at,
        reasons=reasons,
    )


def _image(*reasons: Reason) -> Maker:
    """The encoder of summary images; the page itself is left blank, its attributes do not depend on what is drawn."""

    def make(example: Example) -> pydicom.Dataset:
        page = np.full((PAGE_PIXELS, PAGE_PIXELS, 3), int(100 * example.study.ratio), dtype=np.uint8)
        return build_summary_image(page, _summary_source(example, *reasons))

    return make


def _document(*reasons: Reason) -> Maker:
    """The encoder of summary documents, with another document in place of the page."""

    def make(example: Example) -> pydicom.Dataset:
        page = b"%PDF-1.7" + b" " * int(100 * example.study.ratio)
        return build_summary_document(page, _summary_source(example, *reasons))

    return make


MAKERS: Final[Mapping[str, tuple[Maker, ...]]] = {
    "SEG": (_segmentation,),
    "SR": (_report, _not_computed),
    "SC": (_image(), _image(Reason.PARTNER_MISSING)),
    "PDF": (_document(), _document(Reason.PARTNER_MISSING)),
}
"""By kind of the outbox: every way in which an object of that kind comes about."""


def families(kind: str) -> tuple[Family, ...]:
    """Every example of one kind, read back from its bytes as a receiver would, one family for each encoder."""
    return tuple(tuple(_object(make, example) for example in EXAMPLES) for make in MAKERS[kind])


def _object(make: Maker, example: Example) -> ExampleObject:
    said: dict[str, set[str]] = {"UI": set()}
    for header in (*example.study.series(MRC_SERIES), *example.study.series(CONTRAST_SERIES)):
        for line in occurrences(header):
            if line.value:
                said.setdefault(line.path[-1], set()).add(line.value)
                said.setdefault(line.vr, set()).add(line.value)
    return ExampleObject(example=example, dataset=read_part10(part10_bytes(make(example))), said_by_source=said)
