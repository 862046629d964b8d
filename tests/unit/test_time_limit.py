"""The file of the time limit: what it says after which end."""

from __future__ import annotations

from pathlib import Path

from dicom_node.time_limit import TimeLimit


def test_a_block_that_ends_in_time_leaves_nothing(tmp_path: Path) -> None:
    limit = TimeLimit(tmp_path / "worker.limit", 60.0)
    with limit.guard("2.25.1:work:1"):
        assert limit.overran() is None
    assert list(tmp_path.iterdir()) == []
    assert limit.overran() is None


def test_a_kill_is_not_taken_for_an_overrun(tmp_path: Path) -> None:
    path = tmp_path / "worker.limit"
    path.write_text("2.25.1:work:1\n")
    assert TimeLimit(path, 60.0).overran() is None


def test_an_overrun_names_its_run_until_the_trace_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "worker.limit"
    path.write_text("2.25.1:work:1\nTimeout (0:10:00)!\nThread 0x1:\n")
    limit = TimeLimit(path, 60.0)
    assert limit.overran() == "2.25.1:work:1"
    kept = limit.keep_trace()
    assert limit.overran() is None
    assert kept.read_text().startswith("2.25.1:work:1\nTimeout (")
