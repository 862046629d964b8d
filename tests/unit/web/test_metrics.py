"""What a scrape of `GET /metrics` says, who may read it, and what no sender can do to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi import FastAPI
from prometheus_client.core import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from workers import a_worker

from dicom_node.duties import Duty
from dicom_node.web import metrics
from dicom_node.web.metrics import NodeCollector
from dicom_node.web.node_numbers import BacklogNumbers, FeedNumbers, NodeNumbers, WorkerNumbers

ON_DUTY = a_worker("worker-1", beat_at=9.0, silent_s=1.0)
SILENT = replace(ON_DUTY, worker_id="worker-2", silent_s=60.0)

NUMBERS = NodeNumbers(
    version="1.2.3",
    database_ok=True,
    disk_free_bytes=7_000,
    disk_required_bytes=5_000,
    images={"new": 416, "duplicate": 2, "WIRE_TRUNCATED": 1},
    associations_open=3,
    rejections={"1/1/3": 9},
    feed=FeedNumbers(reading=True, taken=104, left_out=2, changes_behind=5, age_s=4.0),
    studies={"computed": 12, "failed": 1},
    backlog=(
        BacklogNumbers(destination="pacs", state="waiting", count=4, oldest_s=3600.0),
        BacklogNumbers(destination="pacs", state="stopped", count=2, oldest_s=None),
        BacklogNumbers(destination="archive", state="stopped", count=1, oldest_s=None),
    ),
    commitments={("pacs", "not_committed"): 2, ("pacs", "committed"): 40},
    workers=(
        WorkerNumbers(
            worker_id="worker-1",
            age_s=1.5,
            memory_bytes=2**30,
            model={"name": "hydrops-ear", "version": "1", "sha256": "ab" * 32},
            steps={"find ears": {"counts": [0, 2, 1], "sum_s": 7.5}},
        ),
    ),
    step_bounds_s=(1.0, 3.0),
    duties=(Duty(worker=ON_DUTY, study_instance_uid="2.25.1", taken_from="worker-2"), Duty(worker=SILENT)),
)


class Counted:
    def numbers(self) -> NodeNumbers:
        return NUMBERS


def samples(numbers: NodeNumbers = NUMBERS) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, labels) -> value of one scrape."""

    class Source:
        def numbers(self) -> NodeNumbers:
            return numbers

    registry = CollectorRegistry()
    registry.register(NodeCollector(Source()))
    text = metrics.generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_number_of_the_node_is_in_the_scrape() -> None:
    found = samples()
    assert found["hydrops_images_total", (("outcome", "WIRE_TRUNCATED"),)] == 1
    assert found["hydrops_associations_rejected_total", (("code", "1/1/3"),)] == 9
    assert found["hydrops_associations_open", ()] == 3
    assert found["hydrops_studies", (("state", "failed"),)] == 1
    assert found["hydrops_deliveries", (("destination", "pacs"), ("state", "waiting"))] == 4
    assert found["hydrops_delivery_oldest_waiting_seconds", (("destination", "pacs"),)] == 3600.0
    assert found["hydrops_dead_letters", ()] == 3
    assert found["hydrops_commitments", (("destination", "pacs"), ("state", "not_committed"))] == 2
    assert found["hydrops_orthanc_changes_behind", ()] == 5
    assert found["hydrops_worker_heartbeat_age_seconds", (("worker", "worker-1"),)] == 1.5
    assert found["hydrops_worker_memory_bytes", (("worker", "worker-1"),)] == 2**30
    assert found["hydrops_worker_on_duty", (("host", "box-1"), ("worker", "worker-1"))] == 1
    assert found["hydrops_worker_on_duty", (("host", "box-1"), ("worker", "worker-2"))] == 0
    assert found["hydrops_worker_at_study", (("taken_over", "yes"), ("worker", "worker-1"))] == 1
    assert found["hydrops_worker_at_study", (("taken_over", "no"), ("worker", "worker-2"))] == 0
    assert found["hydrops_disk_free_bytes", ()] == 7_000
    model = (("name", "hydrops-ear"), ("sha256", "ab" * 32), ("version", "1"), ("worker", "worker-1"))
    assert found["hydrops_model_info", model] == 1


def test_the_buckets_of_a_step_are_cumulative() -> None:
    found = samples()
    labels = (("step", "find ears"), ("worker", "worker-1"))
    buckets = [found["hydrops_step_seconds_bucket", (("le", le), *labels)] for le in ("1.0", "3.0", "+Inf")]
    assert buckets == [0, 2, 3]
    assert found["hydrops_step_seconds_sum", labels] == 7.5
    assert found["hydrops_step_seconds_count", labels] == 3


def test_parts_that_this_process_does_not_run_are_absent_and_not_zero() -> None:
    found = samples(replace(NUMBERS, images=None, rejections=None, associations_open=None, feed=None))
    names = {name for name, _ in found}
    assert not names & {"hydrops_associations_open", "hydrops_orthanc_reading", "hydrops_images_total"}
    assert "hydrops_studies" in names


@pytest.fixture
def app() -> FastAPI:
    class Parts:
        numbers = Counted()
        metrics_token = "s3cret"

    application = FastAPI()
    application.include_router(metrics.router(Parts()))  # type: ignore[arg-type]  # the two fields that it reads
    return application


@pytest.fixture
def near(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, client=("127.0.0.1", 50000)) as client:
        yield client


@pytest.fixture
def far(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, client=("10.1.2.3", 50000)) as client:
        yield client


def test_this_machine_reads_without_a_token(near: TestClient) -> None:
    answer = near.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "hydrops_images_total" in answer.text
    assert "process_resident_memory_bytes" in answer.text


@pytest.mark.parametrize("said", ["", "Bearer wrong", "s3cret", "Bearer s3cret ", "Bearer \u00e9"])
def test_another_machine_needs_the_token(far: TestClient, said: str) -> None:
    answer = far.get("/metrics", headers={"Authorization": said.encode()} if said else {})
    assert answer.status_code == 403
    assert "hydrops_images" not in answer.text


def test_another_machine_reads_with_the_token(far: TestClient) -> None:
    assert far.get("/metrics", headers={"Authorization": "Bearer s3cret"}).status_code == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_a_proxy_on_this_machine_is_no_way_around_the_token(near: TestClient, header: str) -> None:
    assert near.get("/metrics", headers={header: "10.1.2.3"}).status_code == 403
