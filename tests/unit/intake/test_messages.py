"""Messages from fragments and command sets by hand: as pynetdicom reads and writes them; nonsense is told as such."""

from __future__ import annotations

import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import MRImageStorage
from pynetdicom.dimse_messages import C_ECHO_RSP, C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dsutils import decode, encode
from raw_peer import store_command

from dicom_node.intake.messages import (
    COMMAND_LAST,
    COMMAND_PART,
    DATA_LAST,
    MAX_COMMAND_BYTES,
    BrokenMessage,
    Command,
    Message,
    MessageAssembler,
    Operation,
    read_command,
    written_response,
)

STORE = Command(
    field=Operation.C_STORE, message_id=7, has_dataset=True, sop_class_uid=MRImageStorage, sop_instance_uid="1.2.3"
)


def test_a_command_set_of_pynetdicom_is_read_as_it_was_meant() -> None:
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 7, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = MRImageStorage, "1.2.3"
    primitive.DataSet = io.BytesIO(b"\0" * 10)
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    written = encode(message.command_set, is_implicit_vr=True, is_little_endian=True)
    assert written is not None
    assert read_command(written) == STORE


@pytest.mark.parametrize("comment", ["", "A700", "odd"])
def test_a_response_is_what_pynetdicom_would_write(comment: str) -> None:
    primitive = C_STORE()
    primitive.MessageIDBeingRespondedTo, primitive.Status = 7, 0xA700
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = MRImageStorage, "1.2.3"
    if comment:
        primitive.ErrorComment = comment
    message = C_STORE_RSP()
    message.primitive_to_message(primitive)
    expected = encode(message.command_set, is_implicit_vr=True, is_little_endian=True)
    assert written_response(STORE, status=0xA700, comment=comment) == expected


def test_an_echo_is_answered_as_pynetdicom_would() -> None:
    primitive = C_ECHO()
    primitive.MessageIDBeingRespondedTo, primitive.Status, primitive.AffectedSOPClassUID = 1, 0, "1.2.840.10008.1.1"
    message = C_ECHO_RSP()
    message.primitive_to_message(primitive)
    request = Command(
        field=Operation.C_ECHO, message_id=1, has_dataset=False, sop_class_uid="1.2.840.10008.1.1", sop_instance_uid=""
    )
    expected = encode(message.command_set, is_implicit_vr=True, is_little_endian=True)
    assert written_response(request, status=0) == expected


@given(cuts=st.lists(st.integers(0, 200), max_size=6), size=st.integers(0, 300))
def test_however_a_message_is_cut_it_comes_out_whole_and_the_next_one_too(cuts: list[int], size: int) -> None:
    command, dataset = store_command(b"1.2.3"), bytes(range(256))[:size]
    assembler = MessageAssembler(max_instance_bytes=1000)
    for _ in range(2):
        *parts, last = pieces(command, cuts)
        for part in parts:
            assert assembler.take(3, COMMAND_PART, part) is None
        assert assembler.take(3, COMMAND_LAST, last) is None
        *parts, last = pieces(dataset, cuts)
        for part in parts:
            assert assembler.take(3, 0, part) is None
        assert assembler.is_waiting
        message = assembler.take(3, DATA_LAST, last)
        expected = Message(context_id=3, command=STORE, command_set=command, dataset=dataset)
        assert message == expected
        assert not assembler.is_waiting


def pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    return [content[a:b] for a, b in itertools.pairwise(edges)]


def test_an_object_above_the_bound_is_let_pass_but_not_kept() -> None:
    assembler = MessageAssembler(max_instance_bytes=1000)
    assembler.take(3, COMMAND_LAST, store_command(b"1.2.3"))
    for _ in range(20):
        assert assembler.take(3, 0, bytes(100)) is None
    assert len(assembler._dataset) == 0
    message = assembler.take(3, DATA_LAST, bytes(100))
    assert message is not None
    assert (message.dataset, message.is_oversized) == (None, True)
    assembler.take(3, COMMAND_LAST, store_command(b"1.2.3"))
    message = assembler.take(3, DATA_LAST, bytes(1000))
    assert message is not None
    assert (message.dataset, message.is_oversized) == (bytes(1000), False)


NONSENSE = [
    pytest.param([(3, COMMAND_LAST, b"abc")], id="no element"),
    pytest.param([(3, COMMAND_LAST, b"\x08\0\x18\0\0\0\0\0")], id="another group"),
    pytest.param([(3, COMMAND_LAST, b"\0\0\x02\0\xff\xff\xff\xff")], id="a length that lies"),
    pytest.param([(3, COMMAND_LAST, b"\0\0\x10\x01\x04\0\0\0\7\0\0\0")], id="a number of four bytes"),
    pytest.param([(3, DATA_LAST, b"")], id="data without a command"),
    pytest.param([(3, COMMAND_LAST, store_command(b"1.2")), (1, DATA_LAST, b"")], id="another context in between"),
    pytest.param([(3, COMMAND_LAST, store_command(b"1.2"))] * 2, id="a command twice"),
    pytest.param([(3, COMMAND_PART, bytes(MAX_COMMAND_BYTES)), (3, COMMAND_PART, b"0")], id="a command without an end"),
]


@pytest.mark.parametrize("fragments", NONSENSE)
def test_nonsense_is_told_as_such(fragments: list[tuple[int, int, bytes]]) -> None:
    *good, bad = fragments
    assembler = MessageAssembler(max_instance_bytes=1000)
    for fragment in good:
        assert assembler.take(*fragment) is None
    with pytest.raises(BrokenMessage):
        assembler.take(*bad)


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 3), st.binary(max_size=60)), max_size=8))
def test_garbage_makes_messages_or_is_told_as_such(fragments: list[tuple[int, int, bytes]]) -> None:
    assembler = MessageAssembler(max_instance_bytes=50)
    try:
        found = [assembler.take(*fragment) for fragment in fragments]
    except BrokenMessage:
        return
    for message in found:
        if message is not None and message.command.field is not None and message.command.message_id is not None:
            response = decode(io.BytesIO(written_response(message.command, status=0xC101)), True, True)
            assert response.Status == 0xC101
