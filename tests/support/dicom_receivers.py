"""Encoded objects, and real receivers that take them: pynetdicom with a chosen answer, DCMTK's storescp."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from free_ports import free_port
from patience import wait_until
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as ItemSequence
from pydicom.uid import JPEG2000Lossless, generate_uid
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.delivery.outcome import Destination

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
MODALITIES = {SEG: "SEG", COMPREHENSIVE_3D_SR: "SR", SECONDARY_CAPTURE: "OT", MR_IMAGE: "MR", ENCAPSULATED_PDF: "DOC"}


def encoded(
    sop_class_uid: str = SEG,
    *,
    sop_instance_uid: str | None = None,
    transfer_syntax_uid: str = "1.2.840.10008.1.2.1",
    study_instance_uid: str = "2.25.7001",
    extra_bytes: int = 0,
) -> bytes:
    """A small Part 10 file. It holds a sequence of undefined length, which pydicom would write with a defined one."""
    dataset = Dataset()
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = sop_instance_uid or generate_uid(None)
    dataset.StudyInstanceUID = study_instance_uid
    dataset.SeriesInstanceUID = f"{study_instance_uid}.{list(MODALITIES).index(sop_class_uid) + 1}"
    dataset.Modality = MODALITIES[sop_class_uid]
    dataset.PatientID = "PHANTOM-1"
    dataset.PatientName = "Phantom^One"
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "22945000", "SCT", "Inner ear"
    dataset.AnatomicRegionSequence = ItemSequence([item])
    dataset["AnatomicRegionSequence"].is_undefined_length = True
    dataset.add_new(0x00091010, "OB", b"\1\2" * (extra_bytes // 2 + 1))
    if transfer_syntax_uid == JPEG2000Lossless:
        dataset.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00\xff\x4f\xff\x51" + (
            b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
        )
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax_uid
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def data_set_of(part10: bytes) -> bytes:
    """The encoded data set behind the file meta information."""
    meta_length = dcmread(BytesIO(part10), stop_before_pixels=True).file_meta.FileMetaInformationGroupLength
    return part10[128 + 4 + 12 + meta_length :]


def destination(port: int, *, name: str = "pacs", called_ae: str = "PACS", timeout_s: float = 60.0) -> Destination:
    return Destination(name=name, kind="dicom", host="127.0.0.1", port=port, called_ae=called_ae, timeout_s=timeout_s)


@dataclass
class Receiver:
    """A pynetdicom SCP that keeps what arrives and answers what the test wants."""

    answer: Callable[[], int | Dataset] = lambda: 0x0000
    syntaxes: Sequence[str] = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", JPEG2000Lossless)
    classes: Sequence[str] = (SEG, COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE, MR_IMAGE, "1.2.840.10008.1.1")
    port: int = 0
    received: list[tuple[str, str, bytes]] = field(default_factory=list)
    associations: int = 0
    _server: ThreadedAssociationServer | None = None

    def _store(self, event: evt.Event) -> int | Dataset:
        request = event.request
        self.received.append(
            (request.AffectedSOPInstanceUID, str(event.context.transfer_syntax), request.DataSet.getvalue())
        )
        return self.answer()

    def _accepted(self, event: evt.Event) -> None:
        self.associations += 1

    @property
    def connections(self) -> int:
        """How many peers it counts right now, those included that have asked for nothing yet."""
        return 0 if self._server is None else len(self._server.active_associations)

    @contextmanager
    def listening(self, ae_title: str = "PACS", *, host: str = "127.0.0.1", **settings: Any) -> Iterator[Receiver]:
        ae = AE(ae_title=ae_title)
        for name, value in settings.items():
            setattr(ae, name, value)
        for sop_class in self.classes:
            ae.add_supported_context(sop_class, [*self.syntaxes, "1.2.840.10008.1.2"])
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_ACCEPTED, self._accepted)]
        self.port = self.port or free_port()
        self._server = server = ae.start_server((host, self.port), block=False, evt_handlers=handlers)
        try:
            yield self
        finally:
            server.shutdown()


@contextmanager
def storescp(
    folder: Path, *options: str, port: int | None = None, classes: Sequence[str] | None = None
) -> Iterator[int]:
    """DCMTK's receiver, which writes the data set bytes as it gets them (+B); yields its port.

    With `classes` it accepts C-ECHO and these SOP classes in Explicit VR Little Endian, and nothing else.
    """
    port = port or free_port()
    accepting = ["+xa"] if classes is None else ["-xf", str(_negotiation_profile(folder, classes)), "Chosen"]
    # Without TCP_NODELAY each answer of DCMTK waits about 40 ms for our acknowledgement.
    process = subprocess.Popen(
        ["/usr/bin/storescp", "-aet", "PACS", *accepting, "+B", *options, "-od", str(folder), str(port)],
        env={"TCP_NODELAY": "1", "PATH": "/usr/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _listens(port))
        yield port
    finally:
        process.kill()
        process.wait()


def _negotiation_profile(folder: Path, classes: Sequence[str]) -> Path:
    """A file that tells storescp which presentation contexts to accept."""
    contexts = [f"PresentationContext{n} = {uid}\\Written" for n, uid in enumerate(("1.2.840.10008.1.1", *classes), 1)]
    path = folder.parent / f"{folder.name}.cfg"
    path.write_text(
        "\n".join(
            (
                "[[TransferSyntaxes]]",
                "[Written]",
                "TransferSyntax1 = LittleEndianExplicit",
                "TransferSyntax2 = LittleEndianImplicit",
                "[[PresentationContexts]]",
                "[Chosen]",
                *contexts,
                "[[Profiles]]",
                "[Chosen]",
                "PresentationContexts = Chosen",
            )
        ),
        encoding="ascii",
    )
    return path


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
