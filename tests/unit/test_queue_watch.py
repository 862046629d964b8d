"""The engine is spared looks into an empty queue, and never one that could find something."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos._sys_db import SystemDatabase

from dicom_node.queue_watch import QueueWatch

QUEUE = "studies"
THERE = [None]
"""What the engine calls the one place in which a queue is looked at."""


@dataclass
class _Settings:
    name: str


class EngineDatabase:
    """As much of the engine's system database as its queue threads ask, on a real SQLite file."""

    def __init__(self, path: Path) -> None:
        self.engine = sa.create_engine(f"sqlite:///{path}")
        self.asked = 0
        self.settings_read = 0
        self.limit: str | None = None
        with self.engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE line (run TEXT)"))

    def get_queue(self, name: str, *, client_system_database: Any = None) -> _Settings:
        self.settings_read += 1
        return _Settings(name)

    def dequeue_scopes(self, _queue_name: str) -> list[None]:
        return list(THERE)

    def start_queued_workflows(self, _queue: _Settings) -> tuple[list[str], str | None]:
        self.asked += 1
        if self.limit is not None:
            return [], self.limit
        with self.engine.begin() as connection:
            taken = [row.run for row in connection.execute(sa.text("DELETE FROM line RETURNING run"))]
        return taken, None

    def enqueue(self, run: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO line VALUES (:run)"), {"run": run})

    def poll(self, *, busy: bool = False) -> list[str]:
        """One look of a queue thread: settings, whether there is anything to look at, and the look."""
        queue = self.get_queue(QUEUE)
        scopes = self.dequeue_scopes(QUEUE)
        if not scopes or busy:
            return []
        return self.start_queued_workflows(queue)[0]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[EngineDatabase]:
    made = EngineDatabase(tmp_path / "workflow.db")
    QueueWatch.watch(made)
    yield made
    made.engine.dispose()


def test_an_empty_queue_is_looked_at_once_and_then_when_something_was_committed(database: EngineDatabase) -> None:
    for _ in range(20):
        assert database.poll() == []
    assert database.asked <= 2
    database.enqueue("a")
    assert database.poll() == ["a"]


def test_every_run_is_taken_by_the_look_that_follows_it(database: EngineDatabase) -> None:
    for number in range(50):
        database.poll()
        database.enqueue(f"run {number}")
        assert database.poll() == [f"run {number}"]


def test_what_was_queued_while_the_worker_was_at_a_run_is_taken_after_it(database: EngineDatabase) -> None:
    database.poll()
    database.poll()
    database.enqueue("a")
    for _ in range(5):
        assert database.poll(busy=True) == []  # the change is seen, and the queue is not asked
    assert database.poll() == ["a"]


def test_a_queue_that_was_not_looked_through_for_a_limit_does_not_count_as_empty(database: EngineDatabase) -> None:
    database.enqueue("a")
    database.limit = "worker_concurrency"
    for _ in range(3):
        assert database.poll() == []
    database.limit = None
    assert database.poll() == ["a"]


def test_without_any_change_the_queue_is_looked_at_all_the_same_now_and_then(
    database: EngineDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.queue_watch.LOOK_ANYWAY_S", 0.0)
    for _ in range(4):
        database.poll()
    assert database.asked == 4
    assert database.settings_read == 4


def test_the_settings_of_a_queue_are_not_read_for_each_look(database: EngineDatabase) -> None:
    for _ in range(10):
        database.poll()
    assert database.settings_read == 1


def test_the_engine_has_the_three_methods_that_are_replaced_and_calls_them_so() -> None:
    parameters = {
        name: list(inspect.signature(getattr(SystemDatabase, name)).parameters)
        for name in ("get_queue", "dequeue_scopes", "start_queued_workflows")
    }
    assert parameters["get_queue"][:2] == ["self", "name"]
    assert parameters["dequeue_scopes"] == ["self", "queue_name"]
    assert parameters["start_queued_workflows"][:2] == ["self", "queue"]
