"""Who looked at which study and took which file of it, for the audit trail.

Looking is noted once for each session and study, whatever page showed it; every file that is taken is.
"""

from __future__ import annotations

from typing import Final

from fastapi import Request

from dicom_node.audit import AuditAction
from dicom_node.study_cards import StudyCard
from dicom_node.web.access import address_of, parts_of, visitor_of

REMEMBERED: Final = 4096
"""Sessions' views kept in memory so that reloading a page is not another entry; the oldest are forgotten."""


class ViewingAudit:
    """What this process has noted already; one for the whole application, at `app.state.viewing_audit`."""

    def __init__(self) -> None:
        self._noted: dict[tuple[str, str], None] = {}

    def note(self, request: Request, card: StudyCard | None, study_instance_uid: str) -> None:
        """Audit that the visitor of this request looks at this study."""
        visitor = visitor_of(request)
        if (visitor.session_id, study_instance_uid) in self._noted:
            return
        parts_of(request).audit.record(
            AuditAction.STUDY_VIEWED,
            actor=visitor.name,
            study_instance_uid=study_instance_uid,
            patient_id="" if card is None else card.patient_id,
            address=address_of(request),
        )
        self._noted[visitor.session_id, study_instance_uid] = None
        while len(self._noted) > REMEMBERED:
            self._noted.pop(next(iter(self._noted)), None)


def note_view(request: Request, card: StudyCard | None, study_instance_uid: str) -> None:
    """Audit that whoever asks looks at this study."""
    audit: ViewingAudit = request.app.state.viewing_audit
    audit.note(request, card, study_instance_uid)


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
