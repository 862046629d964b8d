"""Whether an encoded data set can be stored and named safely.

Answer by storability, judge by fitness: this refuses only what cannot be read to its end or has no lawful name.
Wrong geometry, odd pixels or a missing patient are stored here and refused later with a reason, because a refused
modality queue blocks the scanner.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dicom_node.intake.element_walker import WireLimits, read_values
from dicom_node.intake.wire_status import UnstorableInstance, WireReason

__all__ = ["InstanceIdentity", "UnstorableInstance", "WireLimits", "WireReason", "check_command", "check_dataset"]

_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_IDENTITY_TAGS = {
    _STUDY: "Study Instance UID (0020,000D)",
    _SERIES: "Series Instance UID (0020,000E)",
    _SOP_INSTANCE: "SOP Instance UID (0008,0018)",
    _SOP_CLASS: "SOP Class UID (0008,0016)",
}
_UID = re.compile(rb"[0-9]+(\.[0-9]+)*")
_LEADING_ZERO = re.compile(rb"(^|\.)0[0-9]")
MAX_UID_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class InstanceIdentity:
    """The four UIDs of an instance, padding removed, and remarks that do not stop it (codes for the log)."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    warnings: tuple[str, ...] = ()


def check_dataset(
    dataset: bytes | bytearray,
    transfer_syntax_uid: str,
    *,
    limits: WireLimits | None = None,
) -> InstanceIdentity:
    """The identity of an encoded data set that can be read to its last byte.

    Parameters
    ----------
    dataset
        Encoded data set without File Meta Information.
    transfer_syntax_uid
        How it is encoded.
    limits
        Bounds on nesting and number of elements.

    Raises
    ------
    UnstorableInstance
        Truncated, garbage or contradictory lengths (C101); too deep or too many elements (C103); one of the four
        UIDs missing, repeated or not a UID (C102).
    """
    found = read_values(dataset, transfer_syntax_uid, _IDENTITY_TAGS, limits or WireLimits())
    uids = {tag: _read_uid(found.get(tag), name) for tag, name in _IDENTITY_TAGS.items()}
    odd = [name for tag, name in _IDENTITY_TAGS.items() if _LEADING_ZERO.search(uids[tag])]
    return InstanceIdentity(
        study_instance_uid=uids[_STUDY].decode("ascii"),
        series_instance_uid=uids[_SERIES].decode("ascii"),
        sop_instance_uid=uids[_SOP_INSTANCE].decode("ascii"),
        sop_class_uid=uids[_SOP_CLASS].decode("ascii"),
        warnings=("UID_LEADING_ZERO",) if odd else (),
    )


def check_command(identity: InstanceIdentity, *, sop_class_uid: str, sop_instance_uid: str) -> None:
    """Nothing when the C-STORE command names the same object as its data set.

    Raises
    ------
    UnstorableInstance
        SOP class or instance differ (A900).
    """
    for name, said, found in (
        ("SOP class", sop_class_uid, identity.sop_class_uid),
        ("SOP instance", sop_instance_uid, identity.sop_instance_uid),
    ):
        if said.rstrip("\0 ") != found:
            raise UnstorableInstance(WireReason.SOP_MISMATCH, f"{name} of the command is not the data set's {found}")


def is_legal_uid(raw: bytes) -> bool:
    """Whether the unpadded bytes are a UID in the sense of PS3.5 9.1, leading zeros in a component forgiven."""
    return len(raw) <= MAX_UID_BYTES and _UID.fullmatch(raw) is not None


def _read_uid(raw: bytes | None, name: str) -> bytes:
    value = (raw or b"").rstrip(b"\0 ")
    if not value:
        raise UnstorableInstance(WireReason.UID_MISSING, f"{name} is missing or empty")
    if not is_legal_uid(value):
        raise UnstorableInstance(WireReason.UID_ILLEGAL, f"{name} is not a UID of at most 64 characters")
    return value
