"""C-STORE and C-ECHO as service class user.

An object goes out as the bytes it was encoded to: its own SOP class and transfer syntax are the only ones proposed,
and the data set is copied onto the wire without being decoded. Whatever the receiver does about it comes back as a
`DeliveryOutcome`; nothing here raises because of a peer.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pynetdicom import _config, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import split_dataset
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import time

from dicom_node.delivery.association import address_of, later, no_context, open_association
from dicom_node.delivery.capabilities import FORMS
from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind
from dicom_node.delivery.peer_answers import SUCCESS, outcome_of_status

# Without it pynetdicom decodes and re-encodes every data set that it sends, so the receiver would get other bytes
# than those whose SHA-256 we keep.
_config.STORE_SEND_CHUNKED_DATASET = True

# An association carries at most 128 presentation contexts: their IDs are the odd numbers of one byte (PS3.8 9.3.2.2).
MAX_CONTEXTS = 128
# The answer to a C-STORE is waited for from the first byte on, so a large object gets extra time as if the line
# were this slow: about what a hospital's ADSL branch uploads.
SLOWEST_LINE_BYTES_PER_S = 64_000


@dataclass(frozen=True, kw_only=True)
class Part10File:
    """What has to be known of an encoded object to send it: three UIDs from its file meta information."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str

    @property
    def context(self) -> tuple[str, str]:
        """SOP class and transfer syntax: what is proposed for it."""
        return self.sop_class_uid, self.transfer_syntax_uid


@dataclass(frozen=True, kw_only=True)
class FileOutcome:
    """What became of one file of a folder."""

    path: Path
    outcome: DeliveryOutcome


Progress = Callable[[FileOutcome], None]


def read_part10(path: Path) -> Part10File | None:
    """The three UIDs of a Part 10 file, or None when the file is no such thing or lacks one of them."""
    try:
        meta, _ = split_dataset(path)
    except (InvalidDicomError, EOFError, ValueError, NotImplementedError):
        return None
    keywords = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    uids = [str(meta.get(keyword, "")) for keyword in keywords]
    if not all(UID(uid).is_valid for uid in uids):
        return None
    return Part10File(path=path, sop_class_uid=uids[0], sop_instance_uid=uids[1], transfer_syntax_uid=uids[2])


def store(data: bytes, destination: Destination) -> DeliveryOutcome:
    """Send one encoded object over an association of its own.

    Parameters
    ----------
    data
        A complete Part 10 file; its data set is sent as it is.
    destination
        A destination of kind "dicom".
    """
    with tempfile.TemporaryDirectory(prefix="hydrops-send-") as folder:
        path = Path(folder) / "object.dcm"
        path.write_bytes(data)
        file = read_part10(path)
        if file is None:
            return DeliveryOutcome(
                kind=OutcomeKind.STOPPED, detail=f"not sent: these {len(data)} bytes are not a DICOM Part 10 file"
            )
        with open_association(destination, [file.context]) as association:
            return association if isinstance(association, DeliveryOutcome) else _send(association, file, destination)


def echo(destination: Destination, *, from_address: str = "") -> DeliveryOutcome:
    """C-ECHO: DELIVERED when the receiver answers success; `from_address` is one of this machine's, empty: any."""
    context = (Verification, "1.2.840.10008.1.2")
    with open_association(destination, [context], from_address=from_address) as association:
        if isinstance(association, DeliveryOutcome):
            return association
        status = association.send_c_echo().get("Status")
    if status is None:
        return later(f"{address_of(destination)} took the association but did not answer the C-ECHO")
    if status != SUCCESS:
        return DeliveryOutcome(
            kind=OutcomeKind.STOPPED,
            detail=f"{address_of(destination)} answered C-ECHO with {status:04X}H",
            status=status,
        )
    return DeliveryOutcome(kind=OutcomeKind.DELIVERED, detail=f"{address_of(destination)} answers", status=status)


def accepted_kinds(destination: Destination) -> frozenset[str] | DeliveryOutcome:
    """Which kinds of result objects a receiver accepts in the form in which we make them, without sending any.

    C-ECHO's context is proposed with them, so that a receiver that takes none of ours still opens the association.
    """
    contexts = [(str(Verification), "1.2.840.10008.1.2"), *(form.context for form in FORMS)]
    with open_association(destination, contexts) as association:
        if isinstance(association, DeliveryOutcome):
            return frozenset() if association.kind is OutcomeKind.NOT_TAKEN else association
        accepted = {(str(one.abstract_syntax), str(one.transfer_syntax[0])) for one in association.accepted_contexts}
    return frozenset(form.kind for form in FORMS if form.context in accepted)


def send_folder(paths: Sequence[Path], destination: Destination, progress: Progress) -> list[FileOutcome]:
    """Send many files over as few associations as possible, in the order given.

    Parameters
    ----------
    paths
        Part 10 files; anything else gets the outcome STOPPED.
    destination
        A destination of kind "dicom".
    progress
        Called with every file's outcome as soon as it is known.

    Notes
    -----
    An association that cannot be opened decides all its files at once, so a dead receiver costs one connection
    attempt, not one for each file. One that breaks on the way is opened again for the files that follow; the
    file on which it broke keeps its outcome.
    """
    outcomes: list[FileOutcome] = []

    def note(path: Path, outcome: DeliveryOutcome) -> None:
        outcomes.append(FileOutcome(path=path, outcome=outcome))
        progress(outcomes[-1])

    files: list[Part10File] = []
    for path in paths:
        file = read_part10(path)
        if file is None:
            note(path, DeliveryOutcome(kind=OutcomeKind.STOPPED, detail="not a DICOM Part 10 file"))
        else:
            files.append(file)
    for batch in _batches(files):
        waiting = list(batch)
        while waiting:
            waiting = _send_batch(waiting, destination, note)
    return outcomes


def _send_batch(
    files: Sequence[Part10File], destination: Destination, note: Callable[[Path, DeliveryOutcome], None]
) -> list[Part10File]:
    """Send `files` over one association; returns those that are left when it breaks on the way."""
    contexts = list(dict.fromkeys(file.context for file in files))
    with open_association(destination, contexts) as association:
        if isinstance(association, DeliveryOutcome):
            for file in files:
                note(file.path, association)
            return []
        for sent, file in enumerate(files, start=1):
            note(file.path, _send(association, file, destination))
            if not association.is_established:
                return list(files[sent:])
    return []


def _batches(files: Sequence[Part10File]) -> Iterator[list[Part10File]]:
    """The files in order, cut where one more kind of object would exceed what an association can carry."""
    batch: list[Part10File] = []
    contexts: set[tuple[str, str]] = set()
    for file in files:
        if file.context not in contexts and len(contexts) == MAX_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(file)
        contexts.add(file.context)
    if batch:
        yield batch


def _send(association: Association, file: Part10File, destination: Destination) -> DeliveryOutcome:
    """One C-STORE on an open association."""
    offered = (UID(file.sop_class_uid), UID(file.transfer_syntax_uid))
    if not any((one.abstract_syntax, one.transfer_syntax[0]) == offered for one in association.accepted_contexts):
        return no_context([file.context], destination)
    patience_s = destination.timeout_s + file.path.stat().st_size / SLOWEST_LINE_BYTES_PER_S
    association.dimse_timeout = patience_s
    asked_at = time.monotonic()
    taken_at = [asked_at]

    def on_sent(_event: evt.Event) -> None:
        taken_at[0] = time.monotonic()

    association.bind(evt.EVT_DATA_SENT, on_sent)
    try:
        response = association.send_c_store(file.path)
    except RuntimeError:  # the peer left between our look and our request
        return later(f"{address_of(destination)} closed the association before it took the object")
    finally:
        association.unbind(evt.EVT_DATA_SENT, on_sent)
    status = response.get("Status")
    if status is not None:
        return outcome_of_status(status, str(response.get("ErrorComment", "")))
    now = time.monotonic()
    if now - asked_at >= patience_s:
        how = f"did not answer the C-STORE within {patience_s:.0f} s"
    elif now - taken_at[0] >= destination.timeout_s:  # our socket's own limit: see association.py
        how = f"neither took another byte nor answered for {destination.timeout_s:.0f} s during the C-STORE"
    else:
        how = "broke off during the C-STORE"
    return later(f"{address_of(destination)} {how}")
