"""F08 on a disk that is really full: a tmpfs of 4 MiB."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mr_images import EXPLICIT_LE, STUDY, encode, make_mr

from dicom_node.database import open_database
from dicom_node.errors import TransientError
from dicom_node.intake.spool import Spool


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(spool: Spool) -> None:
    for _ in range(100):
        spool.store_dataset(encode(make_mr(size=256)), EXPLICIT_LE, source="A", at=1.0)


# Far below zero the watermark looks away, and the disk itself has to say no in the middle of a file.
@pytest.mark.parametrize("min_free_bytes", [500_000, -(1 << 30)], ids=["watermark", "no space left"])
def test_f08_a_full_disk_is_try_later_leaves_no_orphan_and_recovers_when_space_returns(
    small_disk, tmp_path, min_free_bytes
):
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    spool = Spool(small_disk / "spool", engine, min_free_bytes=min_free_bytes)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2 << 20))
    with pytest.raises(TransientError, match="disk"):
        fill(spool)
    kept = spool.instances(STUDY)
    assert kept
    assert {path for path in spool.directory.rglob("*") if path.is_file()} == {one.path for one in kept}
    ballast.unlink()
    spool.store_dataset(encode(make_mr(size=256)), EXPLICIT_LE, source="A", at=1.0)
    assert len(spool.instances(STUDY)) == len(kept) + 1
