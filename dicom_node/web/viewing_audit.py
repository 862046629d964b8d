"""Who looked at which study, took which file of it, and searched an archive, for the audit trail.

Looking is noted once for each session and study, whatever page showed it, and so is the same search; every file that is
taken is.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl, urlencode

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
            self._remember((session_id, study_instance_uid))

    def note_search(self, *, name: str, session_id: str, address: str, query: str, archive: str) -> None:
        """Audit that somebody searches an archive (PS3.15 A.5.3.10): by what, and not for whom.

        Parameters
        ----------
        query
            What is searched, a question mark, and by what; what may name a patient is left out of the entry.
        archive
            Its address, as it is configured.

        Raises
        ------
        TransientError
            If the disk does not take it.
        """
        search = (session_id, hashlib.sha256(query.encode()).hexdigest())
        with self._lock:
            if search in self._noted:
                return
            self._trail.record(
                AuditAction.ARCHIVE_SEARCHED,
                actor=name,
                address=address,
                peer=archive,
                detail=self._where,
                query=without_patients(query),
            )
            self._remember(search)

    def _remember(self, what: tuple[str, str]) -> None:
        self._noted[what] = None
        while len(self._noted) > REMEMBERED:
            self._noted.pop(next(iter(self._noted)), None)


NAMES_NOBODY: Final = frozenset(
    {
        *("StudyInstanceUID", "0020000D", "StudyInstanceUIDs", "SeriesInstanceUID", "0020000E"),
        *("StudyDate", "00080020", "ModalitiesInStudy", "00080061", "Modality", "00080060"),
        *("limit", "offset", "fuzzymatching", "includefield"),
    }
)
"""Their values stand in the audit trail; of others (names, IDs, numbers) only that it was searched by them."""


def without_patients(query: str) -> str:
    """Path and query of QIDO-RS (PS3.18 8.3.4), without the values that may name somebody."""
    path, _, conditions = query.partition("?")
    pairs = [(key, value if key in NAMES_NOBODY else "*") for key, value in parse_qsl(conditions)]
    return f"{path}?{urlencode(pairs, safe='*,')}".removesuffix("?")


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
