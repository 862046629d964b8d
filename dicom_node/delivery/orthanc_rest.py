"""Writes results back into an Orthanc over REST, and believes it only when Orthanc shows our bytes."""

from __future__ import annotations

import hashlib
import io
import json

from pydicom import dcmread

from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind
from dicom_node.errors import ConfigError
from dicom_node.orthanc_client import OrthancClient
from dicom_node.orthanc_http import (
    Answer,
    OrthancAccessDenied,
    OrthancAnswerInvalid,
    OrthancTooLarge,
    OrthancUnavailable,
)

_OK = 200
_RETRY_STATUSES = frozenset({408, 423, 429})
_EXPLANATIONS = {
    400: "it cannot read the object",
    404: "there is no Orthanc at this address",
    405: "there is no Orthanc at this address",
    409: "it holds another object under this UID",
    413: "the object is larger than it or a proxy accepts",
    415: "it cannot read the object",
}


def upload(data: bytes, destination: Destination) -> DeliveryOutcome:
    """Store one DICOM file and check by its digest that Orthanc holds exactly these bytes.

    Parameters
    ----------
    data
        A complete DICOM file.
    destination
        Of kind "orthanc": `url`, `username`, `password` and `timeout_s` are used.

    Returns
    -------
    DeliveryOutcome
        DELIVERED: these bytes are there. RETRY_LATER: not reachable, overloaded or full (5xx). STOPPED: refused,
        wrong password or address, or another object stands there under this SOP Instance UID.
    """
    try:
        with OrthancClient(
            destination.url,
            username=destination.username,
            password=destination.password,
            timeout_s=destination.timeout_s,
        ) as client:
            answer = client.request("POST", "/instances", data=data)
            return _judge(answer, client.url) or _verify(data, client, already=_was_there(answer))
    except OrthancUnavailable as error:
        return _outcome(OutcomeKind.RETRY_LATER, str(error), error.status)
    except OrthancAccessDenied as error:
        return _outcome(OutcomeKind.STOPPED, str(error), error.status)
    except (OrthancAnswerInvalid, OrthancTooLarge, ConfigError) as error:
        return _outcome(OutcomeKind.STOPPED, str(error))


def _judge(answer: Answer, url: str) -> DeliveryOutcome | None:
    """The outcome where the answer to the upload decides it; None where Orthanc says that it has the object."""
    if answer.status == _OK:
        return None
    if answer.status >= 500 or answer.status in _RETRY_STATUSES:
        return _outcome(OutcomeKind.RETRY_LATER, f"Orthanc at {url}: HTTP {answer.status}", answer.status)
    explanation = _EXPLANATIONS.get(answer.status, "it refuses the object")
    return _outcome(OutcomeKind.STOPPED, f"Orthanc at {url}: HTTP {answer.status}, {explanation}", answer.status)


def _was_there(answer: Answer) -> bool:
    try:
        status = json.loads(answer.body)
    except ValueError:
        return False
    return isinstance(status, dict) and status.get("Status") == "AlreadyStored"


def _verify(data: bytes, client: OrthancClient, *, already: bool) -> DeliveryOutcome:
    """Looks the object up by its UID, as a viewer would, and compares."""
    uid = str(dcmread(io.BytesIO(data), specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)
    held = client.instances_with_uid(uid)
    if not held:
        detail = f"Orthanc at {client.url} took {uid} but does not hold it; a filter or a full disk may have dropped it"
        return _outcome(OutcomeKind.RETRY_LATER, detail, _OK)
    if any(_holds(one, data, client) for one in held):
        return _outcome(OutcomeKind.DELIVERED, "was there already" if already else "stored and verified", _OK)
    if already:
        return _outcome(OutcomeKind.STOPPED, f"Orthanc at {client.url} holds another object with UID {uid}", _OK)
    detail = f"Orthanc at {client.url} changed {uid} while storing it; check IngestTranscoding and its scripts"
    return _outcome(OutcomeKind.STOPPED, detail, _OK)


def _holds(instance_id: str, data: bytes, client: OrthancClient) -> bool:
    digest = client.instance_md5(instance_id)
    if digest is not None:
        return digest == hashlib.md5(data, usedforsecurity=False).hexdigest()
    # Without StoreMD5ForAttachments Orthanc keeps no digest; then the bytes themselves have to come back.
    return client.instance_file(instance_id, limit_bytes=len(data)) == data


def _outcome(kind: OutcomeKind, detail: str, status: int | None = None) -> DeliveryOutcome:
    return DeliveryOutcome(kind=kind, detail=detail, status=status)
