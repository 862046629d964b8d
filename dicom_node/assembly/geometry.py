"""Whether the planes of a series are one evenly stacked volume, judged from header positions alone.

PS3.3 C.7.6.2: positions and directions in LPS mm; slices are ordered by geometry, never by instance number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Final

from dicom_node.assembly.headers import FrameHeader, SeriesHeader, SeriesRole, Vector3
from dicom_node.assembly.physics import PHASE_TYPES, REAL_TYPES
from dicom_node.errors import Reason, Refusal, RejectedStudy

ORIENTATION_TOLERANCE: Final = 1e-4
"""Largest error of a direction cosine's length, angle and constancy: six written decimals leave 1e-6."""
SPACING_TOLERANCE: Final = 0.01
"""Largest relative deviation of one slice step from the usual one; above it distances are no longer to be trusted."""
GAP_STEPS: Final = 1.5
"""A step longer than this many usual steps means that a slice is missing in between."""
DUPLICATE_STEPS: Final = 0.01
"""Two planes closer than this many usual steps lie at one position."""
SHEAR_TOLERANCE: Final = 1e-3
"""Largest sideways drift per millimeter along the normal: 0.06 degrees, as in the core's geometry."""
POSITION_ROUNDING_MM: Final = 0.01
"""Sideways jitter that writing positions with few decimals can cause."""
SLAB_GAP_FACTOR: Final = 1.5
"""A 3D slab has no gaps; a step this much longer than the slice thickness means that slices have not arrived."""


@dataclass(frozen=True, kw_only=True)
class SliceStack:
    """Planes ordered along `normal` = row x column direction; `spacing_mm` is the step from center to center."""

    frames: tuple[FrameHeader, ...]
    normal: Vector3
    spacing_mm: float

    @property
    def corners_mm(self) -> tuple[Vector3, ...]:
        """The eight outermost voxel centers in LPS mm."""
        return tuple(corner for frame in (self.frames[0], self.frames[-1]) for corner in _plane_corners(frame))


def check_stack(header: SeriesHeader) -> SliceStack:
    """The planes of a series in order, if they form one regular volume.

    Raises
    ------
    RejectedStudy
        The first of the plane's own problem, GEOM_MISSING, PIXEL_LENGTH (no rows or columns), FOR_MISSING,
        FOR_MIXED, MATRIX_MIXED, ORIENT_INVALID, ORIENT_MIXED, INCOMPLETE (one plane), SLICE_DUP, SLICE_GAP,
        SPACING or SHEAR that applies.
    """
    uid = header.series_instance_uid
    for frame in header.frames:
        _check_frame(frame, uid)
    _check_one_frame_of_reference(header.frames, uid)
    _check_one_grid(header.frames, uid)
    if len(header.frames) < 2:
        raise _rejected(Reason.INCOMPLETE, "a volume needs at least 2 slices, found 1", uid)
    normal = plane_normal(header.frames[0])
    frames = tuple(sorted(header.frames, key=lambda frame: _along(frame, normal)))
    spacing_mm = _check_steps(frames, normal, uid)
    _check_slab(header, spacing_mm)
    _check_shear(frames, normal, uid)
    return SliceStack(frames=frames, normal=normal, spacing_mm=spacing_mm)


def split_stacks(header: SeriesHeader) -> tuple[SeriesHeader, ...]:
    """One header per echo time, image type and acquisition number where planes share positions; else the header.

    Scanners put magnitude, real and phase images or several echoes into one series (B35).
    """
    if not _has_duplicates(header.frames):
        return (header,)
    groups: dict[tuple[object, ...], list[FrameHeader]] = {}
    for frame in header.frames:
        groups.setdefault((frame.echo_time_ms, frame.image_type), []).append(frame)
    parts = [part for frames in groups.values() for part in _by_acquisition(frames)]
    return tuple(
        replace(header, frames=part, echo_time_ms=part[0].echo_time_ms, image_type=part[0].image_type) for part in parts
    )


def stack_for_role(header: SeriesHeader, role: SeriesRole) -> SeriesHeader:
    """The part of a mixed series that a role means: the real part for REAL_IR, otherwise the magnitude.

    Raises
    ------
    RejectedStudy
        SLICE_DUP if planes share positions and not exactly one part fits.
    """
    stacks = split_stacks(header)
    if len(stacks) == 1:
        return stacks[0]
    fitting = [part for part in stacks if _is_real(part) == (role is SeriesRole.REAL_IR) and not _is_phase(part)]
    if len(fitting) != 1:
        detail = f"{len(stacks)} images at one position, {len(fitting)} of them could be the {role}"
        raise _rejected(Reason.SLICE_DUP, detail, header.series_instance_uid)
    return fitting[0]


def plane_normal(frame: FrameHeader) -> Vector3:
    """Unit vector row x column of a plane with a checked orientation: where k grows."""
    normal = _cross(_orientation(frame)[:3], _orientation(frame)[3:])
    length = math.sqrt(_dot(normal, normal))
    return (normal[0] / length, normal[1] / length, normal[2] / length)


def overlap(one: SliceStack, other: SliceStack) -> bool:
    """True if the boxes around both volumes touch, compared along LPS axes as if their frames were one."""
    for axis in range(3):
        first = [corner[axis] for corner in one.corners_mm]
        second = [corner[axis] for corner in other.corners_mm]
        if max(first) < min(second) or max(second) < min(first):
            return False
    return True


def same_slices(one: SliceStack, other: SliceStack) -> bool:
    """True if both have the same number of slices at the same positions along a common normal."""
    if len(one.frames) != len(other.frames) or not _parallel(one, other):
        return False
    tolerance_mm = one.spacing_mm / 2
    ends = [(_along(stack.frames[0], one.normal), _along(stack.frames[-1], one.normal)) for stack in (one, other)]
    return all(abs(a - b) <= tolerance_mm for a, b in zip(*ends, strict=True))


def is_cut_short(one: SliceStack, other: SliceStack) -> bool:
    """True if `one` is the same grid as `other` but for slices missing at an end (B34)."""
    if len(one.frames) >= len(other.frames) or not _parallel(one, other) or not _same_plane_grid(one, other):
        return False
    offset = (_along(one.frames[0], one.normal) - _along(other.frames[0], one.normal)) / other.spacing_mm
    on_lattice = abs(offset - round(offset)) <= 0.1 and abs(one.spacing_mm - other.spacing_mm) <= 1e-3
    return on_lattice and 0 <= round(offset) <= len(other.frames) - len(one.frames)


def _check_frame(frame: FrameHeader, uid: str) -> None:
    where = f"instance {frame.sop_instance_uid} frame {frame.frame_number}: "
    if frame.problem is not None:
        raise _rejected(Reason(frame.problem[0]), where + frame.problem[1], uid)
    missing = [
        name
        for name, value in (
            ("ImagePositionPatient", frame.position_mm),
            ("ImageOrientationPatient", frame.orientation),
            ("PixelSpacing", frame.pixel_spacing_mm),
        )
        if value is None
    ]
    if missing:
        raise _rejected(Reason.GEOM_MISSING, f"{where}no {', '.join(missing)}", uid)
    if frame.rows < 1 or frame.columns < 1:
        detail = f"{where}expected at least one row and column, found {frame.rows} x {frame.columns}"
        raise _rejected(Reason.PIXEL_LENGTH, detail, uid)
    row, column = _orientation(frame)[:3], _orientation(frame)[3:]
    errors = (abs(math.sqrt(_dot(row, row)) - 1), abs(math.sqrt(_dot(column, column)) - 1), abs(_dot(row, column)))
    if max(errors) > ORIENTATION_TOLERANCE:
        detail = f"{where}direction cosines off by {max(errors):.2g}, allowed {ORIENTATION_TOLERANCE:.0e}"
        raise _rejected(Reason.ORIENT_INVALID, detail, uid)


def _check_one_frame_of_reference(frames: Sequence[FrameHeader], uid: str) -> None:
    frames_of_reference = {frame.frame_of_reference_uid for frame in frames}
    if None in frames_of_reference:
        raise _rejected(Reason.FOR_MISSING, "an image has no FrameOfReferenceUID (0020,0052)", uid)
    if len(frames_of_reference) > 1:
        raise _rejected(Reason.FOR_MIXED, f"expected one frame of reference, found {len(frames_of_reference)}", uid)


def _check_one_grid(frames: Sequence[FrameHeader], uid: str) -> None:
    first = frames[0]
    for frame in frames:
        ratios = [a / b for a, b in zip(_pixel_spacing(frame), _pixel_spacing(first), strict=True)]
        if (frame.rows, frame.columns) != (first.rows, first.columns) or max(abs(r - 1) for r in ratios) > 1e-3:
            detail = (
                f"expected {first.rows} x {first.columns} at {first.pixel_spacing_mm} mm, "
                f"found {frame.rows} x {frame.columns} at {frame.pixel_spacing_mm} mm"
            )
            raise _rejected(Reason.MATRIX_MIXED, detail, uid)
        turned = max(abs(a - b) for a, b in zip(_orientation(frame), _orientation(first), strict=True))
        if turned > ORIENTATION_TOLERANCE:
            raise _rejected(Reason.ORIENT_MIXED, f"direction cosines differ by {turned:.2g} between images", uid)


def _check_steps(frames: Sequence[FrameHeader], normal: Vector3, uid: str) -> float:
    """The step between slice centers in mm."""
    places = [_along(frame, normal) for frame in frames]
    steps = [after - before for before, after in pairwise(places)]
    usual = median(steps)
    if usual <= 0 or min(steps) < DUPLICATE_STEPS * usual:
        raise _rejected(Reason.SLICE_DUP, f"slices {min(steps):.4f} mm apart, usual step {usual:.4f} mm", uid)
    if max(steps) > GAP_STEPS * usual:
        after = steps.index(max(steps))
        detail = f"expected a slice every {usual:.3f} mm, found a step of {max(steps):.3f} mm after slice {after + 1}"
        raise _rejected(Reason.SLICE_GAP, detail, uid)
    mean = (places[-1] - places[0]) / (len(places) - 1)
    worst = max(abs(step - mean) for step in steps)
    if worst > SPACING_TOLERANCE * mean:
        detail = f"slice steps of {mean:.3f} mm vary by {worst:.3f} mm, allowed {SPACING_TOLERANCE:.0%}"
        raise _rejected(Reason.SPACING, detail, uid)
    return mean


def _check_slab(header: SeriesHeader, spacing_mm: float) -> None:
    thickness = header.frames[0].slice_thickness_mm
    if header.acquisition_3d and thickness and spacing_mm > SLAB_GAP_FACTOR * thickness:
        detail = f"3D slices {thickness:g} mm thick lie {spacing_mm:.3f} mm apart: every second one is missing"
        raise _rejected(Reason.SLICE_GAP, detail, header.series_instance_uid)


def _check_shear(frames: Sequence[FrameHeader], normal: Vector3, uid: str) -> None:
    origin = _position(frames[0])
    for frame in frames[1:]:
        step = tuple(a - b for a, b in zip(_position(frame), origin, strict=True))
        along = _dot(step, normal)
        sideways = math.sqrt(max(_dot(step, step) - along * along, 0.0))
        if sideways > max(POSITION_ROUNDING_MM, SHEAR_TOLERANCE * along):
            detail = f"a slice {along:.2f} mm along the normal lies {sideways:.3f} mm sideways"
            raise _rejected(Reason.SHEAR, detail, uid)


def _has_duplicates(frames: Iterable[FrameHeader]) -> bool:
    places = [frame.position_mm for frame in frames if frame.position_mm is not None]
    return len(set(places)) < len(places)


def _by_acquisition(frames: Sequence[FrameHeader]) -> list[tuple[FrameHeader, ...]]:
    """Planes of one kind, split by acquisition number only if they still share positions."""
    if not _has_duplicates(frames):
        return [tuple(frames)]
    groups: dict[int | None, list[FrameHeader]] = {}
    for frame in frames:
        groups.setdefault(frame.acquisition_number, []).append(frame)
    return [tuple(group) for group in groups.values()]


def _is_real(header: SeriesHeader) -> bool:
    return bool(set(header.image_type[2:]) & REAL_TYPES)


def _is_phase(header: SeriesHeader) -> bool:
    return bool(set(header.image_type[2:]) & PHASE_TYPES)


def _parallel(one: SliceStack, other: SliceStack) -> bool:
    return _dot(one.normal, other.normal) > 1 - 1e-4


def _same_plane_grid(one: SliceStack, other: SliceStack) -> bool:
    a, b = one.frames[0], other.frames[0]
    return (a.rows, a.columns, a.pixel_spacing_mm) == (b.rows, b.columns, b.pixel_spacing_mm)


def _plane_corners(frame: FrameHeader) -> list[Vector3]:
    origin, row, column = _position(frame), _orientation(frame)[:3], _orientation(frame)[3:]
    between_rows, between_columns = _pixel_spacing(frame)
    corners = []
    for i in (0, frame.columns - 1):
        for j in (0, frame.rows - 1):
            x, y, z = (origin[a] + row[a] * between_columns * i + column[a] * between_rows * j for a in range(3))
            corners.append((x, y, z))
    return corners


def _position(frame: FrameHeader) -> Vector3:
    assert frame.position_mm is not None
    return frame.position_mm


def _orientation(frame: FrameHeader) -> tuple[float, ...]:
    assert frame.orientation is not None
    return frame.orientation


def _pixel_spacing(frame: FrameHeader) -> tuple[float, float]:
    assert frame.pixel_spacing_mm is not None
    return frame.pixel_spacing_mm


def _along(frame: FrameHeader, normal: Vector3) -> float:
    return _dot(_position(frame), normal)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _cross(a: Sequence[float], b: Sequence[float]) -> Vector3:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def _rejected(reason: Reason, detail: str, uid: str) -> RejectedStudy:
    return RejectedStudy(Refusal(reason=reason, detail=detail, series_instance_uid=uid))
