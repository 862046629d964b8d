"""One image from Orthanc into the spool: read whole, compared with Orthanc's own digest, kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

from dicom_node.errors import Reason
from dicom_node.intake.part10 import split_file
from dicom_node.intake.spool import Spool, StoredKind
from dicom_node.intake.wire_check import UnstorableInstance, WireReason, check_dataset
from dicom_node.orthanc_client import OrthancClient
from dicom_node.orthanc_http import OrthancAnswerInvalid, OrthancTooLarge, OrthancUnavailable

MR_SOP_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"})
"""MR Image Storage and Enhanced MR Image Storage: never SEG, SR or anything else, so never our own results."""

_COME_LATER = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
"""Not about the file that was asked for: all questions wait."""

LONGEST_DETAIL = 500
"""Characters of what is said against an image."""

_REASONS = {
    WireReason.TS_UNSUPPORTED: Reason.TS_UNSUPPORTED,
    WireReason.WIRE_TRUNCATED: Reason.PIXEL_LENGTH,
    WireReason.DEPTH_LIMIT: Reason.SIZE_LIMIT,
    WireReason.ELEMENT_LIMIT: Reason.SIZE_LIMIT,
    WireReason.SIZE_LIMIT: Reason.SIZE_LIMIT,
}


def require_answers_otherwise(client: OrthancClient, error: Exception) -> None:
    """Nothing if Orthanc, which failed on one question with `error`, answers others.

    Raises
    ------
    TransientError
        It is busy or away: `error` itself, or what it failed with now.
    """
    if isinstance(error, OrthancUnavailable) and error.status in _COME_LATER:
        raise error
    client.last_change()


class InstanceOutcome(StrEnum):
    """What became of one instance.

    SPOOLED: kept now. KNOWN: the spool had these bytes. DELETED: no longer at the source. FOREIGN: no MR image,
    although it lies in an MR series. OWED: Orthanc failed on it but answers otherwise; to be asked again.
    """

    SPOOLED = "spooled"
    KNOWN = "known"
    DELETED = "deleted"
    FOREIGN = "foreign"
    OWED = "owed"


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What became of one instance, its SOP Instance UID where its file was read, and how Orthanc failed on it."""

    kind: InstanceOutcome
    sop_instance_uid: str = ""
    failure: str = ""


class InstanceRefused(Exception):
    """This MR image cannot be taken, and why; never leaves this package.

    `detail` may repeat bytes of the file; it is made one line of bounded length, which every log and database takes.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = "".join(one if one.isprintable() else "?" for one in detail[:LONGEST_DETAIL])


@dataclass(frozen=True, kw_only=True)
class InstanceTaker:
    """Takes single instances; may be used from several threads.

    Parameters
    ----------
    client, spool
        From where to where.
    source
        Noted in the spool as sender.
    max_instance_bytes
        Longer files are refused.
    transfer_syntaxes
        What the listener offers, and so what is taken here; None takes everything that the spool can keep.
    clock
        POSIX seconds.
    """

    client: OrthancClient
    spool: Spool
    source: str
    max_instance_bytes: int
    transfer_syntaxes: frozenset[str] | None
    clock: Callable[[], float]

    def take(self, instance_id: str) -> Taken:
        """Bring one instance into the spool.

        Raises
        ------
        InstanceRefused
            Its bytes are not what Orthanc received (SOURCE_CORRUPT), it is too long (SIZE_LIMIT), encoded in a way
            that is not offered (TS_UNSUPPORTED), or not readable to its end.
        TransientError
            Orthanc, network, disk or database failed, not on this one instance.
        """
        try:
            part10 = self._read_verified(instance_id)
            if part10 is None and self.client.series_of_instance(instance_id) is not None:
                # Orthanc answers 404 also for a file that it cannot open, on a share that is not mounted for instance.
                raise OrthancAnswerInvalid(f"instance {instance_id}: HTTP 404 for a file that Orthanc lists")
        except (OrthancUnavailable, OrthancAnswerInvalid) as error:
            # A file that Orthanc, or a proxy before it, fails on every time must not hold up all others.
            require_answers_otherwise(self.client, error)
            return Taken(kind=InstanceOutcome.OWED, failure=str(error))
        except OrthancTooLarge as error:
            raise InstanceRefused(Reason.SIZE_LIMIT, str(error)) from None
        if part10 is None:
            return Taken(kind=InstanceOutcome.DELETED)
        try:
            return self._keep(part10)
        except UnstorableInstance as error:
            reason = _REASONS.get(error.reason, Reason.TAG_INVALID)
            raise InstanceRefused(reason, f"instance {instance_id}: {error.detail}") from None

    def _read_verified(self, instance_id: str) -> bytes | None:
        """The file whose MD5 is the one that Orthanc took at receipt, or None if it was deleted meanwhile."""
        for again in (False, True):  # because the image may be replaced meanwhile; then the digest is asked for itself
            file = self.client.instance_with_md5(instance_id, limit_bytes=self.max_instance_bytes)
            if file is None:
                return None
            expected = None if again else file.md5
            if expected is None:
                expected = self.client.instance_md5(instance_id)
            found = hashlib.md5(file.content, usedforsecurity=False).hexdigest()
            if expected is None or found == expected:
                return file.content
        raise InstanceRefused(Reason.SOURCE_CORRUPT, f"instance {instance_id}: expected MD5 {expected}, found {found}")

    def _keep(self, part10: bytes) -> Taken:
        parts = split_file(part10)
        identity = check_dataset(parts.dataset, parts.transfer_syntax_uid)
        if identity.sop_class_uid not in MR_SOP_CLASSES:
            return Taken(kind=InstanceOutcome.FOREIGN, sop_instance_uid=identity.sop_instance_uid)
        if self.transfer_syntaxes is not None and parts.transfer_syntax_uid not in self.transfer_syntaxes:
            raise UnstorableInstance(WireReason.TS_UNSUPPORTED, f"{parts.transfer_syntax_uid} is not offered")
        stored = self.spool.store_dataset(
            parts.dataset, parts.transfer_syntax_uid, source=self.source, at=self.clock(), identity=identity
        )
        kind = InstanceOutcome.KNOWN if stored.kind is StoredKind.DUPLICATE else InstanceOutcome.SPOOLED
        return Taken(kind=kind, sop_instance_uid=identity.sop_instance_uid)
