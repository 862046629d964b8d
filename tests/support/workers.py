"""A worker as another process sees it."""

from __future__ import annotations

from typing import Any

from dicom_node.roster import Worker


def a_worker(worker_id: str, **changes: Any) -> Worker:
    """A worker that was heard of just now; `changes` are fields of `Worker`."""
    seen: dict[str, Any] = {
        "worker_id": worker_id,
        "host": "box-1",
        "version": "1",
        "incarnation": "1",
        "beats": 5,
        "began_at": 0.0,
        "beat_at": 0.0,
        "left_at": None,
        "silent_s": 0.0,
    }
    return Worker(**(seen | changes))
