"""Whether everything has arrived: by evidence first, by a quiet timer last. A half series is never computed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dicom_node.errors import Refusal


class CompletenessState(StrEnum):
    """COMPLETE: compute now. WAITING: look again at `look_again_at`. EXPIRED: it will not come; refuse."""

    COMPLETE = "complete"
    WAITING = "waiting"
    EXPIRED = "expired"


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """What the spool knows about a series' arrival. Times are POSIX seconds, kept across restarts."""

    series_instance_uid: str
    received: int
    last_received_at: float
    expected: int | None
    """Instance count that the source stated (Orthanc asked back), or None."""


@dataclass(frozen=True, kw_only=True)
class Completeness:
    """The verdict, the rung of the evidence ladder that gave it, and a sentence."""

    state: CompletenessState
    evidence: str
    reason: str
    look_again_at: float | None = None
    refusal: Refusal | None = None
