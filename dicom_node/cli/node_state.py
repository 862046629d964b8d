"""What the receiving process knows of the whole node, for `GET /health` and `GET /metrics`."""

from __future__ import annotations

import time

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from dicom_node import __version__
from dicom_node.cli.heartbeat import worker_reports, worker_signs
from dicom_node.cli.live_configuration import LiveConfiguration
from dicom_node.cli.retaining import RetentionKeeper
from dicom_node.cli.step_durations import BOUNDS_S
from dicom_node.cli.wiring import audit_sent_up_to, audit_trail
from dicom_node.delivery.completion import commitment_counts
from dicom_node.delivery.outbox import Outbox
from dicom_node.duties import duties
from dicom_node.intake.listener import Listener
from dicom_node.intake.orthanc_feed import FeedCondition, OrthancFeed
from dicom_node.intake.spool import Spool
from dicom_node.ledger import Ledger
from dicom_node.retention import Erased
from dicom_node.settings import LoadedSettings
from dicom_node.web.node_health import HealthSnapshot
from dicom_node.web.node_numbers import BacklogNumbers, ErasedNumbers, FeedNumbers, NodeNumbers, WorkerNumbers


class NodeState:
    """What this node knows of itself. A database that does not answer is told, not raised."""

    def __init__(
        self,
        loaded: LoadedSettings,
        engine: Engine,
        *,
        spool: Spool,
        ledger: Ledger,
        outbox: Outbox,
        listener: Listener | None,
        feed: OrthancFeed | None,
        configuration: LiveConfiguration | None = None,
        keeper: RetentionKeeper | None = None,
    ) -> None:
        self._loaded = loaded
        self._engine = engine
        self._spool = spool
        self._listener = listener
        self._feed = feed
        self._ledger = ledger
        self._outbox = outbox
        self._configuration = configuration
        self._keeper = keeper

    def snapshot(self) -> HealthSnapshot:
        """The state now, to be judged."""
        queues: dict[str, int] = {}
        try:
            with self._engine.connect() as connection:
                connection.execute(text("SELECT 1"))
            queues = self._queues()
            database_ok = True
        except SQLAlchemyError:
            database_ok = False
        worker = worker_signs(self._loaded.state_dir)
        feed = None if self._feed is None else self._feed.status()
        live = None if self._configuration is None else self._configuration.state
        return HealthSnapshot(
            listener_up=None if self._listener is None else self._listener.is_running,
            database_ok=database_ok,
            disk_free_bytes=self._spool.free_bytes(),
            min_free_bytes=self._loaded.settings.listener.min_free_bytes,
            worker_heartbeat_age_s=worker.age_s,
            queues=queues,
            dead_deliveries=worker.dead_deliveries,
            orthanc_feed=None if feed is None else feed.condition.value,
            orthanc_problem="" if feed is None else feed.detail,
            configuration_problem="" if live is None else live.problem,
            configuration_restart_needed=() if live is None else live.restart_needed,
        )

    def _queues(self) -> dict[str, int]:
        counts = {f"studies_{state.value}": count for state, count in self._ledger.counts().items()}
        counts |= {f"deliveries_{state.value}": count for state, count in self._outbox.counts().items()}
        for (_destination, state), count in commitment_counts(self._engine).items():
            counts[f"commitments_{state.value}"] = counts.get(f"commitments_{state.value}", 0) + count
        return counts

    def numbers(self) -> NodeNumbers:
        """The numbers now, to be plotted."""
        try:
            studies = {state.value: count for state, count in self._ledger.counts().items()}
            backlog = self._backlog()
            found_duties = duties(self._engine)
            commitments = commitment_counts(self._engine)
            database_ok = True
        except SQLAlchemyError:
            studies, backlog, commitments, found_duties, database_ok = {}, [], {}, [], False
        listener = self._listener
        return NodeNumbers(
            version=__version__,
            database_ok=database_ok,
            disk_free_bytes=self._spool.free_bytes(),
            disk_required_bytes=self._loaded.settings.listener.min_free_bytes,
            images=None if listener is None else listener.tally.images(),
            rejections=None if listener is None else listener.tally.rejections(),
            associations_open=listener.live_associations if listener is not None and listener.is_running else None,
            feed=self._feed_numbers(),
            studies=studies,
            backlog=backlog,
            commitments={(name, state.value): count for (name, state), count in commitments.items()},
            workers=[
                WorkerNumbers(
                    worker_id=one.worker_id,
                    age_s=one.age_s,
                    memory_bytes=one.memory_bytes,
                    model=one.model,
                    steps=one.steps,
                )
                for one in worker_reports(self._loaded.state_dir)
            ],
            step_bounds_s=BOUNDS_S,
            duties=found_duties,
            state_bytes=None if self._keeper is None else self._keeper.disk_use,
            erased=None if self._keeper is None else _erased_numbers(self._keeper.erased),
            audit_waiting=self._audit_waiting(),
        )

    def _audit_waiting(self) -> int | None:
        try:
            sent = audit_sent_up_to(self._loaded)
            end = None if sent is None else audit_trail(self._loaded).end()
        except OSError:  # our own disk; other numbers tell of that
            return None
        return None if sent is None else max(0, (0 if end is None else end[0]) - sent)

    def _backlog(self) -> list[BacklogNumbers]:
        now = time.time()
        return [
            BacklogNumbers(
                destination=one.destination,
                state=one.state.value,
                count=one.count,
                oldest_s=None if one.oldest_queued_at is None else now - one.oldest_queued_at,
            )
            for one in self._outbox.backlog()
        ]

    def _feed_numbers(self) -> FeedNumbers | None:
        if self._feed is None:
            return None
        status = self._feed.status()
        return FeedNumbers(
            reading=status.condition is FeedCondition.READING,
            taken=status.fetched,
            left_out=status.left_out,
            changes_behind=status.behind,
            age_s=None if status.read_at is None else time.time() - status.read_at,
        )


def _erased_numbers(erased: Erased) -> ErasedNumbers:
    return ErasedNumbers(images_of=erased.images_of, studies=erased.studies, bytes=erased.bytes)
