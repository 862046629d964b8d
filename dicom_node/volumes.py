"""DICOM instances to volumes: the only place where DICOM geometry meets arrays.

Arrays are (K, J, I) float32 physical values: stored value x slope + intercept, per plane (PS3.3 C.11.1). The slices
are sorted along the normal (row x column direction), so k grows along the normal and the grid is right-handed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames, parse_fragments
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.utils import pixel_array

from dicom_node.assembly.attributes import CONVERSION_ERRORS, AttributeReader
from dicom_node.assembly.geometry import SliceStack, check_stack
from dicom_node.assembly.headers import FrameHeader, SeriesHeader
from dicom_node.errors import Reason, Refusal, RejectedStudy
from dicom_node.pixel_decoding import DECODERS, Decoders, UndecodableError
from inference.geometry import Volume, VolumeGeometry

LITTLE_ENDIAN: Final = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
"""Implicit and explicit."""
UNCOMPRESSED: Final = LITTLE_ENDIAN | {"1.2.840.10008.1.2.2"}
"""With explicit big endian, in which pixels of 8 bits may be swapped in pairs; pydicom knows how."""
SIZED_STREAMS: Final = frozenset(DECODERS) - {"1.2.840.10008.1.2.5"}
"""Forms whose streams carry their own matrix size."""
LOADABLE: Final = UNCOMPRESSED | frozenset(DECODERS)
"""Deflated files are not loaded: 0.5 MB of them can inflate to a gigabyte."""
JPEG_FRAME_MARKERS: Final = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers, JPEG-LS included; C4, C8 and CC in that range mean other things (ISO/IEC 10918-1 B.1.1.3)."""
PHOTOMETRIC_INTERPRETATIONS: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})

BITS_ALLOCATED: Final = (8, 16)

PIXEL_ATTRIBUTES: Final = [
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PlanarConfiguration",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
]
"""All that is read of an instance here; its header was read before, and the rest costs half of the time."""

PixelArray = NDArray[np.float32]
_Plane = tuple[int, FrameHeader]
"""k and the header of one plane."""


def check_geometry(header: SeriesHeader) -> VolumeGeometry:
    """The grid of a series in patient space.

    Raises
    ------
    RejectedStudy
        If the planes are not one regular volume; see `assembly.geometry.check_stack` for the reasons.
    """
    return _grid(check_stack(header))


def ordered_frames(header: SeriesHeader) -> tuple[FrameHeader, ...]:
    """The planes of a series in the order of k.

    Raises
    ------
    RejectedStudy
        As `check_geometry`.
    """
    return check_stack(header).frames


def load_volume(
    header: SeriesHeader, files: Mapping[str, Path], *, threads: int = 2, decoders: Decoders | None = None
) -> Volume:
    """The physical values of a series on its grid.

    Parameters
    ----------
    header
        What to load; of a mixed series only the planes listed here.
    files
        Path of the DICOM file of each SOP Instance UID.
    threads
        Compressed files decoded at a time.
    decoders
        Who decodes compressed pixels; None starts decoders for this series alone.

    Returns
    -------
    Volume
        (K, J, I) float32. MONOCHROME1 is inverted, bits outside the stored ones are masked.

    Raises
    ------
    RejectedStudy
        Geometry reasons of `check_geometry`; TS_UNSUPPORTED, PIXEL_FORMAT, PIXEL_MISSING, PIXEL_LENGTH, DECODE.
    OSError
        If a file cannot be read.
    """
    stack = check_stack(header)
    geometry = _grid(stack)
    planes_of: dict[str, list[_Plane]] = {}
    for k, frame in enumerate(stack.frames):
        planes_of.setdefault(frame.sop_instance_uid, []).append((k, frame))
    instances = list(planes_of)
    array: NDArray[np.float32]
    with ExitStack() as until_loaded:
        used = decoders or until_loaded.enter_context(Decoders())
        load = _InstanceLoader(header=header, files=files, decoders=used)
        first = load(instances[0], planes_of[instances[0]])  # a forged size is found here, before memory is taken
        array = np.empty(geometry.shape, dtype=np.float32)
        others: Iterable[list[tuple[int, PixelArray]]]
        if header.transfer_syntax_uids <= UNCOMPRESSED:
            others = (load(uid, planes_of[uid]) for uid in instances[1:])
        else:  # the decoders are processes of their own; without them, threads only take turns and lose by it
            pool = until_loaded.enter_context(ThreadPoolExecutor(max_workers=max(1, threads)))
            others = pool.map(lambda uid: load(uid, planes_of[uid]), instances[1:])
        for planes in chain([first], others):
            for k, plane in planes:
                array[k] = plane
    return Volume(array=array, geometry=geometry)


def _grid(stack: SliceStack) -> VolumeGeometry:
    first = stack.frames[0]
    assert first.orientation is not None
    assert first.pixel_spacing_mm is not None
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    between_rows, between_columns = first.pixel_spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = np.array(stack.normal) * stack.spacing_mm
    affine[:3, 1] = column * between_rows  # j counts rows: they follow each other along the column direction
    affine[:3, 2] = row * between_columns
    affine[:3, 3] = first.position_mm
    assert first.frame_of_reference_uid is not None
    return VolumeGeometry(
        shape=(len(stack.frames), first.rows, first.columns),
        index_to_lps=affine,
        frame_of_reference_uid=first.frame_of_reference_uid,
    )


class _InstanceLoader:
    """Loads the planes of one instance at a time; safe to call from several threads."""

    def __init__(self, *, header: SeriesHeader, files: Mapping[str, Path], decoders: Decoders) -> None:
        self._uid = header.series_instance_uid
        self._files = files
        self._decoders = decoders

    def __call__(self, sop_instance_uid: str, planes: Sequence[_Plane]) -> list[tuple[int, PixelArray]]:
        """(k, (J, I) float32 physical values) of each wanted plane of the instance."""
        path = self._files[sop_instance_uid]
        try:
            _check_transfer_syntax(path)
            dataset = dcmread(path, specific_tags=PIXEL_ATTRIBUTES)
            layout = _read_layout(dataset)
            _check_layout(layout)
            _check_size(layout, dataset, planes)
            stored = _stored(dataset, layout, self._decoders)
        except _Unreadable as unreadable:
            detail = f"instance {sop_instance_uid}: {unreadable.detail}"
            refusal = Refusal(reason=unreadable.reason, detail=detail, series_instance_uid=self._uid)
            raise RejectedStudy(refusal) from unreadable
        return [(k, _physical(stored[frame.frame_number - 1], frame, layout)) for k, frame in planes]


class _Unreadable(Exception):
    """Why the pixels of one instance cannot be used."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class _PixelLayout:
    """How stored values lie in Pixel Data (PS3.3 C.7.6.3)."""

    frames: int
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric_interpretation: str

    def as_attributes(self) -> dict[str, int | str]:
        """The image pixel module by keyword, for a decoder."""
        return {
            "NumberOfFrames": self.frames,
            "Rows": self.rows,
            "Columns": self.columns,
            "SamplesPerPixel": self.samples,
            "BitsAllocated": self.bits_allocated,
            "BitsStored": self.bits_stored,
            "HighBit": self.high_bit,
            "PixelRepresentation": int(self.signed),
            "PhotometricInterpretation": self.photometric_interpretation,
        }


def _check_transfer_syntax(path: Path) -> None:
    """Look at the file meta information alone: reading a deflated data set would inflate it first."""
    try:
        uid = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
    except InvalidDicomError:
        raise _Unreadable(Reason.DECODE, "not a DICOM file") from None
    if uid not in LOADABLE:
        raise _Unreadable(Reason.TS_UNSUPPORTED, f"transfer syntax {uid or 'not stated'}")


def _read_layout(dataset: Dataset) -> _PixelLayout:
    reader = AttributeReader([dataset])
    bits_stored = reader.integer("BitsStored") or 0
    high_bit = reader.integer("HighBit")
    representation = reader.integer("PixelRepresentation")
    layout = _PixelLayout(
        frames=reader.integer("NumberOfFrames") or 1,
        rows=reader.integer("Rows") or 0,
        columns=reader.integer("Columns") or 0,
        samples=reader.integer("SamplesPerPixel") or 1,
        bits_allocated=reader.integer("BitsAllocated") or 0,
        bits_stored=bits_stored,
        high_bit=bits_stored - 1 if high_bit is None else high_bit,
        signed=representation == 1,
        photometric_interpretation=reader.text("PhotometricInterpretation"),
    )
    if reader.problem is not None:
        raise _Unreadable(Reason(reader.problem[0]), reader.problem[1])
    if representation not in (0, 1):  # a signed image read as unsigned would turn endolymph into the brightest fluid
        found = "nothing" if representation is None else representation
        raise _Unreadable(Reason.PIXEL_FORMAT, f"expected Pixel Representation 0 or 1, found {found}")
    return layout


def _check_layout(layout: _PixelLayout) -> None:
    """One unpacked gray sample of 8 or 16 bits per pixel, as MR images have (PS3.3 C.8.3.1)."""
    if layout.samples != 1 or layout.photometric_interpretation not in PHOTOMETRIC_INTERPRETATIONS:
        found = f"{layout.samples} samples per pixel, {layout.photometric_interpretation or 'no photometric'}"
        raise _Unreadable(Reason.PIXEL_FORMAT, f"expected one gray sample per pixel, found {found}")
    stored, high_bit = layout.bits_stored, layout.high_bit
    fits = 0 < stored <= layout.bits_allocated and stored - 1 <= high_bit < layout.bits_allocated
    if layout.bits_allocated not in BITS_ALLOCATED or not fits:
        found = f"{layout.bits_allocated} bits allocated, {stored} stored, high bit {high_bit}"
        raise _Unreadable(Reason.PIXEL_FORMAT, f"expected 8 or 16 bits allocated, found {found}")


def _check_size(layout: _PixelLayout, dataset: Dataset, planes: Sequence[_Plane]) -> None:
    """The announced size is the header's, and uncompressed data have exactly that length (one pad byte allowed)."""
    frame = planes[0][1]
    if (layout.rows, layout.columns) != (frame.rows, frame.columns):
        found = f"{layout.rows} x {layout.columns}"
        raise _Unreadable(Reason.MATRIX_MIXED, f"expected {frame.rows} x {frame.columns}, found {found}")
    if any(frame.frame_number > layout.frames for _, frame in planes):
        raise _Unreadable(Reason.PIXEL_LENGTH, f"only {layout.frames} frames are announced")
    data = _pixel_bytes(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in UNCOMPRESSED:
        _check_streams(data, layout, announces_size=syntax in SIZED_STREAMS)
        return
    expected = layout.frames * layout.rows * layout.columns * layout.bits_allocated // 8
    if len(data) != expected + expected % 2:
        raise _Unreadable(Reason.PIXEL_LENGTH, f"expected {expected} bytes of pixels, found {len(data)}")


def _pixel_bytes(dataset: Dataset) -> bytes:
    """Pixel Data (7FE0,0010) as bytes; its element may claim any value representation."""
    try:
        data = dataset.get("PixelData")
    except CONVERSION_ERRORS as error:
        raise _Unreadable(
            Reason.PIXEL_FORMAT, f"{type(error).__name__} while reading Pixel Data (7FE0,0010)"
        ) from error
    if not data:
        raise _Unreadable(Reason.PIXEL_MISSING, "no Pixel Data (7FE0,0010)")
    if not isinstance(data, bytes):
        found = dataset["PixelData"].VR
        raise _Unreadable(Reason.PIXEL_FORMAT, f"expected Pixel Data (7FE0,0010) as OB or OW, found {found}")
    return data


def _check_streams(data: bytes, layout: _PixelLayout, *, announces_size: bool) -> None:
    """As many streams as frames, and none that announces another size: decoders believe it and take the memory."""
    try:
        fragments, _ = parse_fragments(data)
        streams = list(generate_frames(data, number_of_frames=layout.frames)) if fragments >= layout.frames else []
    except CONVERSION_ERRORS as error:
        raise _Unreadable(Reason.DECODE, f"{type(error).__name__} while splitting the pixels into frames") from error
    if len(streams) != layout.frames:
        raise _Unreadable(Reason.PIXEL_LENGTH, f"{layout.frames} frames announced, {fragments} fragments found")
    for stream in streams if announces_size else ():
        announced = _announced_size(stream)
        if announced != (layout.rows, layout.columns, 1):
            expected = f"{layout.rows} x {layout.columns} x 1"
            raise _Unreadable(Reason.DECODE, f"expected a stream of {expected} samples, it announces {announced}")


def _announced_size(stream: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, components) from the first size marker of a JPEG, JPEG-LS or JPEG 2000 stream, or None."""
    if stream[:4] == b"\xff\x4f\xff\x51" and len(stream) >= 42:  # start of codestream, then SIZ: ISO/IEC 15444-1 A.5.1
        right, bottom, left, top = struct.unpack(">4I", stream[8:24])
        return bottom - top, right - left, int.from_bytes(stream[40:42], "big")
    at = 2 if stream[:2] == b"\xff\xd8" else len(stream)
    while at + 10 <= len(stream) and stream[at] == 0xFF:
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4], "big")
        if marker in JPEG_FRAME_MARKERS:
            rows, columns, components = struct.unpack(">HHB", stream[at + 5 : at + 10])
            return rows, columns, components
        at += 2 + length
    return None


def _stored(dataset: Dataset, layout: _PixelLayout, decoders: Decoders) -> NDArray[Any]:
    """(frames, J, I) stored values: native pixels as they lie there, compressed ones from a child process."""
    expected = (layout.frames, layout.rows, layout.columns)
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    try:
        if syntax in UNCOMPRESSED:
            stored = _native(dataset, layout) if syntax in LITTLE_ENDIAN else pixel_array(dataset, raw=True)
        else:
            stored = decoders.decode(dataset.PixelData, syntax, layout.as_attributes())
    except UndecodableError as error:
        raise _Unreadable(Reason.DECODE, str(error)) from error
    except (AttributeError, *CONVERSION_ERRORS) as error:
        raise _Unreadable(Reason.DECODE, f"{type(error).__name__} while reading the pixels") from error
    if stored.size != np.prod(expected):
        raise _Unreadable(Reason.DECODE, f"expected {expected} pixels, decoded {stored.shape}")
    return stored.reshape(expected)


def _native(dataset: Dataset, layout: _PixelLayout) -> NDArray[Any]:
    """Uncompressed little endian pixels as they lie in the data set, the pad byte left out (PS3.5 8.1.1)."""
    kind = "i" if layout.signed else "u"
    count = layout.frames * layout.rows * layout.columns
    return np.frombuffer(dataset.PixelData, dtype=f"<{kind}{layout.bits_allocated // 8}", count=count)


def _physical(stored: NDArray[Any], frame: FrameHeader, layout: _PixelLayout) -> PixelArray:
    """(J, I) float32: the stored bits alone, inverted if MONOCHROME1, times slope plus intercept."""
    values = _stored_bits(stored, layout)
    if layout.photometric_interpretation == "MONOCHROME1":
        lowest_plus_highest = -1 if layout.signed else (1 << layout.bits_stored) - 1
        values = lowest_plus_highest - values
    physical: PixelArray = (values * frame.rescale_slope + frame.rescale_intercept).astype(np.float32)
    return physical


def _stored_bits(stored: NDArray[Any], layout: _PixelLayout) -> NDArray[np.int32]:
    """Values of the bits up to `high_bit`; overlays or noise may fill the others (B19)."""
    shift = layout.high_bit + 1 - layout.bits_stored
    values = (stored.astype(np.int32) >> shift) & ((1 << layout.bits_stored) - 1)
    if layout.signed:
        sign = 1 << (layout.bits_stored - 1)
        values = (values ^ sign) - sign
    return values
