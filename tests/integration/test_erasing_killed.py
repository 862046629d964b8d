"""kill -9 before the steps of an erasure: the next round finishes it, and nothing that is kept is touched."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path

import pytest
from desk_parts import hydrops_study
from kept_studies import STUDY, KeptStudies
from killed_erasure import FINISHED, erase

from dicom_node.audit import AuditAction
from dicom_node.ledger import StudyEvent

OTHER = "2.25.200"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with one study that is done, with pictures, and one that is not delivered."""
    folder = tmp_path_factory.mktemp("prepared")
    node = KeptStudies(folder, clock=time.time)
    node.now = time.time()
    for study in (STUDY, OTHER):
        node.receive(hydrops_study(study), at=time.time() - 60)
        for work in node.desk.look_round():
            node.desk.compute(work)
        node.now = time.time() + 1
        if study == STUDY:
            node.deliver()
    node.draw()
    node.engine.dispose()
    return folder


def only_images_are_gone(node: KeptStudies) -> None:
    assert node.spool.study(STUDY) is None
    assert len(node.image_files()) == len(hydrops_study())
    assert len(node.result_files()) == len(node.outbox.deliveries(STUDY)) + len(node.outbox.deliveries(OTHER))
    assert node.events().count(StudyEvent.ERASED) == 1
    assert (node.folder / "views" / node.record().work_id.partition("-")[0]).is_dir()


def everything_is_gone(node: KeptStudies) -> None:
    assert node.ledger.get(STUDY) is None
    assert len(node.image_files()) == len(hydrops_study())
    assert len(node.result_files()) == len(node.outbox.deliveries(OTHER))
    assert list((node.folder / "views").iterdir()) == []


@pytest.mark.parametrize(
    ("days", "holds", "entry"),
    [
        (15.0, only_images_are_gone, AuditAction.IMAGES_ERASED),
        (101.0, everything_is_gone, AuditAction.STUDY_ERASED),
    ],
    ids=["images", "everything"],
)
def test_s25_a_kill_before_any_step_of_an_erasure_is_finished_by_the_next_round(
    prepared: Path, tmp_path: Path, days: float, holds: Callable[[KeptStudies], None], entry: AuditAction
) -> None:
    killed = 0
    for kill_at in chain(range(1, 7), count(7, 5)):  # every step was tried once; the files go one like the other
        folder = tmp_path / f"killed-at-{kill_at}"
        shutil.copytree(prepared, folder)
        status = erase(folder, kill_at=kill_at, days=days)
        if status == FINISHED:
            break
        assert status == -signal.SIGKILL
        killed += 1
        assert erase(folder, kill_at=0, days=days) == FINISHED
        node = KeptStudies(folder, clock=time.time)
        assert node.spool.sweep().reindexed == (), "no erased image comes back at the next start"
        holds(node)
        assert node.spool.study(OTHER) is not None
        assert all(path.path.exists() for path in node.spool.instances(OTHER))
        assert entry in {one.action for one in node.audit.entries()}
        assert node.audit.verify() == []
        node.engine.dispose()
        shutil.rmtree(folder)
    assert killed > 6 + len(hydrops_study()) // 5, "each file is a step, and there are those before and after"
