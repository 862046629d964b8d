"""The durable workflow on its real engine: pinned facts, retries, faults, and the same on PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS
from dbos._error import DBOSMaxStepRetriesExceeded
from desk_parts import URGENT_SENDER, DeskParts, hydrops_study
from local_node import LocalNode
from local_postgresql import running_postgresql
from patience import PATIENCE_S, STUDY_S, wait_until
from phantom_patients import images_of

from dicom_node.database import open_database
from dicom_node.errors import TransientError
from dicom_node.examination import Work
from dicom_node.ledger import Ledger, StudyEvent, StudyState
from dicom_node.look_pace import LookPace
from dicom_node.roster import BEAT_S, Roster
from dicom_node.workflow import APPLICATION_VERSION, StudyWorker, forget_runs_before
from inference.phantom import PhantomOptions, make_study

WORKER = "worker-7"


@dataclass(frozen=True, kw_only=True)
class RunningWorker:
    """A worker in its thread; there is one for all tests here, because the engine is one for each process."""

    parts: DeskParts
    folder: Path
    gate: threading.Lock
    """Who holds it keeps the next study from beginning."""
    faults: threading.Semaphore
    """Released each time that the worker is to begin anew because of a fault; this one goes on as it is."""
    told_at_start: list[bool] = field(default_factory=list)
    """Whether a fault of its first look, over study 2.25.300, was told."""
    noted: list[list[str]] = field(default_factory=list)
    """Which steps of which runs the engine had noted by then."""
    failed_afterwards: threading.Event = field(default_factory=threading.Event)
    """Set when what follows a look round has failed."""

    def finish(self, study: str) -> tuple[StudyState, str]:
        """Send the study, and wait for what becomes of it."""
        self.parts.receive(hydrops_study(study), at=time.time())
        wait_until(lambda: self.is_finished(study))
        return self.parts.state(study)

    def is_finished(self, study: str) -> bool:
        record = self.parts.ledger.get(study)
        return record is not None and record.state in (StudyState.REFUSED, StudyState.FAILED)

    def fault(self) -> None:
        """What the worker calls; at its first look, before the engine is launched, that has noted nothing."""
        if self.told_at_start:
            self.noted.append(steps_noted(self.folder))
        self.faults.release()

    def fail_afterwards(self) -> int:
        """What the worker calls after its looks, with a fault in it every time."""
        self.failed_afterwards.set()
        raise ValueError("a fault in what nobody waits for")

    def runs(self, study: str) -> list[Any]:
        """The engine's rows about a study, in the order in which they were made."""
        engine = sa.create_engine(f"sqlite:///{self.folder / 'workflow.db'}")
        query = sa.text(
            "SELECT s.*, i.inputs AS arguments FROM workflow_status s JOIN workflow_input i USING (workflow_uuid) "
            "WHERE workflow_uuid LIKE :study ORDER BY s.created_at"
        )
        with engine.connect() as connection:
            return list(connection.execute(query, {"study": f"{study}:%"}).mappings())


def steps_noted(folder: Path) -> list[str]:
    """`run step` for everything that the engine has noted."""
    query = sa.text("SELECT workflow_uuid || ' ' || function_name FROM operation_outputs")
    with sa.create_engine(f"sqlite:///{folder / 'workflow.db'}").connect() as connection:
        return list(connection.scalars(query))


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    folder = tmp_path_factory.mktemp("worker")
    parts, gate = DeskParts(folder, clock=time.time), threading.Lock()
    running = RunningWorker(parts=parts, folder=folder, gate=gate, faults=threading.Semaphore(0))
    worker = StudyWorker(
        parts.desk,
        workflow_url=f"sqlite:///{folder / 'workflow.db'}",
        worker_id=WORKER,
        roster=Roster(parts.engine),
        pace=LookPace(parts.engine, clock=time.time, monotonic=time.monotonic),
        gate=gate,
        on_fault=running.fault,
        after_look=running.fail_afterwards,
    )
    stop, ended = threading.Event(), threading.Event()

    def run() -> None:
        worker.run(stop)
        ended.set()

    thread = threading.Thread(target=run)
    whole = parts.desk._examiner.examine

    def refused_once(*_arguments: object, **_named: object) -> None:
        parts.desk._examiner.examine = whole  # type: ignore[method-assign]
        raise MemoryError

    parts.receive(hydrops_study("2.25.300"), at=time.time() - 60.0)
    parts.desk._examiner.examine = refused_once  # type: ignore[method-assign, assignment]
    thread.start()
    wait_until(lambda: running.is_finished("2.25.300"))
    running.told_at_start.append(running.faults.acquire(blocking=False))
    yield running
    parts.desk.runs.stopped_in_order = database_is_away  # type: ignore[method-assign]
    stop.set()
    thread.join(PATIENCE_S)
    assert ended.is_set()  # in order, though that could not be noted


def database_is_away() -> None:
    raise sa.exc.OperationalError("COMMIT", None, OSError("database or disk is full"))


def test_a_fault_in_what_nobody_waits_for_keeps_no_study_waiting(worker: RunningWorker) -> None:
    state, _ = worker.finish("2.25.299")
    assert state is StudyState.REFUSED
    assert worker.failed_afterwards.is_set()


def test_a_study_runs_once_under_an_id_made_from_its_work(worker: RunningWorker) -> None:
    state, _ = worker.finish("2.25.301")
    assert state is StudyState.REFUSED
    record = worker.parts.record("2.25.301")
    wait_until(lambda: worker.runs("2.25.301")[0]["status"] == "SUCCESS")
    (run,) = worker.runs("2.25.301")
    assert run["workflow_uuid"] == f"2.25.301:{record.work_id}:{record.work['revision']}"


def test_urgent_studies_and_what_a_person_put_first_overtake_those_that_stand_in_line(worker: RunningWorker) -> None:
    parts, begun = worker.parts, [f"2.25.{number}" for number in range(330, 335)]
    at_it, routine, another, urgent, first = begun
    with worker.gate:
        for study in begun:
            source = URGENT_SENDER if study == urgent else "SCANNER"
            parts.receive(hydrops_study(study), at=time.time(), source=source)
            wait_until(lambda uid=study: parts.ledger.get(uid) and parts.record(uid).state is StudyState.QUEUED)
            # The engine has the first one in hand before the next is there: then the others are what stands in line.
            wait_until(lambda: [run["status"] for run in worker.runs(at_it)] == ["PENDING"])
        assert parts.actions.first(first, "anna").accepted
        wait_until(lambda: len(worker.runs(first)) == 2)
    wait_until(lambda: all(worker.is_finished(study) for study in begun))
    began_at = {
        study: next(line.at for line in parts.ledger.history(study) if line.event is StudyEvent.STARTED)
        for study in begun
    }
    assert sorted(begun, key=began_at.__getitem__) == [at_it, first, urgent, routine, another]


def test_runs_that_are_over_are_forgotten_with_everything_the_engine_kept_of_them(worker: RunningWorker) -> None:
    worker.finish("2.25.320")
    wait_until(lambda: worker.runs("2.25.320")[0]["status"] == "SUCCESS")
    assert forget_runs_before(time.time() - 3600) == 0
    assert forget_runs_before(time.time() + 1) >= 1
    assert worker.runs("2.25.320") == []
    engine = sa.create_engine(f"sqlite:///{worker.folder / 'workflow.db'}")
    with engine.connect() as connection:
        for table in ("workflow_input", "workflow_output", "operation_outputs"):
            left = sa.text(f"SELECT count(*) FROM {table} WHERE workflow_uuid LIKE '2.25.320:%'")
            assert connection.execute(left).scalar_one() == 0
    assert worker.parts.record("2.25.320").state is StudyState.REFUSED
    state, _ = worker.finish("2.25.321")
    assert state is StudyState.REFUSED


def test_version_executor_and_serialization_are_the_pinned_ones(worker: RunningWorker) -> None:
    worker.finish("2.25.302")
    (run,) = worker.runs("2.25.302")
    assert (run["application_version"], run["executor_id"]) == (APPLICATION_VERSION, WORKER)
    assert run["serialization"] == "portable_json"  # a later version can read it, and reading it runs no code
    assert worker.parts.record("2.25.302").work in json.loads(run["arguments"])["positionalArgs"]


def test_a_disk_that_fails_for_a_moment_is_tried_again(worker: RunningWorker) -> None:
    outbox, away = worker.folder / "outbox", worker.folder / "outbox-away"
    outbox.rename(away)
    worker.parts.receive(hydrops_study("2.25.303"), at=time.time())
    wait_until(
        lambda: worker.parts.ledger.get("2.25.303") and worker.parts.record("2.25.303").step == "find ears"
    )  # the last one
    time.sleep(3.0)
    assert not worker.is_finished("2.25.303")
    away.rename(outbox)
    wait_until(lambda: worker.is_finished("2.25.303"))
    assert worker.parts.record("2.25.303").state is StudyState.REFUSED
    assert worker.parts.sent("2.25.303") == [("SR", "pacs")]


def memory_is_refused(worker: RunningWorker, patch: pytest.MonkeyPatch, *, times: int) -> None:
    """Have the next so many computations meet a machine without memory."""
    whole, left = worker.parts.spool.set_damaged_aside, list(range(times))

    def refused(study: str) -> list[str]:
        if left:
            left.pop()
            raise MemoryError
        return whole(study)

    patch.setattr(worker.parts.spool, "set_damaged_aside", refused)


def test_f24_a_study_that_memory_was_refused_for_is_tried_once_more(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_is_refused(worker, monkeypatch, times=1)
    assert worker.finish("2.25.304")[0] is StudyState.REFUSED
    assert worker.parts.events("2.25.304").count(StudyEvent.FAULTED) == 1
    assert worker.parts.sent("2.25.304") == [("SR", "pacs")]
    assert worker.faults.acquire(timeout=PATIENCE_S)
    wait_until(lambda: [run["status"] for run in worker.runs("2.25.304")] == ["ERROR", "SUCCESS"])
    assert worker.finish("2.25.305")[0] is StudyState.REFUSED
    assert not worker.faults.acquire(blocking=False)  # a refusal is no fault


def test_f24_a_fault_of_the_first_look_has_the_worker_begin_anew_too(worker: RunningWorker) -> None:
    assert worker.told_at_start == [True]
    assert worker.parts.events("2.25.300").count(StudyEvent.FAULTED) == 1


def test_f24_a_study_that_memory_is_refused_for_twice_has_failed_and_the_next_study_goes_on(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_is_refused(worker, monkeypatch, times=2)
    assert worker.finish("2.25.315") == (StudyState.FAILED, "INTERNAL")
    detail = worker.parts.record("2.25.315").detail
    assert detail.startswith("2 workers failed on it or ended over it, the last one because of this: memory ran out")
    assert worker.parts.events("2.25.315").count(StudyEvent.STARTED) == 2
    wait_until(lambda: worker.parts.sent("2.25.315") == [("SR", "pacs")])  # which says that the node failed
    assert worker.finish("2.25.316")[0] is StudyState.REFUSED
    for _ in range(2):
        assert worker.faults.acquire(timeout=PATIENCE_S)
    assert not worker.faults.acquire(blocking=False)


def test_f24_a_worker_begins_anew_once_for_one_fault_when_its_study_is_seen_to(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_is_refused(worker, monkeypatch, times=1)
    worker.finish("2.25.317")
    assert worker.faults.acquire(timeout=PATIENCE_S)
    wait_until(lambda: [run["status"] for run in worker.runs("2.25.317")] == ["ERROR", "SUCCESS"])
    faulty = worker.runs("2.25.317")[0]["workflow_uuid"]
    noted = [step for step in worker.noted[-1] if step.startswith(f"{faulty} ")]
    assert [step.rpartition(".")[2].rpartition(" ")[2] for step in noted] == ["compute", "fail"]
    # As it stands when the process begins anew between the last step and the end of the run.
    with sa.create_engine(f"sqlite:///{worker.folder / 'workflow.db'}").begin() as connection:
        again = sa.text("UPDATE workflow_status SET status = 'PENDING' WHERE workflow_uuid = :run")
        connection.execute(again, {"run": faulty})
    assert faulty in [run.workflow_id for run in DBOS._recover_pending_workflows([WORKER])]
    wait_until(lambda: [run["status"] for run in worker.runs("2.25.317")] == ["ERROR", "SUCCESS"])
    assert not worker.faults.acquire(blocking=False)
    assert worker.parts.state("2.25.317")[0] is StudyState.REFUSED


def test_f15_a_disk_that_stays_full_fails_its_study_and_is_no_fault_after_which_the_worker_begins_anew(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = TransientError("outbox on disk: No space left on device")

    def all_attempts_were_in_vain(_work: Work) -> None:
        raise DBOSMaxStepRetriesExceeded("compute", 8, [full] * 8)  # as the engine does, four minutes later

    monkeypatch.setattr(worker.parts.desk, "compute", all_attempts_were_in_vain)
    assert worker.finish("2.25.314") == (StudyState.FAILED, "INTERNAL")
    monkeypatch.undo()
    wait_until(lambda: worker.runs("2.25.314")[0]["status"] == "ERROR")
    assert not worker.faults.acquire(blocking=False)


def test_a_look_round_that_the_disk_breaks_off_ends_no_worker_and_loses_no_work(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_round = worker.parts.desk.look_round
    broken: list[object] = []

    def breaks_off_once_it_made_work() -> list[Work]:
        ready = look_round()
        if ready and not broken:
            broken.append(ready)
            raise TransientError("audit trail on disk: No space left on device")
        return ready

    monkeypatch.setattr(worker.parts.desk, "look_round", breaks_off_once_it_made_work)
    assert worker.finish("2.25.306")[0] is StudyState.REFUSED
    assert len(broken) == 1


def test_a_study_whose_runs_are_over_without_an_outcome_is_failed_and_can_be_retried(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = "2.25.307"
    look_round = worker.parts.desk.look_round

    def breaks_off_once() -> list[Work]:
        if not broken:
            broken.append(True)
            raise TransientError("state database: gone")
        return look_round()

    worker.finish(study)
    for expected in (StudyState.REFUSED, StudyState.FAILED):
        wait_until(lambda: all(run["status"] == "SUCCESS" for run in worker.runs(study)))
        with worker.parts.engine.begin() as connection:  # as if the database had been away for the outcome
            connection.execute(
                sa.text("UPDATE ledger_studies SET state = 'computing' WHERE study_instance_uid = '2.25.307'")
            )
            connection.execute(sa.text("DELETE FROM ledger_results WHERE study_instance_uid = '2.25.307'"))
        broken: list[object] = []
        monkeypatch.setattr(worker.parts.desk, "look_round", breaks_off_once)
        wait_until(lambda expected=expected: worker.parts.state(study)[0] is expected)
    assert worker.parts.events(study).count(StudyEvent.FAULTED) == 1
    assert "its run ended (SUCCESS) and left no outcome" in worker.parts.record(study).detail
    assert worker.parts.actions.retry(study, "anna").accepted
    wait_until(lambda: worker.parts.state(study)[0] is StudyState.REFUSED)


def test_f05_pictures_owed_by_a_run_that_is_over_are_tried_by_a_run_of_their_own_and_then_given_up(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, parts = "2.25.309", worker.parts
    worker.finish(study)
    wait_until(lambda: worker.runs(study)[0]["status"] == "SUCCESS")
    work = Work.from_json(parts.record(study).work)
    look_round = parts.desk.look_round

    def breaks_off_once() -> list[Work]:
        if not broken:
            broken.append(True)
            raise TransientError("state database: gone")
        return look_round()

    for count in (1, 2):
        broken: list[object] = []
        with parts.ledger.transaction() as connection:  # as after a database from an older backup
            parts.owed.owe(work.work_id, study, work.as_json(), at=time.time(), within=connection)
        monkeypatch.setattr(parts.desk, "look_round", breaks_off_once)
        wait_until(lambda count=count: parts.events(study).count(StudyEvent.NOT_DRAWN) == count)
        wait_until(lambda: all(run["status"] == "SUCCESS" for run in worker.runs(study)))
    told = [line.detail for line in parts.ledger.history(study) if line.event is StudyEvent.NOT_DRAWN]
    assert [run["workflow_uuid"].rpartition("/")[2] for run in worker.runs(study)][1:] == ["pictures"]
    assert "no bright fluid" in told[0]
    assert told[1] == "SEG and SR stand; the runs that were to draw them ended and left none"


def test_f27_what_a_worker_decided_on_and_did_not_live_to_queue_is_queued_by_another(worker: RunningWorker) -> None:
    study = "2.25.308"
    worker.finish(study)
    wait_until(lambda: worker.runs(study)[0]["status"] == "SUCCESS")
    assert forget_runs_before(time.time() + 1) >= 1
    roster = Roster(worker.parts.engine)
    for _ in range(2):
        gone = roster.sign_on("worker-8", "another machine", APPLICATION_VERSION)
        time.sleep(2 * BEAT_S)  # it is seen on duty
        with worker.parts.engine.begin() as connection:  # its last commit
            connection.execute(
                sa.text("UPDATE ledger_studies SET state = 'queued' WHERE study_instance_uid = '2.25.308'")
            )
            connection.execute(sa.text("DELETE FROM ledger_results WHERE study_instance_uid = '2.25.308'"))
        roster.sign_off("worker-8", gone)
        wait_until(lambda: worker.parts.state(study)[0] is StudyState.REFUSED)
        wait_until(lambda: worker.runs(study)[0]["status"] == "SUCCESS")
        forget_runs_before(time.time() + 1)


@pytest.mark.dcmtk
def test_a_study_is_computed_with_all_state_in_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = tmp_path / "study"
    sent.mkdir()
    images = images_of(make_study(PhantomOptions(seed=5)), "MRC", "PPI", "PEI")
    for number, one in enumerate(images):
        one.save_as(sent / f"{number:06d}.dcm", enforce_file_format=True)
    with running_postgresql() as url:
        monkeypatch.setenv("HYDROPS_DATABASE_URL", url)
        ledger = Ledger(open_database(url))
        with LocalNode(tmp_path / "node", entrance="dicom") as node:
            command = ["dcmsend", "-aet", "SCANNER", "-aec", "HYDROPS", "--scan-directories", "127.0.0.1"]
            subprocess.run([*command, str(node.dicom_port), str(sent)], check=True, capture_output=True)
            study = str(images[0].StudyInstanceUID)
            wait_until(lambda: (one := ledger.get(study)) and one.state is StudyState.COMPUTED, seconds=STUDY_S)
            assert node.stop() == 0
        assert not list(node.state_dir.glob("*.db"))
        with sa.create_engine(url).connect() as connection:
            assert connection.scalar(sa.text("SELECT count(*) FROM dbos.workflow_status")) == 1
