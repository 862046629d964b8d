"""A receiver for results on this machine: takes every kind of object, reads it, and keeps only what kind it was."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from pydicom.errors import InvalidDicomError
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.delivery.outcome import Destination

AE_TITLE: Final = "DOCTOR"
STORED: Final = 0x0000
UNREADABLE: Final = 0xC000

KINDS: Final[Mapping[str, str]] = {
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.88.34": "SR",
    "1.2.840.10008.5.1.4.1.1.7": "SC",
    "1.2.840.10008.5.1.4.1.1.104.1": "PDF",
}


class ResultReceiver:
    """Listens on a free port of the loopback while the block runs."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self._server: ThreadedAssociationServer | None = None

    def __enter__(self) -> Self:
        entity = AE(ae_title=AE_TITLE)
        entity.supported_contexts = StoragePresentationContexts
        self._server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._on_store)]
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()

    def destination(self, calling_ae: str) -> Destination:
        """How to reach it."""
        assert self._server is not None, "only while the block runs"
        port = int(self._server.server_address[1])
        return Destination(
            name="doctor", kind="dicom", host="127.0.0.1", port=port, called_ae=AE_TITLE, calling_ae=calling_ae
        )

    def _on_store(self, event: evt.Event) -> int:
        try:
            sop_class = str(event.dataset.SOPClassUID)
        except (InvalidDicomError, AttributeError, ValueError):
            return UNREADABLE
        self.kinds.append(KINDS.get(sop_class, sop_class))
        return STORED
