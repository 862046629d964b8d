"""Several processes at a time, some of which are killed: no other study notices."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from patience import PATIENCE_S, wait_until
from small_studies import quick_config, study_uid, write_small_study

from dicom_node.cli.cohort_runs import Order, only_one, run_cohort
from dicom_node.cohort.outcome import SourceOutcome, SourceState
from dicom_node.cohort.sources import DicomStudy
from dicom_node.errors import ConfigError, UnusableInput


def small_study(folder: Path, number: int) -> DicomStudy:
    path, uid = write_small_study(folder, number), study_uid(number)
    return DicomStudy(name=uid, folder=folder, study_instance_uid=uid, paths=(path,))


def quick_order(folder: Path) -> Order:
    return Order(results=folder / "out", config=quick_config(folder), threads=1)


def stuck_study(folder: Path) -> DicomStudy:
    """A pipe that nobody writes into: whoever reads it is at work for ever."""
    folder.mkdir()
    os.mkfifo(folder / "IM1")
    return DicomStudy(name="stuck", folder=folder, study_instance_uid="1.2.3", paths=(folder / "IM1",))


def kill_every_reader_of(pipe: Path, times: int) -> threading.Thread:
    """Kill whichever of our child processes is at the pipe, so many times."""

    def kill() -> None:
        for _ in range(times):
            with pipe.open("wb"):  # returns when somebody has begun to read
                end(next_reader_of(pipe, lambda: [one.pid for one in multiprocessing.active_children() if one.pid]))

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not runs(pid))


def next_reader_of(pipe: Path, processes: Callable[[], Iterable[int]]) -> int:
    """Which of these has the pipe open, as soon as one has: who opens the other end goes on a moment earlier."""
    found: list[int] = []

    def look() -> list[int]:
        found.extend(pid for pid in processes() if str(pipe) in opened_by(pid))
        return found

    wait_until(look)
    return found[0]


def opened_by(pid: int) -> set[str]:
    """What a process has open; it may close its files or end while one looks."""
    opened: set[str] = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                opened.add(str(link.readlink()))
    return opened


def states(outcomes: list[SourceOutcome]) -> list[SourceState]:
    return [outcome.state for outcome in outcomes]


def test_a_study_whose_process_is_killed_fails_alone(tmp_path: Path) -> None:
    sources = [small_study(tmp_path / "a", 1), stuck_study(tmp_path / "b"), small_study(tmp_path / "c", 2)]
    kill_every_reader_of(tmp_path / "b" / "IM1", times=2)
    told: list[str] = []
    outcomes = run_cohort(sources, quick_order(tmp_path), jobs=2, on_done=lambda outcome: told.append(outcome.name))
    assert states(outcomes) == [SourceState.REFUSED, SourceState.FAILED, SourceState.REFUSED]
    assert "was killed" in outcomes[1].problem
    assert sorted(told) == sorted(source.name for source in sources)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [study_uid(1), study_uid(2)]


def test_a_disk_that_does_not_take_a_result_fails_that_study_with_the_reason(tmp_path: Path) -> None:
    sources = [small_study(tmp_path / "a", 1), small_study(tmp_path / "b", 2)]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / sources[0].name).write_text("a file where a folder has to be")
    outcomes = run_cohort(sources, quick_order(tmp_path), jobs=1, on_done=lambda _outcome: None)
    assert states(outcomes) == [SourceState.FAILED, SourceState.REFUSED]
    assert "NotADirectoryError: Not a directory" in outcomes[0].problem


def test_a_model_that_is_not_there_stops_the_whole_run(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text('processing.model = "nowhere"\nassembly.rules_file = "rules.toml"\n')
    (tmp_path / "rules.toml").write_text("")
    order = Order(results=tmp_path / "out", config=config, threads=1)
    with pytest.raises(ConfigError, match=r"processing\.model = 'nowhere'"):
        run_cohort([small_study(tmp_path / "a", 1)], order, jobs=1, on_done=lambda _outcome: None)


def test_only_one_process_writes_into_a_folder(tmp_path: Path) -> None:
    refused = pytest.raises(UnusableInput, match="another process writes its results there")
    with only_one(tmp_path), refused, only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass


def test_no_process_outlives_a_run_that_was_killed(tmp_path: Path) -> None:
    stuck_study(tmp_path / "a")
    program = textwrap.dedent("""
        import multiprocessing, sys
        from pathlib import Path
        from dicom_node.cli.cohort_runs import Order, run_cohort
        from dicom_node.cohort.sources import DicomStudy

        if __name__ == "__main__":
            folder = Path(sys.argv[1])
            study = DicomStudy(name="a", folder=folder, study_instance_uid="1.2", paths=(folder / "IM1",))
            run_cohort([study], Order(results=folder / "out", threads=1), jobs=1, on_done=print)
    """)
    script = tmp_path / "run.py"
    script.write_text(program)
    run = subprocess.Popen([sys.executable, str(script), str(tmp_path / "a")])
    with (tmp_path / "a" / "IM1").open("wb"):
        worker = next_reader_of(tmp_path / "a" / "IM1", lambda: children_of(run.pid))
        run.kill()
        run.wait(PATIENCE_S)
        wait_until(lambda: not runs(worker))


def runs(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
