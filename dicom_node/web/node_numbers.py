"""What the node counts of itself at one moment, for `GET /metrics`; nothing here names a patient or a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dicom_node.duties import Duty


@dataclass(frozen=True, kw_only=True)
class FeedNumbers:
    """Reading from Orthanc since the start; `age_s` since its log was last read to the end, None before that."""

    reading: bool
    taken: int
    left_out: int
    changes_behind: int
    age_s: float | None


@dataclass(frozen=True, kw_only=True)
class BacklogNumbers:
    """Deliveries of one destination in one state; `oldest_s` is how long the oldest one waits, None in other states."""

    destination: str
    state: str
    count: int
    oldest_s: float | None


@dataclass(frozen=True, kw_only=True)
class WorkerNumbers:
    """What one worker said of itself; `steps` is step -> counts by bound and sum of seconds."""

    worker_id: str
    age_s: float
    memory_bytes: int
    model: Mapping[str, str]
    steps: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ErasedNumbers:
    """Erased since the start: the images of so many studies, so many studies with everything, so many bytes."""

    images_of: int
    studies: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class NodeNumbers:
    """Everything that is counted. None: that part is not run by this process.

    `commitments`: delivered objects by destination and by where the receiver's word for them stands.

    `images` and `rejections` are by our own outcome codes; `step_bounds_s` are the histogram's upper bounds;
    `state_bytes` is what each part of the state folder took when it was last looked at, None before that;
    `audit_waiting` counts audit entries that the syslog server has not read, None where there is no such server.
    """

    version: str
    database_ok: bool
    disk_free_bytes: int
    disk_required_bytes: int
    images: Mapping[str, int] | None
    associations_open: int | None
    rejections: Mapping[str, int] | None
    feed: FeedNumbers | None
    studies: Mapping[str, int] = field(default_factory=dict)
    backlog: Sequence[BacklogNumbers] = ()
    commitments: Mapping[tuple[str, str], int] = field(default_factory=dict)
    workers: Sequence[WorkerNumbers] = ()
    step_bounds_s: Sequence[float] = ()
    duties: Sequence[Duty] = ()
    state_bytes: Mapping[str, int] | None = None
    erased: ErasedNumbers | None = None
    audit_waiting: int | None = None


class NumberSource(Protocol):
    """Whoever can count. It answers within a second and does not raise when a part is down."""

    def numbers(self) -> NodeNumbers:
        """The numbers now."""
        ...
