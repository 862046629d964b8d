"""Who looked at which study and took which file of it, for the audit trail.

Looking is noted once for each session and study, whatever page showed it; every file that is taken is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from fastapi import Request

from dicom_node.audit import AuditAction, AuditTrail
from dicom_node.study_cards import StudyCard
from dicom_node.web.access import address_of, parts_of, visitor_of

REMEMBERED: Final = 4096
"""Sessions' views kept in memory so that reloading a page is not another entry; the oldest are forgotten."""


class ViewingAudit:
    """What one application has noted already, of all its sessions. May be used from several threads.

    Parameters
    ----------
    trail
        Where it is written.
    where
        Words for the entry's detail, where it is not a page of the dashboard.
    """

    def __init__(self, trail: AuditTrail, *, where: str = "") -> None:
        self._trail = trail
        self._where = where
        self._noted: dict[tuple[str, str], None] = {}
        self._lock = threading.Lock()

    def note(
        self,
        *,
        name: str,
        session_id: str,
        address: str,
        study_instance_uid: str,
        find_card: Callable[[], StudyCard | None],
    ) -> None:
        """Audit that somebody looks at this study; when this returns it is on the disk, by us or before.

        Raises
        ------
        TransientError
            If the disk does not take it.
        """
        with self._lock:  # a viewer asks for twenty images of a study at once
            if (session_id, study_instance_uid) in self._noted:
                return
            card = find_card()
            self._trail.record(
                AuditAction.STUDY_VIEWED,
                actor=name,
                study_instance_uid=study_instance_uid,
                patient_id="" if card is None else card.patient_id,
                address=address,
                detail=self._where,
            )
            self._noted[session_id, study_instance_uid] = None
            while len(self._noted) > REMEMBERED:
                self._noted.pop(next(iter(self._noted)), None)


def note_view(request: Request, card: StudyCard | None, study_instance_uid: str) -> None:
    """Audit that whoever asks looks at this study."""
    audit: ViewingAudit = request.app.state.viewing_audit
    visitor = visitor_of(request)
    audit.note(
        name=visitor.name,
        session_id=visitor.session_id,
        address=address_of(request),
        study_instance_uid=study_instance_uid,
        find_card=lambda: card,
    )


def note_export(request: Request, study_instance_uid: str, what: str) -> None:
    """Audit that whoever asks takes a file of this study's result; `what` names it."""
    parts = parts_of(request)
    card = parts.cards.get(study_instance_uid)
    parts.audit.record(
        AuditAction.RESULTS_EXPORTED,
        actor=visitor_of(request).name,
        study_instance_uid=study_instance_uid,
        patient_id="" if card is None else card.patient_id,
        detail=what,
        address=address_of(request),
    )
