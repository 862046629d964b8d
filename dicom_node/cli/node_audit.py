"""Audit entries about the node itself: its starts and stops, and callers that were turned away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from dicom_node.audit import AuditAction, AuditOutcome, AuditTrail
from dicom_node.audit.forwarding import TrailForwarder
from dicom_node.cli.os_user import os_user
from dicom_node.errors import TransientError
from dicom_node.intake.admission import RejectedCaller

log = logging.getLogger(__name__)

SAME_CALLER_S: Final = 60.0
"""A caller that knocks again and again is one entry a minute: nobody may fill the disk or slow the listener so."""

MAX_CALLERS: Final = 1000
"""As many entries a minute at the most, however many titles and addresses a caller makes up."""


@contextmanager
def audited_run(trail: AuditTrail, part: str, *, forwarder: TrailForwarder | None = None) -> Iterator[None]:
    """Write the start of a part of the node ("receiving", "computing") and its orderly end; forward the trail in it."""
    _record(trail, AuditAction.NODE_STARTED, part)
    if forwarder is not None:
        forwarder.start()
    try:
        yield
    finally:
        _record(trail, AuditAction.NODE_STOPPED, part)
        if forwarder is not None:
            forwarder.stop(LAST_ENTRIES_S)


LAST_ENTRIES_S: Final = 2.0
"""How long a stop waits for the audit repository; what it does not get then it gets after the next start."""


def _record(trail: AuditTrail, action: AuditAction, part: str) -> None:
    try:
        trail.record(action, actor=os_user(), detail=part)
    except TransientError as error:  # a node whose disk is full must still answer, so that senders try again
        log.error("event=audit_failed action=%s reason=%s", action, error)


class RejectionAuditor:
    """Writes a security alert for each caller that was turned away; safe with many threads."""

    def __init__(
        self,
        trail: AuditTrail,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        max_callers: int = MAX_CALLERS,
    ) -> None:
        self._trail = trail
        self._max_callers = max_callers
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._told: dict[RejectedCaller, float] = {}

    def __call__(self, caller: RejectedCaller) -> None:
        """Write the entry, unless the same caller was turned away for the same reason within the last minute."""
        if not self._is_news(caller):
            return
        try:
            self._trail.record(
                AuditAction.CALLER_REJECTED,
                actor=caller.calling_ae or "no AE title",
                address=caller.address,
                detail=caller.words,
                outcome=AuditOutcome.MINOR_FAILURE,
            )
        except TransientError as error:
            log.error("event=audit_failed action=caller_rejected reason=%s", error)

    def _is_news(self, caller: RejectedCaller) -> bool:
        now = self._monotonic()
        with self._lock:
            if len(self._told) >= self._max_callers:
                self._told = {one: at for one, at in self._told.items() if now - at < SAME_CALLER_S}
            if now - self._told.get(caller, -SAME_CALLER_S) < SAME_CALLER_S or len(self._told) >= self._max_callers:
                return False
            self._told[caller] = now
            return True
