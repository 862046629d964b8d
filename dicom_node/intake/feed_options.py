"""How often and how much is read from an Orthanc."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FeedOptions:
    """How often and how much.

    `source` is what the spool notes as sender. `transfer_syntaxes` are those that the listener offers; None takes
    every one that the spool can keep. An instance that Orthanc fails on `attempts_per_instance` times, while it
    answers otherwise, is given up until the next reconciliation, so that one bad file does not hold up all studies.
    A series that Orthanc calls stable is taken for whole when it was seen unchanged for `quiet_s`.
    """

    source: str = "ORTHANC"
    poll_interval_s: float = 5.0
    reconcile_interval_s: float = 300.0
    reconcile_window_h: float = 72.0
    page_size: int = 1000
    parallel: int = 8
    max_instance_bytes: int = 2**30
    transfer_syntaxes: frozenset[str] | None = None
    attempts_per_instance: int = 5
    quiet_s: float = 30.0
