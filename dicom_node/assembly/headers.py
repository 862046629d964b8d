"""Frozen copies of the header attributes we decide on; no pixels, no I/O.

`read_series_header` turns data sets into these records; everything in `assembly` works on records alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

Vector3 = tuple[float, float, float]


class SeriesRole(StrEnum):
    """What a series is to this node."""

    MRC = "MRC"
    HYDROPS_MI2 = "HYDROPS_MI2"
    HYDROPS = "HYDROPS"
    PPI = "PPI"
    PEI = "PEI"
    REAL_IR = "REAL_IR"
    OTHER = "OTHER"


@dataclass(frozen=True, kw_only=True)
class PatientIdentity:
    """Who the images belong to, exactly as written (no normalization but trimming); never logged."""

    patient_id: str
    issuer: str
    name: str
    birth_date: str
    sex: str


@dataclass(frozen=True, kw_only=True)
class FrameHeader:
    """One image plane: a classic instance, or one frame of an Enhanced MR instance.

    Geometry in LPS mm as written (PS3.3 C.7.6.2); None where the attribute is missing.
    `frame_number` counts from 1. `orientation` is (row x, y, z, column x, y, z);
    `pixel_spacing_mm` is (between rows, between columns) as in (0028,0030).
    """

    sop_instance_uid: str
    frame_number: int
    instance_number: int | None
    position_mm: Vector3 | None
    orientation: tuple[float, float, float, float, float, float] | None
    pixel_spacing_mm: tuple[float, float] | None
    slice_thickness_mm: float | None
    rows: int
    columns: int
    rescale_slope: float
    rescale_intercept: float
    frame_of_reference_uid: str | None
    echo_time_ms: float | None
    image_type: tuple[str, ...]
    acquisition_number: int | None
    problem: tuple[str, str] | None = None
    """(Reason value, detail) when an attribute of this plane is illegal; the series is then refused, not dropped."""


@dataclass(frozen=True, kw_only=True)
class SeriesHeader:
    """One series: physics and identity once, and every plane. Times are naive local scanner times.

    `identities` holds every distinct patient identity found among the instances; one is the only good number.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uids: frozenset[str]
    modality: str
    identities: frozenset[PatientIdentity]
    frames: tuple[FrameHeader, ...]
    series_number: int | None
    series_description: str
    protocol_name: str
    sequence_name: str
    image_type: tuple[str, ...]
    scanning_sequence: tuple[str, ...]
    acquisition_3d: bool | None
    repetition_time_ms: float | None
    echo_time_ms: float | None
    inversion_time_ms: float | None
    magnetic_field_t: float | None
    manufacturer: str
    model_name: str
    body_part: str
    acquired_at: datetime | None
    images_in_acquisition: int | None
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric_interpretation: str
    lossy: bool
    contributing_devices: tuple[str, ...] = ()
    source_series_uids: frozenset[str] = frozenset()
    """Series named in Source Image / Referenced Image sequences of a derived series."""

    @property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """Distinct instances in order of first appearance."""
        return tuple(dict.fromkeys(frame.sop_instance_uid for frame in self.frames))
