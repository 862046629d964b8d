"""An SCU that sends exactly the bytes it is told to, lawful or not."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from patience import PATIENCE_S
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from dicom_node.delivery.reactor_pause import hold_pauses

VERIFICATION = "1.2.840.10008.1.1"


class ExactSender:
    """An open association that can store anything under any name."""

    def __init__(self, association: Association) -> None:
        self.association = association

    def store(
        self, dataset: bytes, *, sop_instance: str, sop_class: str = MRImageStorage, syntax: str | None = None
    ) -> tuple[int | None, str]:
        """Status and Error Comment of the answer; (None, "") when the association ended instead."""
        context = next(
            one
            for one in self.association.accepted_contexts
            if one.abstract_syntax != VERIFICATION and syntax in (None, one.transfer_syntax[0])
        )
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, sop_instance
        request.DataSet = io.BytesIO(dataset)
        self.association._reactor_checkpoint.clear()
        while not self.association._is_paused:
            time.sleep(0.001)
        try:
            self.association.dimse.send_msg(request, context.context_id)
            response = self.association.dimse.get_msg(block=True)[1]
        finally:
            self.association._reactor_checkpoint.set()
        return (None, "") if response is None else (response.Status, response.ErrorComment or "")

    def echo(self) -> int | None:
        """Status of a C-ECHO."""
        answer: Dataset = self.association.send_c_echo()
        return answer.get("Status")


@contextmanager
def associated(
    port: int,
    *,
    address: str = "127.0.0.1",
    calling: str = "SCANNER",
    called: str = "HYDROPS",
    syntaxes: Sequence[str] = (ExplicitVRLittleEndian,),
    sop_class: str = MRImageStorage,
    timeout_s: float = PATIENCE_S,
) -> Iterator[ExactSender]:
    """An open association, released at the end; ConnectionRefusedError when it is rejected."""
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = timeout_s
    entity.add_requested_context(VERIFICATION)
    for syntax in syntaxes:
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate(address, port, ae_title=called)
    if not association.is_established:
        raise ConnectionRefusedError("no association")
    hold_pauses(association)
    try:
        yield ExactSender(association)
    finally:
        association.release()
