"""Storage commitment as service class user: N-ACTION, and a bounded wait for the answer on the same association."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import DimseServiceType

from dicom_node.delivery.association import address_of, later, open_association
from dicom_node.delivery.commitment_answers import (
    REQUEST_ACTION,
    STORAGE_COMMITMENT,
    WELL_KNOWN_INSTANCE,
    outcome_of_request,
    request,
)
from dicom_node.delivery.commitments import CommitmentRequest
from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind

CONTEXT: Final = (STORAGE_COMMITMENT, "1.2.840.10008.1.2")
"""Implicit VR Little Endian, which everybody has to take (PS3.5 10.1)."""

STAY_S: Final = 5.0
"""So long the association stays open for the answer; a receiver that needs longer opens one of its own."""

_LOOK_EVERY_S: Final = 0.05


class _Reports:
    """Lets reports be served until the association is to be released.

    pynetdicom serves each in a thread of its own, also while the response to our request is awaited, as some archives
    need it. After a release was asked for nothing may be sent any more (PS3.8 7.2.2), and pynetdicom dies of it.
    """

    def __init__(self, association: Association) -> None:
        self._association = association
        self._serve = association._serve_request
        self._one_at_a_time = threading.Lock()
        self._is_closed = False
        association._serve_request = self._serve_if_open  # type: ignore[assignment, method-assign]

    def close(self) -> None:
        """Serve no report from now on; returns when the answer to the one that is being served has left."""
        with self._one_at_a_time:
            self._is_closed = True
        deadline = time.monotonic() + 1.0
        while not self._association.dul.to_provider_queue.empty() and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)

    def _serve_if_open(self, message: DimseServiceType, context_id: int) -> None:
        with self._one_at_a_time:
            if not self._is_closed:
                self._serve(message, context_id)


def ask(
    asked: CommitmentRequest,
    destination: Destination,
    *,
    answer: Callable[[evt.Event], tuple[int, None]],
    is_answered: Callable[[], bool],
    stay_s: float = STAY_S,
) -> DeliveryOutcome:
    """Ask a receiver to vouch for objects; DELIVERED means that it took the question.

    Parameters
    ----------
    asked
        What to ask, already written down.
    destination
        A destination of kind "dicom".
    answer
        What takes a report that comes on this association.
    is_answered
        Whether the answer is here, by this association or another; then nothing is waited for.
    stay_s
        How long to wait for it.
    """
    with open_association(destination, [CONTEXT], handlers=[(evt.EVT_N_EVENT_REPORT, answer)]) as association:
        if isinstance(association, DeliveryOutcome):
            return _in_words(association, destination)
        reports = _Reports(association)
        outcome = _send(association, asked, destination)
        if outcome.kind is OutcomeKind.DELIVERED:
            _stay(association, is_answered, stay_s)
        reports.close()
    return outcome


def would_vouch(destination: Destination) -> DeliveryOutcome:
    """Whether a receiver takes requests for commitment, asked without sending one: DELIVERED if it does."""
    with open_association(destination, [CONTEXT]) as association:
        if isinstance(association, DeliveryOutcome):
            return _in_words(association, destination)
    return DeliveryOutcome(kind=OutcomeKind.DELIVERED, detail=f"{address_of(destination)} takes requests to commit")


def _in_words(outcome: DeliveryOutcome, destination: Destination) -> DeliveryOutcome:
    """A refused presentation context, said about commitment."""
    if outcome.kind is not OutcomeKind.NOT_TAKEN:
        return outcome
    return DeliveryOutcome(
        kind=OutcomeKind.NOT_TAKEN,
        detail=f"{address_of(destination)} does not take Storage Commitment Push Model; switch storage commitment on "
        f'there, or set done = "sent" for destination {destination.name!r}',
    )


def _send(association: Association, asked: CommitmentRequest, destination: Destination) -> DeliveryOutcome:
    """One N-ACTION on an open association."""
    information = request(asked.transaction_uid, asked.references)
    try:
        response, _ = association.send_n_action(information, REQUEST_ACTION, STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE)
    except RuntimeError:  # the peer left between our look and our request
        return later(f"{address_of(destination)} closed the association before it took the request to commit")
    status = response.get("Status")
    if status is None:
        return later(f"{address_of(destination)} did not answer the request to commit")
    return outcome_of_request(status)


def _stay(association: Association, is_answered: Callable[[], bool], stay_s: float) -> None:
    """Keep the association open until the answer is here, the peer has left or the time is over."""
    deadline = time.monotonic() + stay_s
    while association.is_established and time.monotonic() < deadline and not is_answered():
        time.sleep(_LOOK_EVERY_S)
