"""A measured study with everything a summary page needs: findings, headers, measurements and the page's identity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pydicom
from known_ears import measured_study
from mr_sources import ENCODED_AT, classic_series, key_of, oblique_grid

from dicom_node.encoding.measurements import PreviousValue, StudyMeasurements, study_measurements
from dicom_node.encoding.patient_module import inherit_modules
from dicom_node.encoding.provenance import ResultOptions
from dicom_node.encoding.source_planes import read_source_grid, slice_names
from dicom_node.encoding.summary_objects import SummarySource
from dicom_node.errors import Reason
from dicom_node.summary.heading import PageIdentity, page_identity
from inference.anatomy import EarSide
from inference.findings import StudyFindings
from inference.geometry import VolumeGeometry

SLAB = oblique_grid(shape=(44, 130, 240), spacing_mm=(1.0, 0.5, 0.5), angles_deg=(12.0, -6.0, 4.0))

EARLIER = {
    EarSide.LEFT: PreviousValue(
        study_instance_uid="1.2.3", study_date="20250301", ratio=0.2449, low=0.2, high=0.29, model="ear 0.9"
    )
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """What a page is drawn from."""

    findings: StudyFindings
    source: list[pydicom.Dataset]
    measurements: StudyMeasurements
    identity: PageIdentity


@cache
def findings_on(slab: VolumeGeometry = SLAB, sides: tuple[EarSide, ...] = tuple(EarSide)) -> StudyFindings:
    """Findings, made once for all tests of a process."""
    return measured_study(slab, sides=sides)


def page(sides: tuple[EarSide, ...] = tuple(EarSide), **header: Any) -> Page:
    """A page's ingredients; `header` changes attributes of the source."""
    findings, source = findings_on(SLAB, sides), classic_series(SLAB, **header)
    names = slice_names(read_source_grid(source))
    return Page(
        findings=findings,
        source=source,
        measurements=study_measurements(findings, slice_names=names, previous=EARLIER),
        identity=page_identity(inherit_modules(source[0]).dataset),
    )


def summary_source(source: list[pydicom.Dataset], *reasons: Reason, **options: Any) -> SummarySource:
    """Whose summary it is; `options` are those of `ResultOptions`."""
    return SummarySource(
        header=source[0],
        instances=() if reasons else source,
        key=key_of(source),
        options=ResultOptions(device_serial_number="42", **options),
        model=findings_on().model,
        encoded_at=ENCODED_AT,
        reasons=reasons,
    )
