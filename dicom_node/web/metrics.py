"""GET /metrics in Prometheus' format: for this machine, or for whoever says the token of ``HYDROPS_METRICS_TOKEN``.

Labels come from our own lists (outcome codes, states, steps) and from the configuration (destinations, workers), never
from a sender: no hostile AE title and no patient can add a time series.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from itertools import accumulate
from typing import Annotated, Final

from fastapi import APIRouter, Header, HTTPException, Request, Response, status
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from dicom_node.web.access import PUBLIC
from dicom_node.web.node_numbers import NodeNumbers, NumberSource
from dicom_node.web.parts import WebParts

_FORWARDED: Final = ("x-forwarded-for", "forwarded")
"""A proxy on this machine calls from loopback for somebody else; then the address says nothing."""


def router(parts: WebParts) -> APIRouter:
    """The one route; without `parts.numbers` it answers 404."""
    found = APIRouter(dependencies=[PUBLIC])
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    if parts.numbers is not None:
        registry.register(NodeCollector(parts.numbers))

    @found.get("/metrics")
    def metrics(request: Request, authorization: Annotated[str, Header()] = "") -> Response:  # on a thread: it counts
        if not _may_read(request, authorization, parts.metrics_token):
            raise HTTPException(
                status.HTTP_403_FORBIDDEN,
                "Metrics are for this machine, or for a bearer token: set HYDROPS_METRICS_TOKEN for the node.",
            )
        if parts.numbers is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return found


def _may_read(request: Request, authorization: str, token: str) -> bool:
    if token and hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        return True
    if any(name in request.headers for name in _FORWARDED):
        return False
    return request.client is not None and _is_loopback(request.client.host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class NodeCollector(Collector):
    """Counts anew at each scrape."""

    def __init__(self, source: NumberSource) -> None:
        self._source = source

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand, so that registering does not count."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric of the node."""
        now = self._source.numbers()
        yield _one("hydrops_database_up", "1 when the state database answers", float(now.database_ok))
        yield InfoMetricFamily("hydrops_node", "This node", value={"version": now.version})
        yield _one("hydrops_disk_free_bytes", "Free space on the state disk", now.disk_free_bytes)
        yield _one("hydrops_disk_required_bytes", "Below this, images are refused", now.disk_required_bytes)
        if now.audit_waiting is not None:
            waiting = "Audit entries that the syslog server has not read yet"
            yield _one("hydrops_audit_entries_waiting", waiting, now.audit_waiting)
        yield from _kept(now)
        yield from _intake(now)
        yield from _feed(now)
        yield _by_label("hydrops_studies", "Studies by state", "state", now.studies.items())
        yield from _deliveries(now)
        yield from _duties(now)
        yield from _workers(now)


def _kept(now: NodeNumbers) -> Iterator[Metric]:
    if now.state_bytes is not None:
        yield _by_label(
            "hydrops_state_bytes", "What is kept, by part of the state folder", "part", now.state_bytes.items()
        )
    if now.erased is not None:
        studies = CounterMetricFamily("hydrops_erased_studies", "Studies erased: images or everything", labels=["what"])
        studies.add_metric(["images"], now.erased.images_of)
        studies.add_metric(["everything"], now.erased.studies)
        yield studies
        yield CounterMetricFamily("hydrops_erased_bytes", "Bytes of files that were erased", value=now.erased.bytes)


def _intake(now: NodeNumbers) -> Iterator[Metric]:
    if now.images is not None:
        images = CounterMetricFamily("hydrops_images", "C-STORE requests by outcome", labels=["outcome"])
        for outcome, count in now.images.items():
            images.add_metric([outcome], count)
        yield images
    if now.rejections is not None:
        rejected = CounterMetricFamily(
            "hydrops_associations_rejected", "Rejected associations, result/source/reason (PS3.8)", labels=["code"]
        )
        for code, count in now.rejections.items():
            rejected.add_metric([code], count)
        yield rejected
    if now.associations_open is not None:
        yield _one("hydrops_associations_open", "Associations that are open", now.associations_open)


def _feed(now: NodeNumbers) -> Iterator[Metric]:
    feed = now.feed
    if feed is None:
        return
    yield _one("hydrops_orthanc_reading", "1 while Orthanc's change log can be read", float(feed.reading))
    yield CounterMetricFamily("hydrops_orthanc_images", "Images taken from Orthanc", value=feed.taken)
    yield _one("hydrops_orthanc_images_left_out", "Images of Orthanc that cannot be taken", feed.left_out)
    yield _one("hydrops_orthanc_changes_behind", "Changes of Orthanc's log that wait", feed.changes_behind)
    if feed.age_s is not None:
        yield _one("hydrops_orthanc_read_age_seconds", "Since Orthanc's log was read to its end", feed.age_s)


def _deliveries(now: NodeNumbers) -> Iterator[Metric]:
    counts = GaugeMetricFamily("hydrops_deliveries", "Deliveries by state", labels=["destination", "state"])
    oldest = GaugeMetricFamily(
        "hydrops_delivery_oldest_waiting_seconds", "How long the oldest delivery waits", labels=["destination"]
    )
    for one in now.backlog:
        counts.add_metric([one.destination, one.state], one.count)
        if one.oldest_s is not None:
            oldest.add_metric([one.destination], one.oldest_s)
    dead = sum(one.count for one in now.backlog if one.state == "stopped")
    commitments = GaugeMetricFamily(
        "hydrops_commitments", "Delivered objects by storage commitment", labels=["destination", "state"]
    )
    for labels, count in now.commitments.items():
        commitments.add_metric(labels, count)
    yield counts
    yield oldest
    yield commitments
    yield _one("hydrops_dead_letters", "Deliveries that were given up and wait for a person", dead)


def _duties(now: NodeNumbers) -> Iterator[Metric]:
    """Of every worker on the state database, on whatever machine; what a worker says of itself is in `_workers`."""
    on_duty = GaugeMetricFamily(
        "hydrops_worker_on_duty", "1 while a worker gives signs of life", labels=["worker", "host"]
    )
    at_study = GaugeMetricFamily(
        "hydrops_worker_at_study",
        "1 while a worker measures; taken_over: begun by another",
        labels=["worker", "taken_over"],
    )
    for one in now.duties:
        on_duty.add_metric([one.worker.worker_id, one.worker.host], float(one.worker.on_duty))
        taken_over = "yes" if one.taken_from else "no"
        at_study.add_metric([one.worker.worker_id, taken_over], float(bool(one.study_instance_uid)))
    yield on_duty
    yield at_study


def _workers(now: NodeNumbers) -> Iterator[Metric]:
    yield _by_label(
        "hydrops_worker_heartbeat_age_seconds",
        "Since a worker's last sign of life",
        "worker",
        ((one.worker_id, one.age_s) for one in now.workers),
    )
    yield _by_label(
        "hydrops_worker_memory_bytes",
        "Resident memory of a worker",
        "worker",
        ((one.worker_id, one.memory_bytes) for one in now.workers),
    )
    model = InfoMetricFamily("hydrops_model", "What makes the numbers", labels=["worker"])
    steps = HistogramMetricFamily("hydrops_step_seconds", "How long a step of a study took", labels=["worker", "step"])
    bounds = [*(str(bound) for bound in now.step_bounds_s), "+Inf"]
    for one in now.workers:
        if one.model:
            model.add_metric([one.worker_id], dict(one.model))
        for step, told in one.steps.items():
            buckets = list(zip(bounds, accumulate(told["counts"]), strict=True))
            steps.add_metric([one.worker_id, step], buckets=buckets, sum_value=told["sum_s"])
    yield model
    yield steps


def _one(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)


def _by_label(name: str, help_text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for key, value in values:
        family.add_metric([key], value)
    return family
