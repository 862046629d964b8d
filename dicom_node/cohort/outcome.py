"""What became of one source; light enough for a process that computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Json = Mapping[str, Any]


class SourceState(StrEnum):
    """What became of a source."""

    COMPUTED = "computed"
    REFUSED = "refused"
    UNUSABLE = "unusable"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class SourceOutcome:
    """What became of one source, and the little that is told of whose it is.

    `findings` is the content of findings.json; None if there is no such file, and then `problem` says why.
    `study_date` is YYYYMMDD, `scanner` manufacturer and model; both are empty where no header says so.
    """

    name: str
    folder: str
    state: SourceState
    findings: Json | None = None
    problem: str = ""
    done_before: bool = False
    patient_id: str = ""
    study_date: str = ""
    scanner: str = ""
    seconds: float = 0.0
