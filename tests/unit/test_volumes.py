"""Volumes: one object, scanned in any orientation and stored in any form, has the same values at the same place."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from scanned_series import (
    AXIAL,
    AXIAL_FROM_ABOVE,
    CORONAL,
    MRC,
    PPI,
    SAGITTAL,
    Scan,
    data_sets,
    enhanced_data_set,
    header_of,
    object_value,
    with_raw,
    write_files,
)

from dicom_node.assembly.headers import read_series_header
from dicom_node.errors import Reason, RejectedStudy
from dicom_node.pixel_decoding import Decoders
from dicom_node.volumes import check_geometry, load_volume, ordered_frames
from inference.geometry import Volume

ENCODERS = [
    ("dcmcrle",),
    ("dcmcjpeg", "+e1"),  # JPEG lossless, first-order prediction: .70
    ("dcmcjpeg", "+el"),  # JPEG lossless: .57
    ("dcmcjpls", "+el"),  # JPEG-LS lossless: .80
    ("gdcmconv", "--j2k"),  # JPEG 2000 lossless: .90
]
SMALL = MRC.but(shape=(3, 24, 20))
"""Large enough for the wavelet levels of JPEG 2000: gdcmconv ends in a segmentation fault on 6 x 5 pixels."""


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    """One child for all forged streams: that it survives them is the point, and starting one takes a second."""
    with Decoders() as started:
        yield started


def loaded(datasets: Sequence[Dataset], folder: Path, decoders: Decoders | None = None) -> Volume:
    files = write_files(datasets, folder)
    return load_volume(read_series_header(datasets), files, threads=1, decoders=decoders)


def reloaded(folder: Path) -> Volume:
    """The volume of the files as they stand in a folder."""
    paths = sorted(folder.glob("*.dcm"))
    datasets = [dcmread(path, stop_before_pixels=True) for path in paths]
    files = {str(dataset.SOPInstanceUID): path for dataset, path in zip(datasets, paths, strict=True)}
    return load_volume(read_series_header(datasets), files)


def voxel_points(volume: Volume) -> np.ndarray:
    """(K, J, I, 3) LPS mm of every voxel."""
    return volume.geometry.to_lps(np.stack(np.indices(volume.array.shape), axis=-1))


def assert_shows_the_object(volume: Volume) -> None:
    """The scanned object at the place where the geometry says each voxel is; 1 for the rounding of positions."""
    np.testing.assert_allclose(volume.array, object_value(voxel_points(volume)), atol=1.0)


def reason_of(load: Callable[[], object]) -> Reason:
    with pytest.raises(RejectedStudy) as caught:
        load()
    return caught.value.refusal.reason


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, AXIAL_FROM_ABOVE, (0.0, -1.0, 0.0, 1.0, 0.0, 0.0)])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_object_is_where_it_is_in_every_standard_orientation(tmp_path, orientation, backwards):
    datasets = data_sets(MRC.but(orientation=orientation, center_mm=(5.0, -3.0, 2.0)))
    volume = loaded(datasets[::-1] if backwards else datasets, tmp_path)
    assert volume.array.dtype == np.float32
    assert volume.array.shape == (8, 6, 5)
    assert_shows_the_object(volume)
    np.testing.assert_allclose(volume.geometry.center_lps_mm, (5.0, -3.0, 2.0), atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    angles_deg=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing_mm=st.tuples(*[st.floats(0.3, 2.0)] * 3),
    random=st.randoms(),
)
def test_the_object_is_where_it_is_in_any_oblique_anisotropic_shuffled_series(
    tmp_path_factory, angles_deg, spacing_mm, random
):
    a, b, c = np.radians(angles_deg)
    row = np.array([np.cos(a) * np.cos(b), np.sin(a) * np.cos(b), np.sin(b)])
    across = np.cross(row, [0.0, 0.0, 1.0]) if abs(row[2]) < 0.9 else np.cross(row, [1.0, 0.0, 0.0])
    across /= np.linalg.norm(across)
    column = np.cos(c) * across + np.sin(c) * np.cross(row, across)
    scan = MRC.but(orientation=(*row, *column), spacing_mm=spacing_mm, shape=(4, 3, 5))
    datasets = data_sets(scan)
    random.shuffle(datasets)
    volume = loaded(datasets, tmp_path_factory.mktemp("oblique"))
    assert_shows_the_object(volume)
    np.testing.assert_allclose(volume.geometry.spacing_mm, spacing_mm, rtol=1e-4)
    assert (
        np.linalg.det(volume.geometry.directions) < 0
    )  # columns k, j, i: k = row x column, so i, j, k is right-handed


def test_a_series_acquired_feet_first_and_one_acquired_head_first_are_the_same_patient(tmp_path):
    upward, downward = MRC.but(shape=(8, 6, 6)), MRC.but(shape=(8, 6, 6), orientation=AXIAL_FROM_ABOVE)
    one, other = loaded(data_sets(upward), tmp_path / "up"), loaded(data_sets(downward), tmp_path / "down")
    assert one.geometry.directions[2, 0] == pytest.approx(1.0)
    assert other.geometry.directions[2, 0] == pytest.approx(-1.0)
    index = np.rint(other.geometry.to_index(voxel_points(one))).astype(int)
    np.testing.assert_array_equal(one.array, other.array[tuple(np.moveaxis(index, -1, 0))])


def test_frames_come_in_the_order_of_k(tmp_path):
    datasets = data_sets(MRC)[::-1]
    header, files = read_series_header(datasets), write_files(datasets, tmp_path)
    frames = ordered_frames(header)
    volume = load_volume(header, files)
    for k, frame in enumerate(frames):
        np.testing.assert_allclose(volume.geometry.to_lps((k, 0, 0)), frame.position_mm, atol=1e-4)


def test_an_enhanced_image_loads_like_its_classic_twin(tmp_path):
    classic = loaded(data_sets(PPI), tmp_path / "classic")
    enhanced = loaded([enhanced_data_set(PPI)], tmp_path / "enhanced")
    np.testing.assert_array_equal(enhanced.array, classic.array)
    assert enhanced.geometry.same_grid(classic.geometry)


def test_rescale_is_applied_slice_by_slice(tmp_path):
    plain = loaded(data_sets(MRC), tmp_path / "plain")
    datasets = data_sets(MRC)
    for k, dataset in enumerate(datasets):
        dataset.RescaleSlope, dataset.RescaleIntercept = 1.0 + k / 4, -10.0 * k
    expected = plain.array * (1.0 + np.arange(8) / 4)[:, None, None] - 10.0 * np.arange(8)[:, None, None]
    np.testing.assert_allclose(loaded(datasets, tmp_path / "scaled").array, expected, rtol=1e-6)


def test_private_scales_and_real_world_values_change_nothing(tmp_path):
    datasets = data_sets(MRC)
    for dataset in datasets:
        block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0E, "FL", 0.01)
        mapping = Dataset()
        mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 5.0, 7.0
        dataset.RealWorldValueMappingSequence = [mapping]
    assert_shows_the_object(loaded(datasets, tmp_path))


def test_negative_stored_values_stay_negative(tmp_path):
    datasets = data_sets(MRC)
    for dataset in datasets:
        values = np.frombuffer(dataset.PixelData, "<u2").astype("<i2") - 1000
        dataset.PixelData, dataset.PixelRepresentation = values.tobytes(), 1
        dataset.BitsStored, dataset.HighBit = 16, 15
    volume = loaded(datasets, tmp_path)
    assert volume.array.min() < 0
    np.testing.assert_allclose(volume.array + 1000, object_value(voxel_points(volume)), atol=1.0)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_the_stored_ones_are_masked(tmp_path, signed):
    datasets, offset = data_sets(MRC), 1000 if signed else 0
    for dataset in datasets:
        values = np.frombuffer(dataset.PixelData, "<u2").astype(np.int32) - offset
        dataset.PixelData = ((values & 0x0FFF) | 0xA000).astype("<u2").tobytes()
        dataset.PixelRepresentation = int(signed)
    volume = loaded(datasets, tmp_path)
    np.testing.assert_allclose(volume.array + offset, object_value(voxel_points(volume)), atol=1.0)


def test_a_monochrome1_twin_is_inverted_once(tmp_path):
    datasets = data_sets(MRC)
    for dataset in datasets:
        dataset.PixelData = (4095 - np.frombuffer(dataset.PixelData, "<u2")).astype("<u2").tobytes()
        dataset.PhotometricInterpretation = "MONOCHROME1"
    assert_shows_the_object(loaded(datasets, tmp_path))


def test_eight_bit_images_load(tmp_path):
    datasets = data_sets(MRC)
    for dataset in datasets:
        values = np.frombuffer(dataset.PixelData, "<u2") // 16
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = values.astype(np.uint8).tobytes()
        dataset.RescaleSlope, dataset.RescaleIntercept = 16, 0
    volume = loaded(datasets, tmp_path)
    np.testing.assert_allclose(volume.array, object_value(voxel_points(volume)), atol=17.0)


def _command(name: str, *arguments: str) -> list[str]:
    program = shutil.which(name)
    assert program is not None, f"{name} is not installed"
    return [program, *arguments]


@pytest.mark.dcmtk
@pytest.mark.parametrize("bits_stored", [12, 16])
@pytest.mark.parametrize("encoder", ENCODERS, ids=" ".join)
def test_compressed_twins_are_pixel_identical(tmp_path, encoder, bits_stored):
    datasets = data_sets(SMALL)
    for dataset in datasets:
        dataset.BitsStored, dataset.HighBit = bits_stored, bits_stored - 1
    plain = loaded(datasets, tmp_path / "plain")
    (tmp_path / "compressed").mkdir()
    for path in sorted((tmp_path / "plain").glob("*.dcm")):
        subprocess.run(_command(*encoder, str(path), str(tmp_path / "compressed" / path.name)), check=True)
    used = dcmread(tmp_path / "compressed" / "0000.dcm", stop_before_pixels=True).file_meta.TransferSyntaxUID
    assert used.is_compressed
    twin = reloaded(tmp_path / "compressed")
    np.testing.assert_array_equal(twin.array, plain.array)
    assert twin.geometry.same_grid(plain.geometry)


@pytest.mark.dcmtk
def test_a_compressed_enhanced_image_is_pixel_identical(tmp_path):
    plain = loaded([enhanced_data_set(PPI)], tmp_path / "plain")
    (tmp_path / "rle").mkdir()
    arguments = (str(tmp_path / "plain" / "0000.dcm"), str(tmp_path / "rle" / "0000.dcm"))
    subprocess.run(_command("dcmcrle", *arguments), check=True)
    np.testing.assert_array_equal(reloaded(tmp_path / "rle").array, plain.array)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_uncompressed_forms_are_pixel_identical(tmp_path, syntax):
    datasets = data_sets(MRC)
    plain = loaded(datasets, tmp_path / "plain")
    for dataset in datasets:
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
    (tmp_path / "other").mkdir()
    for number, dataset in enumerate(datasets):
        twin = Dataset()
        twin.update(dataset)
        twin.file_meta = dataset.file_meta
        twin.save_as(tmp_path / "other" / f"{number}.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(reloaded(tmp_path / "other").array, plain.array)


def with_change(change: Callable[[Dataset], None], scan: Scan = MRC) -> list[Dataset]:
    """The series with one slice in the middle changed."""
    datasets = data_sets(scan)
    change(datasets[4])
    return datasets


def _set(**attributes: object) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return change


def _remove_pixels(dataset: Dataset) -> None:
    del dataset.PixelData


def _pixels_as(vr: str, value: bytes) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        with_raw(dataset, "PixelData", vr, value)

    return change


@pytest.mark.parametrize("high_bit", [None, "absent"])
def test_an_unstated_high_bit_is_that_of_the_stored_bits(tmp_path, high_bit):
    datasets = data_sets(MRC)
    for dataset in datasets:
        dataset.HighBit = None
        if high_bit == "absent":
            del dataset.HighBit
    expected = load_volume(header_of(MRC), write_files(data_sets(MRC), tmp_path / "stated"))
    found = load_volume(read_series_header(datasets), write_files(datasets, tmp_path / "unstated"))
    np.testing.assert_array_equal(found.array, expected.array)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set(PixelData=b"\x00\x01" * 29), Reason.PIXEL_LENGTH),
        (_set(PixelData=b"\x00\x01" * 32), Reason.PIXEL_LENGTH),
        (_set(NumberOfFrames=2**31 - 1), Reason.PIXEL_LENGTH),
        (_set(PixelData=b""), Reason.PIXEL_MISSING),
        (_remove_pixels, Reason.PIXEL_MISSING),
        (_set(BitsStored=17), Reason.PIXEL_FORMAT),
        (_set(BitsAllocated=32), Reason.PIXEL_FORMAT),
        (_set(SamplesPerPixel=3), Reason.PIXEL_FORMAT),
        (_set(PhotometricInterpretation="PALETTE COLOR"), Reason.PIXEL_FORMAT),
        (_set(HighBit=3), Reason.PIXEL_FORMAT),
        (_set(PixelRepresentation=None), Reason.PIXEL_FORMAT),
        (_pixels_as("FD", b"\x00\x01" * 28), Reason.PIXEL_FORMAT),
        (_pixels_as("DS", b"1.5 " * 15), Reason.PIXEL_FORMAT),
        (_set(PixelRepresentation=2), Reason.PIXEL_FORMAT),
    ],
)
def test_pixels_that_are_not_what_the_header_says_are_refused(tmp_path, change, reason):
    datasets = with_change(change)
    assert reason_of(lambda: loaded(datasets, tmp_path)) is reason


def test_a_forged_matrix_is_refused_before_memory_is_taken(tmp_path):
    datasets = data_sets(MRC)
    for dataset in datasets:
        dataset.Rows = dataset.Columns = 65535
    assert reason_of(lambda: loaded(datasets, tmp_path)) is Reason.PIXEL_LENGTH


def compressed(scan: Scan, syntax: str, stream: Callable[[Dataset], bytes]) -> list[Dataset]:
    """The series with every slice's pixels replaced by one encapsulated stream."""
    datasets = data_sets(scan)
    for dataset in datasets:
        dataset.PixelData = encapsulate([stream(dataset)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
    return datasets


J2K_SIZE = b"\xff\x4f\xff\x51\x00\x29\x00\x00" + b"\x00\x00\x00\x05\x00\x00\x00\x06" + b"\x00" * 8


@pytest.mark.parametrize(
    ("syntax", "stream"),
    [
        (RLELossless, b"\x01\x00\x00\x00" + b"\xff" * 80),
        (RLELossless, b"\xff\xff\xff\xff" + b"\x00" * 80),
        (RLELossless, b"\x02\x00\x00\x00\x40\x00\x00\x00\x41\x00\x00\x00" + b"\x00" * 52 + b"\x7f" * 10),
        (JPEG2000Lossless, b"\xff\x4f\xff\x51" + b"\x00\x29" + b"\xff" * 80),
        (JPEG2000Lossless, J2K_SIZE + b"\xff" * 80),
        (JPEG2000Lossless, b"not a stream at all"),
        (JPEGLosslessSV1, b"\xff\xd8\xff\xc3\x00\x0b\x10\xff\xff\xff\xff\x01" + b"\x00" * 20),
        (JPEGLosslessSV1, b"\xff\xd8\xff\xc3\x00\x0b\x10\x00\x06\x00\x05\x01" + b"\x00" * 20),
        (JPEGLosslessSV1, b"\xff\xd8" + b"\xff\xe0\x00\x00" * 20),
        (JPEGLSLossless, b"\xff\xd8\xff\xf7\x00\x0b\x10\x00\x06\x00\x05\x01" + b"\xff" * 20),
    ],
)
def test_a_forged_or_broken_stream_is_refused_and_the_node_lives(tmp_path, decoders, syntax, stream):
    datasets = compressed(MRC, syntax, lambda _: stream)
    assert reason_of(lambda: loaded(datasets, tmp_path, decoders)) is Reason.DECODE


def test_more_announced_frames_than_fragments_are_refused_before_memory_is_taken(tmp_path):
    datasets = compressed(MRC, RLELossless, lambda dataset: bytes(dataset.PixelData))
    for dataset in datasets:
        dataset.NumberOfFrames = 2**31 - 1
    assert reason_of(lambda: loaded(datasets, tmp_path)) is Reason.PIXEL_LENGTH


@pytest.fixture(scope="module", params=ENCODERS, ids=" ".join)
def compressed_original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """One slice as a real encoder compresses it."""
    folder = tmp_path_factory.mktemp("original")
    path = next(iter(write_files(data_sets(SMALL)[:1], folder).values()))
    subprocess.run(_command(*request.param, str(path), str(folder / "compressed.dcm")), check=True)
    return dcmread(folder / "compressed.dcm")


@pytest.mark.dcmtk
@settings(max_examples=60, derandomize=True, deadline=None)
@given(damage=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=5))
def test_damaged_streams_load_or_are_refused_but_never_crash(tmp_path_factory, decoders, compressed_original, damage):
    original = compressed_original
    stream = bytearray(next(generate_frames(original.PixelData, number_of_frames=1)))
    for at, value in damage:
        stream[at % len(stream)] = value
    datasets = compressed(SMALL, original.file_meta.TransferSyntaxUID, lambda _: bytes(stream))
    try:
        volume = loaded(datasets, tmp_path_factory.mktemp("damaged"), decoders)
    except RejectedStudy as rejected:
        assert rejected.refusal.reason is Reason.DECODE  # noqa: PT017 - either outcome is right
    else:
        assert volume.array.shape == SMALL.shape


@pytest.mark.parametrize("syntax", [HTJ2KLossless, DeflatedExplicitVRLittleEndian, "1.2.3.4.5"])
def test_forms_that_the_node_does_not_read_are_refused_without_reading_them(tmp_path, syntax):
    datasets = data_sets(MRC)
    files = {str(dataset.SOPInstanceUID): tmp_path / f"{k}.dcm" for k, dataset in enumerate(datasets)}
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = syntax
        with files[str(dataset.SOPInstanceUID)].open("wb") as stream:
            stream.write(b"\x00" * 128 + b"DICM")
            write_file_meta_info(stream, dataset.file_meta)
            stream.write(b"a data set that nobody may look at")
    assert reason_of(lambda: load_volume(read_series_header(datasets), files)) is Reason.TS_UNSUPPORTED


def test_a_file_that_is_not_dicom_is_refused(tmp_path):
    datasets = data_sets(MRC)
    files = write_files(datasets, tmp_path)
    next(iter(files.values())).write_bytes(b"\x00" * 500)
    assert reason_of(lambda: load_volume(read_series_header(datasets), files)) is Reason.DECODE


def test_the_refusal_names_the_instance_and_no_patient(tmp_path):
    datasets = with_change(_set(PixelData=b"\x00\x01"))
    with pytest.raises(RejectedStudy) as caught:
        loaded(datasets, tmp_path)
    assert str(datasets[4].SOPInstanceUID) in caught.value.refusal.detail
    assert "expected 60 bytes" in caught.value.refusal.detail
    assert "Phantom" not in str(caught.value)


def test_a_gap_has_no_geometry():
    datasets = data_sets(MRC)
    del datasets[3]
    assert reason_of(lambda: check_geometry(read_series_header(datasets))) is Reason.SLICE_GAP
