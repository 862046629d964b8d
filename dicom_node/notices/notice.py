"""One notice: what happened, in our own words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class NoticeKind(StrEnum):
    """What a notice is about; the values are those of `notices.about` in the settings."""

    STUDY_REFUSED = "study_refused"
    STUDY_FAILED = "study_failed"
    DEAD_LETTER = "dead_letter"
    DISK_LOW = "disk_low"
    WORKER_GONE = "worker_gone"
    ORTHANC_UNREACHABLE = "orthanc_unreachable"
    TEST = "test"

    @property
    def words(self) -> str:
        """For people."""
        return _WORDS[self]


_WORDS = {
    NoticeKind.STUDY_REFUSED: "study refused",
    NoticeKind.STUDY_FAILED: "study failed",
    NoticeKind.DEAD_LETTER: "result not delivered",
    NoticeKind.DISK_LOW: "disk nearly full",
    NoticeKind.WORKER_GONE: "worker gone",
    NoticeKind.ORTHANC_UNREACHABLE: "Orthanc unreachable",
    NoticeKind.TEST: "test",
}


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One thing to tell, numbered in the order of happening. `at` is POSIX seconds.

    `text` holds our own sentences only, never a value that a sender wrote; `study_instance_uid` is empty where no
    study is meant.
    """

    number: int
    kind: NoticeKind
    at: float
    text: str
    study_instance_uid: str = ""
