"""What is said about an instance that cannot be kept: one reason code for the log, one status for the wire."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from dicom_node.errors import NodeError

STATUS_SUCCESS = 0x0000
STATUS_NOT_AUTHORIZED = 0x0124
STATUS_OUT_OF_RESOURCES = 0xA700
STATUS_SOP_MISMATCH = 0xA900
STATUS_UNREADABLE = 0xC101
STATUS_UID = 0xC102
STATUS_LIMIT = 0xC103


class WireReason(StrEnum):
    """Why an instance is not stored; the value is the code in the log."""

    WIRE_TRUNCATED = "WIRE_TRUNCATED"
    WIRE_UNREADABLE = "WIRE_UNREADABLE"
    TS_UNSUPPORTED = "TS_UNSUPPORTED"
    UID_MISSING = "UID_MISSING"
    UID_ILLEGAL = "UID_ILLEGAL"
    SOP_MISMATCH = "SOP_MISMATCH"
    DEPTH_LIMIT = "DEPTH_LIMIT"
    ELEMENT_LIMIT = "ELEMENT_LIMIT"
    SIZE_LIMIT = "SIZE_LIMIT"
    NOT_AUTHORIZED = "NOT_AUTHORIZED"

    @property
    def status(self) -> int:
        """The C-STORE status that says this (PS3.4 B.2.3; Cxxx is "cannot understand", the digits are ours; 0124H
        is of PS3.7 annex C)."""
        return _STATUS[self]


_STATUS: Mapping[WireReason, int] = {
    WireReason.WIRE_TRUNCATED: STATUS_UNREADABLE,
    WireReason.WIRE_UNREADABLE: STATUS_UNREADABLE,
    WireReason.TS_UNSUPPORTED: STATUS_UNREADABLE,
    WireReason.UID_MISSING: STATUS_UID,
    WireReason.UID_ILLEGAL: STATUS_UID,
    WireReason.SOP_MISMATCH: STATUS_SOP_MISMATCH,
    WireReason.DEPTH_LIMIT: STATUS_LIMIT,
    WireReason.ELEMENT_LIMIT: STATUS_LIMIT,
    WireReason.SIZE_LIMIT: STATUS_OUT_OF_RESOURCES,
    WireReason.NOT_AUTHORIZED: STATUS_NOT_AUTHORIZED,
}


class UnstorableInstance(NodeError):
    """The instance cannot be kept; `detail` names the tag or offset, never a value of the patient's."""

    def __init__(self, reason: WireReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
