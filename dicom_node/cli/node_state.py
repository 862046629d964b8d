"""What the receiving process knows of the whole node, for `GET /health`."""

from __future__ import annotations

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.cli.heartbeat import worker_signs
from dicom_node.delivery.outbox import Outbox
from dicom_node.intake.listener import Listener
from dicom_node.intake.orthanc_feed import OrthancFeed
from dicom_node.intake.spool import Spool
from dicom_node.ledger import Ledger, StudyState
from dicom_node.settings import LoadedSettings
from dicom_node.web.node_health import HealthSnapshot


class NodeState:
    """What this node knows of itself, for `GET /health`."""

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
    ) -> None:
        self._loaded = loaded
        self._engine = engine
        self._spool = spool
        self._listener = listener
        self._feed = feed
        self._ledger = ledger
        self._outbox = outbox

    def snapshot(self) -> HealthSnapshot:
        """The state now; a database that does not answer is told, not raised."""
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
        )

    def _queues(self) -> dict[str, int]:
        counts = {f"studies_{state.value}": len(self._ledger.in_state(state)) for state in StudyState}
        return counts | {f"deliveries_{state.value}": count for state, count in self._outbox.counts().items()}
