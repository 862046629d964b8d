"""Rows that are committed together end as if they had been committed one after the other."""

from __future__ import annotations

import hashlib
import random
from itertools import islice
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node.database import open_database, writing
from dicom_node.intake.spool_index import FileRecord, SpoolIndex, StoredKind
from dicom_node.intake.spool_rows import instance_table, study_table
from dicom_node.intake.wire_check import InstanceIdentity


@pytest.fixture
def index(tmp_path: Path) -> SpoolIndex:
    return an_index(tmp_path)


def an_index(folder: Path) -> SpoolIndex:
    return SpoolIndex(open_database(f"sqlite:///{folder / 'node.db'}"), folder)


def record(uid: str, content: str, *, study: str = "1.2") -> FileRecord:
    return FileRecord(
        name=hashlib.sha256(f"{uid} {content}".encode()).hexdigest(),
        identity=InstanceIdentity(
            study_instance_uid=study, series_instance_uid=f"{study}.1", sop_instance_uid=uid, sop_class_uid="1.2.3"
        ),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256=content,
        source="SCANNER",
        received_at=1.0,
    )


def rows(index: SpoolIndex) -> list[tuple[object, ...]]:
    with index._engine.connect() as connection:
        ordered = sa.select(instance_table).order_by(instance_table.c.file_name)
        return [tuple(row) for row in connection.execute(ordered)]


def revisions(index: SpoolIndex) -> dict[str, int]:
    with index._engine.connect() as connection:
        return {row.study_instance_uid: row.revision for row in connection.execute(sa.select(study_table))}


def test_b45_two_contents_of_a_uid_that_come_together_are_both_marked(index: SpoolIndex) -> None:
    group = [record("9.1", "a"), record("9.2", "a"), record("9.1", "b", study="1.3")]
    assert index.add_all(group) == [StoredKind.NEW, StoredKind.NEW, StoredKind.CONFLICT]
    assert [one.conflict for one in index.instances("1.2")] == [
        one.sop_instance_uid == "9.1" for one in index.instances("1.2")
    ]
    assert [one.conflict for one in index.instances("1.3")] == [True]
    assert revisions(index) == {"1.2": 1, "1.3": 1}


def test_b44_the_same_image_twice_in_one_commit_is_one_image(index: SpoolIndex) -> None:
    assert index.add_all([record("9.1", "a")] * 3) == [StoredKind.NEW, StoredKind.DUPLICATE, StoredKind.DUPLICATE]
    assert len(index.instances("1.2")) == 1
    assert revisions(index) == {"1.2": 1}


@pytest.mark.parametrize("seed", range(8))
def test_however_images_are_grouped_the_index_says_the_same_in_the_end(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    several, single = tmp_path / "several", tmp_path / "single"
    for folder in (several, single):
        folder.mkdir()
    together, alone = an_index(several), an_index(single)
    images = [
        record(f"9.{chance.randint(1, 6)}", chance.choice("abc"), study=f"1.{chance.randint(1, 3)}") for _ in range(30)
    ]
    for one in (together, alone):
        one.add_all(images[:6])
        with writing(one._engine) as connection:
            one.take_out(images[0].identity.study_instance_uid, at=2.0, within=connection)
    left = iter(images[6:])
    kinds = []
    while group := list(islice(left, chance.randint(1, 8))):
        kinds += together.add_all(group)
    assert kinds == [alone.add(one) for one in images[6:]]
    assert rows(together) == rows(alone)
