"""Files that are to go: they go once their row says so, and stay when somebody uses them again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from dicom_node.database import open_database, writing
from dicom_node.removals import ASIDE, Removals, Removed, Room


class Folder:
    """A state folder with two rooms; what the test calls used, the database calls used."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self.engine = engine
        self.used: set[str] = set()
        self.touched: list[Path] = []
        room = Room(in_use=lambda _connection, name: name in self.used, touched=self.touched.append)
        self.removals = Removals(engine, path, {"spool": room, "views": room})

    def file(self, name: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
        return path

    def list(self, *paths: Path) -> None:
        with writing(self.engine) as connection:
            self.removals.add({path: path.name for path in paths}, "2.25.1", at=1.0, within=connection)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    yield Folder(tmp_path, engine)
    engine.dispose()


def test_what_is_listed_goes_and_is_counted(folder: Folder) -> None:
    paths = [folder.file(f"spool/{number:02x}/{number}") for number in range(100)]
    folder.list(*paths, folder.path / "spool" / "never there")
    assert folder.removals.waiting() == 100
    assert folder.removals.carry_out() == Removed(files=100, bytes=500)
    assert not any(path.exists() for path in paths)
    assert folder.removals.waiting() == 0


def test_a_folder_goes_as_a_whole_and_is_out_of_sight_before_it_is_emptied(folder: Folder) -> None:
    pack = folder.file("views/pack/manifest.json").parent
    folder.file("views/pack/picture.png")
    folder.list(pack)
    pack.rename(pack.with_name(f"{ASIDE}pack"))  # where a kill left it
    (pack.with_name(f"{ASIDE}pack") / "picture.png").unlink()
    assert folder.removals.carry_out() == Removed(files=1, bytes=5)
    assert list((folder.path / "views").iterdir()) == []


def test_what_is_used_again_stays(folder: Folder) -> None:
    path = folder.file("spool/ab/again")
    folder.list(path)
    folder.used.add("again")
    assert folder.removals.carry_out() == Removed()
    assert path.exists()
    assert folder.removals.waiting() == 0


@pytest.mark.parametrize("name", ["spool/ab/touched", "views/pack"])
def test_what_somebody_touched_since_stays_and_its_room_is_told(folder: Folder, name: str) -> None:
    path = folder.file(f"{name}/manifest.json").parent if name.startswith("views") else folder.file(name)
    folder.list(path)
    os.utime(path, (5.0, 5.0))
    assert folder.removals.carry_out() == Removed()
    assert path.exists()
    assert folder.touched == [path]


def test_a_list_that_a_kill_left_is_finished_by_whoever_comes_next(folder: Folder) -> None:
    paths = [folder.file(f"spool/{number:02x}/{number}") for number in range(3)]
    folder.list(*paths)
    paths[0].unlink()  # a kill between the first file and the second
    again = Folder(folder.path, folder.engine)
    assert again.removals.carry_out() == Removed(files=2, bytes=10)


def test_a_file_that_does_not_let_itself_be_removed_stays_on_the_list(folder: Folder) -> None:
    stubborn = folder.file("spool/ab/stubborn")
    folder.list(stubborn)
    stubborn.unlink()
    shutil.rmtree(stubborn.parent)
    stubborn.parent.write_bytes(b"a file where a folder was")
    with pytest.raises(NotADirectoryError):
        folder.removals.carry_out()
    assert folder.removals.waiting() == 1
    stubborn.parent.unlink()
    assert folder.removals.carry_out() == Removed()
