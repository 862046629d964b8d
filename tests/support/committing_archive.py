"""A pynetdicom archive that stores, is asked to commit, and answers by plan: late, twice, never, partly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dicom_receivers import COMPREHENSIVE_3D_SR, SEG
from free_ports import free_port
from patience import PATIENCE_S
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association

from dicom_node.delivery.reactor_pause import hold_pauses

COMMITMENT = "1.2.840.10008.1.20.1"
WELL_KNOWN = "1.2.840.10008.1.20.1.1"
IMPLICIT = "1.2.840.10008.1.2"


@dataclass(frozen=True, kw_only=True)
class Saying:
    """One report: what it says, after how long, and over which association."""

    event_type: int
    information: Dataset | None
    after_s: float = 0.0
    same_association: bool = True
    before_response: bool = False
    instance: str = WELL_KNOWN


def committed(request: Dataset, **how: Any) -> Saying:
    """Event type 1: everything is kept."""
    return said(request, {}, **how)


def said(request: Dataset, reasons: dict[str, int], *, leaving_out: Sequence[str] = (), **how: Any) -> Saying:
    """A report in which objects with a reason have failed, by SOP Instance UID, and some are not named at all."""
    information = Dataset()
    information.TransactionUID = request.TransactionUID
    kept, failed = [], []
    for one in request.ReferencedSOPSequence:
        uid = str(one.ReferencedSOPInstanceUID)
        if uid in leaving_out:
            continue
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.ReferencedSOPClassUID, uid
        if uid in reasons:
            item.FailureReason = reasons[uid]
        (failed if uid in reasons else kept).append(item)
    if kept:
        information.ReferencedSOPSequence = kept
    if failed:
        information.FailedSOPSequence = failed
    return Saying(event_type=2 if failed else 1, information=information, **how)


@dataclass
class Archive:
    """What it holds, what it was asked and what we answered to its reports.

    `plan` is told how many requests came before, and the request; `status` is what each N-ACTION is answered with.
    `home` is the port of our listener, which reports over another association go to.
    """

    plan: Callable[[int, Dataset], Sequence[Saying]] = lambda _number, request: [committed(request)]
    status: Callable[[int], int] = lambda _number: 0x0000
    store_status: int = 0x0000
    takes_commitment: bool = True
    home: int = 0
    ae_title: str = "PACS"
    with_role: bool = True
    port: int = 0
    stored: list[str] = field(default_factory=list)
    requests: list[Dataset] = field(default_factory=list)
    answers: list[int | None] = field(default_factory=list)
    _speakers: list[threading.Thread] = field(default_factory=list)

    @contextmanager
    def listening(self) -> Iterator[Archive]:
        ae = AE(ae_title=self.ae_title)
        for sop_class in (SEG, COMPREHENSIVE_3D_SR, "1.2.840.10008.1.1"):
            ae.add_supported_context(sop_class, ["1.2.840.10008.1.2.1", IMPLICIT])
        if self.takes_commitment:
            ae.add_supported_context(COMMITMENT, [IMPLICIT])
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action)]
        handlers.append((evt.EVT_ACCEPTED, lambda event: hold_pauses(event.assoc)))
        self.port = self.port or free_port()
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield self
        finally:
            for one in self._speakers:
                one.join(PATIENCE_S)
            server.shutdown()

    @property
    def transactions(self) -> list[str]:
        """The Transaction UIDs of all requests, in their order."""
        return [str(one.TransactionUID) for one in self.requests]

    def asked(self, number: int) -> list[str]:
        """The SOP Instance UIDs of one request."""
        return [str(one.ReferencedSOPInstanceUID) for one in self.requests[number].ReferencedSOPSequence]

    def say(self, saying: Saying, association: Association | None = None) -> int | None:
        """Send one report, over an association of its own if none is given; the status that we answered.

        None where nobody answered: the node is away, does not let us in, or has closed the association.
        """
        if association is None:
            with self._calling_home() as own:
                return self._report(own, saying)
        return self._report(association, saying)

    def _store(self, event: evt.Event) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return self.store_status

    def _action(self, event: evt.Event) -> tuple[int, None]:
        request, number = event.action_information, len(self.requests)
        assert event.action_type == 1
        assert event.request.RequestedSOPInstanceUID == WELL_KNOWN
        self.requests.append(request)
        status = self.status(number)
        if status == 0:
            sayings = self.plan(number, request)
            self.answers += [self.say(one, event.assoc) for one in sayings if one.before_response]
            later = [one for one in sayings if not one.before_response]
            speaker = threading.Thread(target=self._speak, args=(later, event.assoc))
            self._speakers.append(speaker)
            speaker.start()
        return status, None

    def _speak(self, sayings: Sequence[Saying], association: Association) -> None:
        time.sleep(0.02)  # our response to the request goes first
        for one in sayings:
            time.sleep(one.after_s)
            self.answers.append(self.say(one, association if one.same_association else None))

    @staticmethod
    def _report(association: Association, saying: Saying) -> int | None:
        if not association.is_established:
            return None
        response, _ = association.send_n_event_report(
            saying.information, saying.event_type, COMMITMENT, saying.instance
        )
        return response.get("Status")

    @contextmanager
    def _calling_home(self) -> Iterator[Association]:
        ae = AE(ae_title=self.ae_title)
        ae.add_requested_context(COMMITMENT, [IMPLICIT])
        roles = [build_role(COMMITMENT, scp_role=True)] if self.with_role else []
        association = ae.associate("127.0.0.1", self.home, ae_title="HYDROPS", ext_neg=roles)
        hold_pauses(association)
        try:
            yield association
        finally:
            if association.is_established:
                association.release()
