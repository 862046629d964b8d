"""SEG and SR of small sources, as bytes and as data sets: what the encoding tests look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pydicom
from mr_sources import ENCODED_AT, HYDROPS_UID, classic_series, key_of, oblique_grid, study_findings

from dicom_node.encoding.identity import InputKey
from dicom_node.encoding.measurement_report import build_measurement_report
from dicom_node.encoding.part10 import part10_bytes, read_part10
from dicom_node.encoding.provenance import ResultOptions
from dicom_node.encoding.segmentation import build_segmentation
from inference.findings import StudyFindings

OPTIONS = ResultOptions(device_serial_number="42")


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """One study's inputs and the bytes made from them."""

    findings: StudyFindings
    source: Sequence[pydicom.Dataset]
    contrast: Sequence[pydicom.Dataset]
    key: InputKey
    seg_bytes: bytes
    report_bytes: bytes

    @property
    def seg(self) -> pydicom.Dataset:
        return read_part10(self.seg_bytes)

    @property
    def report(self) -> pydicom.Dataset:
        return read_part10(self.report_bytes)


def make_results(
    findings: StudyFindings | None = None, source: Sequence[pydicom.Dataset] | None = None, **report_options: object
) -> Results:
    """SEG and SR of `findings` (both ears by default) on `source` (an oblique classic series by default)."""
    grid = oblique_grid()
    findings = findings or study_findings(grid)
    source = source or classic_series(grid)
    contrast = classic_series(grid, series_uid=HYDROPS_UID)
    key = key_of(source, contrast)
    seg = build_segmentation(findings, source, key=key, options=OPTIONS, encoded_at=ENCODED_AT)
    seg_bytes = part10_bytes(seg)
    report = build_measurement_report(
        findings, source, contrast, seg, key=key, options=OPTIONS, encoded_at=ENCODED_AT, **report_options
    )
    return Results(
        findings=findings,
        source=source,
        contrast=contrast,
        key=key,
        seg_bytes=seg_bytes,
        report_bytes=part10_bytes(report),
    )


def content_items(dataset: pydicom.Dataset, value_type: str) -> list[pydicom.Dataset]:
    """Every content item of one value type, depth first."""
    found = []
    for item in dataset.get("ContentSequence", []):
        if item.ValueType == value_type:
            found.append(item)
        found += content_items(item, value_type)
    return found


def comments(dataset: pydicom.Dataset) -> list[str]:
    """All free text of a report."""
    return [str(item.TextValue) for item in content_items(dataset, "TEXT")]


def numbers(dataset: pydicom.Dataset) -> list[tuple[str, str, str]]:
    """(concept meaning, value as written, unit) of every number of a report."""
    return [
        (
            str(item.ConceptNameCodeSequence[0].CodeMeaning),
            str(item.MeasuredValueSequence[0].NumericValue),
            str(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue),
        )
        for item in content_items(dataset, "NUM")
    ]
