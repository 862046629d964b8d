"""Results in an outbox by one call: what publishing does in two steps, with the study's outcome in between."""

from __future__ import annotations

from collections.abc import Sequence

from dicom_node.delivery.outbox import Outbox, OutboxObject


def put(
    outbox: Outbox,
    key: str,
    study_instance_uid: str,
    objects: Sequence[OutboxObject],
    destinations: Sequence[str],
    at: float,
) -> None:
    """Keep a study's results and queue each for each destination; the same call again changes nothing."""
    outbox.queue(key, study_instance_uid, outbox.keep(objects), destinations, at=at)
