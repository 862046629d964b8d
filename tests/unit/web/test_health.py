"""Health and wake-up through a real HTTP server on the loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import requests
from dashboard_parts import make_parts, serving
from patience import PATIENCE_S

from dicom_node.web.node_health import FOR_ADMINS, WORKER_SILENT_S, HealthSnapshot

GOOD = HealthSnapshot(
    listener_up=True,
    database_ok=True,
    disk_free_bytes=10_000_000_000,
    min_free_bytes=5_000_000_000,
    worker_heartbeat_age_s=1.0,
    queues={"deliveries_waiting": 3, "dead_letters": 1},
    orthanc_feed="reading",
)


@dataclass
class Node:
    """A node whose state the test decides."""

    now: HealthSnapshot = GOOD
    url: str = ""
    woken: threading.Event = field(default_factory=threading.Event)

    def snapshot(self) -> HealthSnapshot:
        return self.now


def _serve(folder: Path, node: Node, token: str) -> Iterator[Node]:
    with serving(make_parts(folder, health=node, wake=node.woken.set, wake_token=token, dashboard=False)) as served:
        node.url = served.url
        yield node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    yield from _serve(tmp_path, Node(), "s3cret")


@pytest.fixture
def open_node(tmp_path: Path) -> Iterator[Node]:
    yield from _serve(tmp_path, Node(), "")


def test_a_healthy_node_answers_200_with_what_it_knows(node: Node) -> None:
    answer = requests.get(f"{node.url}/health", timeout=PATIENCE_S)
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "healthy",
        "problems": [],
        "listener_up": True,
        "database_ok": True,
        "disk_free_bytes": 10_000_000_000,
        "min_free_bytes": 5_000_000_000,
        "worker_heartbeat_age_s": 1.0,
        "queues": {"deliveries_waiting": 3, "dead_letters": 1},
        "dead_deliveries": [],
        "orthanc_feed": "reading",
        "orthanc_problem": "",
        "configuration_problem": "",
        "configuration_restart_needed": [],
    }
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("ill", "words"),
    [
        ({"listener_up": False}, "listener"),
        ({"database_ok": False}, "database"),
        ({"disk_free_bytes": 4_999_999_999}, "4999999999 bytes free"),
        ({"worker_heartbeat_age_s": WORKER_SILENT_S + 1}, "worker has been silent"),
        ({"dead_deliveries": ("pacs",)}, "destination pacs"),
        ({"orthanc_feed": "unreachable", "orthanc_problem": "http://pacs: no route"}, "Orthanc"),
    ],
)
def test_one_ill_part_answers_503_and_names_it(node: Node, ill: dict[str, object], words: str) -> None:
    node.now = replace(GOOD, **ill)
    answer = requests.get(f"{node.url}/health", timeout=PATIENCE_S)
    assert answer.status_code == 503
    assert answer.json()["status"] == "unhealthy"
    (problem,) = answer.json()["problems"]
    assert words in problem


ILL = replace(
    GOOD,
    orthanc_feed="denied",
    orthanc_problem="Orthanc at http://pacs:8042 refuses user 'hydrops'",
    configuration_problem="destinations[0].host: expected a name, found 7",
    configuration_restart_needed=("web.port", "listener.port"),
)


@pytest.mark.parametrize("name", [None, "vera", "rita"])
def test_only_an_admin_reads_what_quotes_the_configuration(tmp_path: Path, name: str | None) -> None:
    with serving(make_parts(tmp_path, health=Node(now=ILL))) as served:
        told = served.client(name).get("/health").text
        assert told.count(FOR_ADMINS) == 4  # Orthanc's stands in the problems as well
        for secret in ("pacs", "hydrops", "destinations", "web.port"):
            assert secret not in told


def test_an_admin_reads_why(tmp_path: Path) -> None:
    with serving(make_parts(tmp_path, health=Node(now=ILL))) as served:
        told = served.client("ada").get("/health").json()
    assert told["configuration_problem"] == ILL.configuration_problem
    assert told["configuration_restart_needed"] == ["web.port", "listener.port"]
    assert told["orthanc_problem"] in told["problems"][0]


def test_parts_that_this_process_does_not_run_are_not_judged(node: Node) -> None:
    node.now = replace(GOOD, listener_up=None, worker_heartbeat_age_s=None)
    assert requests.get(f"{node.url}/health", timeout=PATIENCE_S).status_code == 200


def test_it_is_alive_even_when_unhealthy(node: Node) -> None:
    node.now = replace(GOOD, database_ok=False)
    assert requests.get(f"{node.url}/live", timeout=PATIENCE_S).status_code == 200


def test_a_wake_up_with_the_token_wakes_and_returns_at_once(node: Node) -> None:
    answer = requests.post(f"{node.url}/wake/orthanc", headers={"X-Hydrops-Token": "s3cret"}, timeout=PATIENCE_S)
    assert (answer.status_code, answer.content) == (202, b"")
    assert node.woken.is_set()


@pytest.mark.parametrize("token", [None, "", "S3cret", "s3cret2", "s3cre\u00e9"])
def test_a_wake_up_without_the_right_token_is_turned_away(node: Node, token: str | None) -> None:
    headers = {} if token is None else {"X-Hydrops-Token": token.encode("latin-1")}
    assert requests.post(f"{node.url}/wake/orthanc", headers=headers, timeout=PATIENCE_S).status_code == 401
    assert not node.woken.is_set()


def test_without_a_configured_token_every_caller_on_the_loopback_may_wake(open_node: Node) -> None:
    assert requests.post(f"{open_node.url}/wake/orthanc", timeout=PATIENCE_S).status_code == 202
    assert open_node.woken.is_set()


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/"])
def test_there_are_no_documentation_pages(node: Node, path: str) -> None:
    assert requests.get(f"{node.url}{path}", timeout=PATIENCE_S).status_code == 404


def test_other_origins_get_no_permission(node: Node) -> None:
    asked = {"Origin": "http://elsewhere.example", "Access-Control-Request-Method": "POST"}
    answer = requests.options(f"{node.url}/wake/orthanc", headers=asked, timeout=PATIENCE_S)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_a_wake_up_is_not_a_link_that_a_page_can_follow(node: Node) -> None:
    assert requests.get(f"{node.url}/wake/orthanc", timeout=PATIENCE_S).status_code == 405
    assert not node.woken.is_set()
