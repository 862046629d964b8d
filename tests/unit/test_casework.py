"""Files of a folder: what is not an instance is passed over, whatever it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mr_images import as_file, make_mr
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.instance_files import read_folder, read_instance


@pytest.fixture
def good() -> bytes:
    return as_file(make_mr())


def test_random_damage_to_a_header_never_ends_the_reading_of_a_folder(good: bytes, tmp_path: Path) -> None:
    rng = np.random.default_rng(20241122)
    for number in range(300):
        damaged = bytearray(good[: int(rng.integers(140, len(good)))])
        for place in rng.integers(132, len(damaged), size=4):
            damaged[place] = int(rng.integers(0, 256))
        (tmp_path / f"{number}").write_bytes(bytes(damaged))
    (tmp_path / "good").write_bytes(good)
    files = [file for study in read_folder(tmp_path).values() for file in study]
    assert tmp_path / "good" in [file.path for file in files]


def test_a_sequence_nested_too_deep_to_be_read_is_passed_over(tmp_path: Path) -> None:
    meta = as_file(make_mr())
    begin = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    (tmp_path / "deep").write_bytes(meta[: 144 + int.from_bytes(meta[140:144], "little")] + 5000 * begin)
    assert read_instance(tmp_path / "deep") is None


def test_the_digest_is_that_of_the_data_set_and_not_of_the_file_meta(good: bytes, tmp_path: Path) -> None:
    renamed = good[:128] + good[128:].replace(b"PYDICOM", b"ANOTHER", 1)
    for name, content in (("one", good), ("two", renamed)):
        (tmp_path / name).write_bytes(content)
    one, two = read_instance(tmp_path / "one"), read_instance(tmp_path / "two")
    assert one is not None
    assert two is not None
    assert good != renamed
    assert one.sha256 == two.sha256
    assert one.header.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
