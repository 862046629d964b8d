"""Crops on disk: drawn by another process, kept over interruptions, refused when damaged or of another version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from patience import wait_until

from inference.training.crop_pool import CropPool, CropPoolError
from inference.training.crops import CROP_SHAPE, GROUPS, EarCrop


def saved(pool: CropPool, *crops: EarCrop) -> CropPool:
    for index, crop in enumerate(crops):
        np.save(pool.path(index), crop.parts)
    return pool


def test_another_process_draws_what_is_missing_and_keeps_what_is_there(drawn: list[EarCrop], tmp_path: Path) -> None:
    pool = CropPool(tmp_path, first_seed=drawn[0].seed, count=2)
    kept = np.zeros((len(GROUPS), *CROP_SHAPE), dtype=np.uint8)
    np.save(pool.path(0), kept)
    pool.path(1).with_suffix(".77.part").write_bytes(b"left by an interruption")
    with pool.drawn_by(1):
        assert (pool.parts(1) == drawn[1].parts).all()
    assert (pool.parts(0) == kept).all()
    assert pool.drawn == 2


DRAWS_FOR_LONG = """
import multiprocessing, sys, time
from pathlib import Path
from inference.training.crop_pool import CropPool

if __name__ == "__main__":
    pool = CropPool(Path(sys.argv[1]), first_seed=200, count=1000)
    with pool.drawn_by(1):
        pool.parts(0)
        print(multiprocessing.active_children()[0].pid, flush=True)
        time.sleep(600)
"""


def test_nobody_goes_on_drawing_when_the_training_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "training.py"
    script.write_text(DRAWS_FOR_LONG)
    command = [sys.executable, str(script), str(tmp_path / "crops")]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=here) as training:
        assert training.stdout is not None
        worker = int(training.stdout.readline())
        assert runs(worker)
        training.kill()
    wait_until(lambda: not runs(worker))


def runs(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_crops_are_named_by_their_seeds(tmp_path: Path) -> None:
    one, other = CropPool(tmp_path, first_seed=10, count=5), CropPool(tmp_path, first_seed=12, count=5)
    assert one.path(2) == other.path(0)
    assert len(one) == 5
    assert one.drawn == 0


def test_waiting_for_a_crop_that_nobody_draws_ends(tmp_path: Path) -> None:
    pool = CropPool(tmp_path, first_seed=0, count=1)
    with pool.drawn_by(0), pytest.raises(CropPoolError, match="was not drawn in time; is anything drawing"):
        pool.parts(0, patience_s=0.0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:1000], "cannot be read"),
        (lambda _content: b"", "cannot be read"),
        (lambda _content: b"not numpy at all", "cannot be read"),
    ],
    ids=["cut short", "empty", "something else"],
)
def test_a_damaged_file_is_named_and_can_be_deleted(drawn: list[EarCrop], tmp_path: Path, damage, message: str) -> None:
    pool = saved(CropPool(tmp_path, first_seed=drawn[0].seed, count=1), drawn[0])
    pool.path(0).write_bytes(damage(pool.path(0).read_bytes()))
    with pytest.raises(CropPoolError, match=rf"{pool.path(0).name}.*{message}.*delete it"):
        pool.parts(0)


def test_a_crop_of_another_shape_is_refused_with_both_shapes(tmp_path: Path) -> None:
    pool = CropPool(tmp_path, first_seed=0, count=1)
    np.save(pool.path(0), np.zeros((2, 3), dtype=np.float32))
    with pytest.raises(CropPoolError, match=r"holds float32 \(2, 3\), expected uint8 \(6, 28, 58, 58\)"):
        pool.parts(0)


def test_a_pool_of_this_version_passes_its_check_and_an_empty_one_too(drawn: list[EarCrop], tmp_path: Path) -> None:
    saved(CropPool(tmp_path, first_seed=drawn[0].seed, count=3), *drawn).check()
    CropPool(tmp_path / "empty", first_seed=drawn[0].seed, count=3).check()


def test_a_pool_with_other_ears_is_refused(drawn: list[EarCrop], tmp_path: Path) -> None:
    pool = saved(CropPool(tmp_path, first_seed=drawn[0].seed, count=1), drawn[1])
    with pytest.raises(CropPoolError, match=r"differs by .* that this version draws from seed 101; delete"):
        pool.check()


def test_a_pool_without_crops_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one crop, found count 0"):
        CropPool(tmp_path, first_seed=0, count=0)
