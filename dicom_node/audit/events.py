"""What is audited, in the words of PS3.15 A.5: event, action, outcome, participants, source, objects.

The names of the fields are those of the message schema (A.5.1), so that a message for a repository can be made of an
entry without knowing anything else. The patient's name never stands in an event; the patient ID only where the event's
table in A.5.3 makes the patient mandatory (instances accessed, transferred, exported; study deleted).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

PRIVATE_SCHEME: Final = "99EHNODE"
"""Codes of our own: what a person can ask this node to do to a study has no code in PS3.16 CID 401."""

APPLICATION_SERVER_PROCESS: Final = "4"
"""AuditSourceTypeCode of PS3.15 A.5.2.3."""


class AuditOutcome(StrEnum):
    """EventOutcomeIndicator of PS3.15 A.5.2.1."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"
    MAJOR_FAILURE = "12"


class AuditAction(StrEnum):
    """What happened. The value is the word in `audit show`; `KINDS` gives the codes of the standard."""

    NODE_STARTED = "node_started"
    NODE_STOPPED = "node_stopped"
    AUDIT_READ = "audit_read"
    AUDIT_CHAIN_BROKEN = "audit_chain_broken"
    AUDIT_ENTRIES_ERASED = "audit_entries_erased"
    CALLER_REJECTED = "caller_rejected"
    IMAGES_RECEIVED = "images_received"
    RESULTS_SENT = "results_sent"
    IMAGES_ERASED = "images_erased"
    STUDY_ERASED = "study_erased"
    STUDY_VIEWED = "study_viewed"
    ARCHIVE_SEARCHED = "archive_searched"
    RESULTS_EXPORTED = "results_exported"
    LOGIN = "login"
    LOGOUT = "logout"
    ACCESS_DENIED = "access_denied"
    USER_ADDED = "user_added"
    USER_CHANGED = "user_changed"
    USER_REMOVED = "user_removed"
    CONFIGURATION_CHANGED = "configuration_changed"
    REVIEW_WRITTEN = "review_written"
    STUDY_RETRY = "study_retry"
    STUDY_REPLAY = "study_replay"
    STUDY_FORCE = "study_force"
    STUDY_FIRST = "study_first"
    STUDY_CANCEL = "study_cancel"
    STUDY_RESEND = "study_resend"


@dataclass(frozen=True, kw_only=True)
class Code:
    """A coded value as the message schema writes it."""

    value: str
    scheme: str
    meaning: str

    def as_json(self) -> dict[str, str]:
        """The attributes of the schema's coded elements."""
        return {"csd-code": self.value, "codeSystemName": self.scheme, "originalText": self.meaning}


def _dcm(value: str, meaning: str) -> Code:
    return Code(value=value, scheme="DCM", meaning=meaning)


def _own(action: AuditAction, meaning: str) -> Code:
    return Code(value=action.value, scheme=PRIVATE_SCHEME, meaning=meaning)


_APPLICATION: Final = _dcm("110150", "Application")
_LAUNCHER: Final = _dcm("110151", "Application Launcher")
_DESTINATION: Final = _dcm("110152", "Destination Role ID")
_SOURCE: Final = _dcm("110153", "Source Role ID")

_ACTIVITY: Final = _dcm("110100", "Application Activity")
_ACCESSED: Final = _dcm("110103", "DICOM Instances Accessed")
_TRANSFERRED: Final = _dcm("110104", "DICOM Instances Transferred")
_PROCEDURE: Final = _dcm("110111", "Procedure Record")
_ALERT: Final = _dcm("110113", "Security Alert")
_AUTHENTICATION: Final = _dcm("110114", "User Authentication")
_STUDY_UID: Final = _dcm("110180", "Study Instance UID")
_SOP_CLASS_UID: Final = _dcm("110181", "SOP Class UID")
_STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
"""What a search by QIDO-RS asks for is what this SOP class answers; it has none of its own."""
_PATIENT_NUMBER: Final = Code(value="2", scheme="RFC-3881", meaning="Patient Number")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The codes of one action: event (CID 400), its type (CID 401), the action letter (C, R, U, D or E), the roles of
    who asked and of this node (CID 402), and whether A.5.3 wants the patient in it."""

    event: Code
    letter: str
    type: Code | None = None
    actor_role: Code | None = None
    node_role: Code = _APPLICATION
    names_patient: bool = False


def _study_action(action: AuditAction, meaning: str) -> Kind:
    return Kind(event=_PROCEDURE, letter="U", type=_own(action, meaning))


KINDS: Final[dict[AuditAction, Kind]] = {
    AuditAction.NODE_STARTED: Kind(
        event=_ACTIVITY, letter="E", type=_dcm("110120", "Application Start"), actor_role=_LAUNCHER
    ),
    AuditAction.NODE_STOPPED: Kind(
        event=_ACTIVITY, letter="E", type=_dcm("110121", "Application Stop"), actor_role=_LAUNCHER
    ),
    AuditAction.AUDIT_READ: Kind(event=_dcm("110101", "Audit Log Used"), letter="R"),
    AuditAction.AUDIT_CHAIN_BROKEN: Kind(
        event=_ALERT, letter="E", type=_dcm("110135", "Object Security Attributes Changed")
    ),
    AuditAction.AUDIT_ENTRIES_ERASED: Kind(
        event=_ALERT, letter="D", type=_own(AuditAction.AUDIT_ENTRIES_ERASED, "Audit entries erased at their end")
    ),
    AuditAction.CALLER_REJECTED: Kind(event=_ALERT, letter="E", type=_dcm("110126", "Node Authentication")),
    AuditAction.IMAGES_RECEIVED: Kind(
        event=_TRANSFERRED, letter="C", actor_role=_SOURCE, node_role=_DESTINATION, names_patient=True
    ),
    AuditAction.RESULTS_SENT: Kind(event=_TRANSFERRED, letter="R", node_role=_SOURCE, names_patient=True),
    AuditAction.IMAGES_ERASED: Kind(event=_ACCESSED, letter="D", names_patient=True),
    AuditAction.STUDY_ERASED: Kind(event=_dcm("110105", "DICOM Study Deleted"), letter="D", names_patient=True),
    AuditAction.STUDY_VIEWED: Kind(event=_ACCESSED, letter="R", names_patient=True),
    AuditAction.ARCHIVE_SEARCHED: Kind(event=_dcm("110112", "Query"), letter="E", node_role=_SOURCE),
    AuditAction.RESULTS_EXPORTED: Kind(
        event=_dcm("110106", "Export"), letter="R", node_role=_SOURCE, names_patient=True
    ),
    AuditAction.LOGIN: Kind(event=_AUTHENTICATION, letter="E", type=_dcm("110122", "Login")),
    AuditAction.LOGOUT: Kind(event=_AUTHENTICATION, letter="E", type=_dcm("110123", "Logout")),
    AuditAction.ACCESS_DENIED: Kind(event=_ALERT, letter="E", type=_dcm("110132", "Use of Restricted Function")),
    AuditAction.USER_ADDED: Kind(event=_ALERT, letter="E", type=_dcm("110137", "User Security Attributes Changed")),
    AuditAction.USER_CHANGED: Kind(event=_ALERT, letter="E", type=_dcm("110137", "User Security Attributes Changed")),
    AuditAction.USER_REMOVED: Kind(event=_ALERT, letter="E", type=_dcm("110137", "User Security Attributes Changed")),
    AuditAction.CONFIGURATION_CHANGED: Kind(event=_ALERT, letter="E", type=_dcm("110131", "Software Configuration")),
    AuditAction.REVIEW_WRITTEN: _study_action(AuditAction.REVIEW_WRITTEN, "Result reviewed by a reader"),
    AuditAction.STUDY_RETRY: _study_action(AuditAction.STUDY_RETRY, "Failed study computed again"),
    AuditAction.STUDY_REPLAY: _study_action(AuditAction.STUDY_REPLAY, "Study examined again with today's settings"),
    AuditAction.STUDY_FORCE: _study_action(AuditAction.STUDY_FORCE, "Waiting study taken as complete"),
    AuditAction.STUDY_FIRST: _study_action(AuditAction.STUDY_FIRST, "Study put before all others"),
    AuditAction.STUDY_CANCEL: _study_action(AuditAction.STUDY_CANCEL, "Study canceled"),
    AuditAction.STUDY_RESEND: _study_action(AuditAction.STUDY_RESEND, "Results sent again"),
}


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """One event before it is written. `at` is POSIX seconds.

    `actor` is who asked: a user's name, an AE title, a process. `address` is where from, `peer` who else took part
    (the destination of a transfer). `detail` is a sentence without patient data. `patient_id` is left out of the
    message unless its table wants the patient. `query` is what an archive was asked, without patient data.
    """

    action: AuditAction
    actor: str
    at: float
    outcome: AuditOutcome = AuditOutcome.SUCCESS
    study_instance_uid: str = ""
    patient_id: str = ""
    address: str = ""
    peer: str = ""
    detail: str = ""
    query: str = ""

    def message(self, *, source: str, process_id: int) -> dict[str, Any]:
        """The event with the field names of the A.5.1 schema.

        Parameters
        ----------
        source
            Our AE title: the audit source.
        process_id
            Of the process that writes.
        """
        kind = KINDS[self.action]
        identification: dict[str, Any] = {
            "EventID": kind.event.as_json(),
            "EventActionCode": kind.letter,
            "EventDateTime": datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds"),
            "EventOutcomeIndicator": self.outcome.value,
        }
        if kind.type is not None:
            identification["EventTypeCode"] = kind.type.as_json()
        if self.detail:
            identification["EventOutcomeDescription"] = self.detail
        return {
            "EventIdentification": identification,
            "ActiveParticipant": self._participants(kind, source=source, process_id=process_id),
            "AuditSourceIdentification": {
                "AuditSourceID": source,
                "AuditSourceTypeCode": APPLICATION_SERVER_PROCESS,
            },
            "ParticipantObjectIdentification": self._objects(kind),
        }

    def _participants(self, kind: Kind, *, source: str, process_id: int) -> list[dict[str, Any]]:
        asker: dict[str, Any] = {"UserID": self.actor, "UserIsRequestor": True}
        if kind.actor_role is not None:
            asker["RoleIDCode"] = kind.actor_role.as_json()
        if self.address:
            asker |= {"NetworkAccessPointID": self.address, "NetworkAccessPointTypeCode": "2"}  # 2: an IP address
        node = {
            "UserID": str(process_id),
            "AlternativeUserID": f"AETITLES={source}",
            "UserIsRequestor": False,
            "RoleIDCode": kind.node_role.as_json(),
        }
        others = [{"UserID": self.peer, "UserIsRequestor": False, "RoleIDCode": _DESTINATION.as_json()}]
        return [asker, node, *(others if self.peer else [])]

    def _objects(self, kind: Kind) -> list[dict[str, Any]]:
        """Study or query (system objects in the role of a report), and the patient where the table wants one."""
        found: list[dict[str, Any]] = []
        if self.query:
            found.append(
                {
                    "ParticipantObjectTypeCode": "2",
                    "ParticipantObjectTypeCodeRole": "3",
                    "ParticipantObjectIDTypeCode": _SOP_CLASS_UID.as_json(),
                    "ParticipantObjectID": _STUDY_ROOT_FIND,
                    "ParticipantObjectQuery": base64.b64encode(self.query.encode()).decode(),
                }
            )
        if self.study_instance_uid:
            found.append(
                {
                    "ParticipantObjectTypeCode": "2",
                    "ParticipantObjectTypeCodeRole": "3",
                    "ParticipantObjectIDTypeCode": _STUDY_UID.as_json(),
                    "ParticipantObjectID": self.study_instance_uid,
                }
            )
        if kind.names_patient and self.patient_id:
            found.append(
                {
                    "ParticipantObjectTypeCode": "1",
                    "ParticipantObjectTypeCodeRole": "1",
                    "ParticipantObjectIDTypeCode": _PATIENT_NUMBER.as_json(),
                    "ParticipantObjectID": self.patient_id,
                }
            )
        return found
