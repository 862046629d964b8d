"""What the receiving process counts, with a real listener, database and worker's sign of life."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from desk_parts import DeskParts, hydrops_study
from orthanc_parts import dicom_file
from patience import PATIENCE_S, wait_until
from prometheus_client.core import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pydicom import dcmread
from pynetdicom import AE
from sqlalchemy import text

from dicom_node.audit import AuditAction
from dicom_node.cli.heartbeat import Heartbeat
from dicom_node.cli.messaging import conditions_of, digest_options
from dicom_node.cli.node_state import NodeState
from dicom_node.cli.step_durations import StepDurations
from dicom_node.cli.wiring import audit_trail
from dicom_node.database import open_database
from dicom_node.delivery.reactor_pause import hold_pauses
from dicom_node.intake.listener import AllowedPeer, Listener, ListenerOptions
from dicom_node.intake.orthanc_feed import FeedCondition
from dicom_node.notices.notice import NoticeKind
from dicom_node.settings import LoadedSettings, NoticeSettings, Settings
from dicom_node.settings.sections import NOTICE_SUBJECTS
from dicom_node.web.metrics import NodeCollector
from dicom_node.web.node_health import HealthSnapshot

MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def desk(tmp_path: Path) -> DeskParts:
    return DeskParts(tmp_path)


@pytest.fixture
def listener(desk: DeskParts) -> Iterator[Listener]:
    scanner = AllowedPeer(ae_title="SCANNER", networks=("127.0.0.0/8",))
    one = Listener(ListenerOptions(ae_title="HYDROPS", port=0, allowed=(scanner,)), desk.spool)
    one.start()
    yield one
    one.stop(1.0)


def node(desk: DeskParts, listener: Listener | None) -> NodeState:
    loaded = LoadedSettings(settings=Settings(), config_dir=desk.folder)
    loaded.state_dir.mkdir(exist_ok=True)
    return NodeState(
        loaded, desk.engine, spool=desk.spool, ledger=desk.ledger, outbox=desk.outbox, listener=listener, feed=None
    )


def scrape(state: NodeState) -> dict[tuple[str, str], float]:
    """(name, labels) -> value."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(state))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (one.name, ",".join(f"{key}={value}" for key, value in sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


def send(listener: Listener, *, calling: str = "SCANNER", files: tuple[bytes, ...] = ()) -> bool:
    """Call the listener and store files; whether it let us in."""
    ae = AE(ae_title=calling)
    ae.add_requested_context(MR)
    association = ae.associate("127.0.0.1", listener.port, ae_title="HYDROPS")
    if not association.is_established:
        return False
    hold_pauses(association)
    for one in files:
        association.send_c_store(dcmread(BytesIO(one)))
    association.release()
    return True


def test_images_are_counted_by_what_became_of_them(desk: DeskParts, listener: Listener) -> None:
    image = dicom_file("1.2.3", "1.2.3.4")
    assert send(listener, files=(image, image))
    state = node(desk, listener)
    found = scrape(state)
    assert found["hydrops_images_total", "outcome=new"] == 1
    assert found["hydrops_images_total", "outcome=duplicate"] == 1
    wait_until(lambda: scrape(state)["hydrops_associations_open", ""] == 0)


def test_a_stranger_under_many_names_adds_no_time_series(desk: DeskParts, listener: Listener) -> None:
    state = node(desk, listener)
    assert not send(listener, calling="EVIL")
    before = scrape(state)
    for n in range(30):
        assert not send(listener, calling=f'E{n}"}} 1 #')
    after = scrape(state)
    assert after.keys() == before.keys()
    assert after["hydrops_associations_rejected_total", "code=1/1/3"] == 31


def test_studies_and_deliveries_are_counted_by_state(desk: DeskParts) -> None:
    desk.receive(hydrops_study())
    desk.work_off()
    found = scrape(node(desk, None))
    assert found["hydrops_studies", "state=refused"] == 1
    assert found["hydrops_studies", "state=computed"] == 0
    assert found["hydrops_deliveries", "destination=pacs,state=waiting"] >= 1
    assert found["hydrops_delivery_oldest_waiting_seconds", "destination=pacs"] > 0


def test_a_worker_tells_its_steps_memory_and_model(desk: DeskParts) -> None:
    state, stop, durations = node(desk, None), threading.Event(), StepDurations()
    for seconds in (0.05, 2.0, 500.0):
        durations.add("find ears", seconds)

    def last_words() -> dict[str, object]:
        stop.set()
        return {"model": {"name": "hydrops-ear"}, "steps": durations.as_json()}

    folder = LoadedSettings(settings=Settings(), config_dir=desk.folder).state_dir
    heartbeat = Heartbeat(folder, "worker-1", dead_deliveries=tuple, stop=stop, about=last_words)
    heartbeat.start()
    heartbeat.join(PATIENCE_S)
    assert not heartbeat.is_alive()
    found = scrape(state)
    assert found["hydrops_step_seconds_bucket", "le=0.1,step=find ears,worker=worker-1"] == 1
    assert found["hydrops_step_seconds_bucket", "le=3.0,step=find ears,worker=worker-1"] == 2
    assert found["hydrops_step_seconds_bucket", "le=+Inf,step=find ears,worker=worker-1"] == 3
    assert found["hydrops_step_seconds_sum", "step=find ears,worker=worker-1"] == 502.05
    assert found["hydrops_worker_memory_bytes", "worker=worker-1"] > 10_000_000
    assert found["hydrops_model_info", "name=hydrops-ear,worker=worker-1"] == 1


def test_a_database_that_does_not_answer_is_told_and_not_raised(desk: DeskParts) -> None:
    with desk.engine.begin() as connection:
        connection.execute(text("DROP TABLE ledger_studies"))
    found = scrape(node(desk, None))
    assert found["hydrops_database_up", ""] == 0
    assert found["hydrops_disk_free_bytes", ""] > 0


def test_an_index_that_a_newer_version_declares_is_added_to_an_old_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    old = open_database(url)
    with old.begin() as connection:
        connection.execute(text("DROP INDEX ledger_studies_by_state"))
    old.dispose()
    with open_database(url).connect() as connection:
        plan = connection.execute(
            text("EXPLAIN QUERY PLAN SELECT state, count(*) FROM ledger_studies GROUP BY state")
        ).all()
    assert "COVERING INDEX ledger_studies_by_state" in str(plan)


WELL = HealthSnapshot(
    listener_up=True, database_ok=True, disk_free_bytes=10**12, min_free_bytes=10**9, worker_heartbeat_age_s=1.0
)


def test_a_healthy_node_has_nothing_to_tell() -> None:
    assert set(conditions_of(replace(WELL, orthanc_feed="reading")).values()) == {""}


@pytest.mark.parametrize("orthanc_feed", sorted({*FeedCondition} - {FeedCondition.STARTING, FeedCondition.READING}))
def test_what_is_wrong_is_a_sentence_of_its_own(orthanc_feed: str) -> None:
    ill = replace(
        WELL,
        disk_free_bytes=15 * 10**8,
        worker_heartbeat_age_s=600.0,
        orthanc_feed=orthanc_feed,
        orthanc_problem="HTTP 401",
    )
    found = conditions_of(ill)
    assert found[NoticeKind.DISK_LOW].startswith("1.5 GB are free")
    assert "for 10 minutes" in found[NoticeKind.WORKER_GONE]
    assert found[NoticeKind.ORTHANC_UNREACHABLE] == "No images can be read from Orthanc: HTTP 401"


def test_what_is_not_known_yet_is_neither_well_nor_ill() -> None:
    assert conditions_of(replace(WELL, worker_heartbeat_age_s=None, orthanc_feed="starting")).keys() == {
        NoticeKind.DISK_LOW
    }


def test_the_patient_is_named_only_where_the_settings_say_so(desk: DeskParts) -> None:
    desk.receive(hydrops_study())
    desk.work_off()
    card = desk.cards.get("2.25.100")
    assert card is not None
    for included in (False, True):
        settings = replace(Settings(), notices=NoticeSettings(include_patient=included))
        options = digest_options(LoadedSettings(settings=settings, config_dir=desk.folder), desk.cards)
        assert (card.patient_id in options.patient("2.25.100")) is included
        assert options.patient("2.25.404") == ""


def test_the_settings_know_every_kind_of_notice() -> None:
    assert set(NOTICE_SUBJECTS) == {kind.value for kind in NoticeKind} - {NoticeKind.TEST.value}


def test_audit_entries_that_the_syslog_server_has_not_read_are_counted(desk: DeskParts) -> None:
    settings = replace(Settings(), audit=replace(Settings().audit, syslog_host="syslog.hospital.org"))
    loaded = LoadedSettings(settings=settings, config_dir=desk.folder)
    loaded.state_dir.mkdir(exist_ok=True)
    state = NodeState(
        loaded, desk.engine, spool=desk.spool, ledger=desk.ledger, outbox=desk.outbox, listener=None, feed=None
    )
    assert scrape(state)["hydrops_audit_entries_waiting", ""] == 0
    for _ in range(3):
        audit_trail(loaded).record(AuditAction.NODE_STARTED, actor="anna")
    assert scrape(state)["hydrops_audit_entries_waiting", ""] == 3
    assert ("hydrops_audit_entries_waiting", "") not in scrape(node(desk, None))
