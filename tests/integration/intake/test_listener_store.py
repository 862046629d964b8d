"""What is answered to a C-STORE, and what lies in the spool afterwards."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import struct
import subprocess
from pathlib import Path

import pydicom
import pytest
from exact_sender import associated
from mr_images import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, STUDY, as_file, data_set_bytes, encode, make_mr
from patience import PATIENCE_S, wait_until
from pydicom.uid import JPEG2000Lossless, RLELossless
from raw_peer import associate_request, command_of, connect, fragment, receive_pdu, response_status, store_command

from dicom_node.intake.listener import TRANSFER_SYNTAXES, AllowedPeer, Listener, ListenerOptions
from dicom_node.intake.spool import Spool

JPEG_LOSSLESS, JPEG_LOSSLESS_SV1, JPEG_LS = (f"1.2.840.10008.1.2.4.{end}" for end in ("57", "70", "80"))


def files(spool: Spool) -> list[Path]:
    return sorted(path for path in spool.directory.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same picture in every lossless transfer syntax, written by DCMTK or pydicom's encoders."""
    folder = tmp_path_factory.mktemp("compressed")
    plain = folder / "plain.dcm"
    plain.write_bytes(as_file(make_mr(size=64)))
    paths = {EXPLICIT_LE: plain}
    commands = {
        IMPLICIT_LE: ["dcmconv", "+ti"],
        EXPLICIT_BE: ["dcmconv", "+tb"],
        JPEG_LOSSLESS: ["dcmcjpeg", "+el"],
        JPEG_LOSSLESS_SV1: ["dcmcjpeg", "+e1"],
        JPEG_LS: ["dcmcjpls", "+el"],
    }
    for syntax, command in commands.items():
        paths[syntax] = folder / f"{syntax}.dcm"
        subprocess.run([*command, str(plain), str(paths[syntax])], check=True, capture_output=True)
    for syntax in (RLELossless, JPEG2000Lossless):
        image = pydicom.dcmread(plain)
        image.compress(syntax, generate_instance_uid=False)
        paths[syntax] = folder / f"{syntax}.dcm"
        image.save_as(paths[syntax])
    return paths


LOSSLESS = [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1, JPEG_LS]
LOSSLESS += [str(RLELossless), str(JPEG2000Lossless)]


@pytest.mark.dcmtk
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_b24_every_lossless_transfer_syntax_is_kept_as_sent_and_decodes_to_the_same_pixels(
    start_listener, spool, compressed, syntax
):
    listener = start_listener()
    sent = data_set_bytes(compressed[syntax].read_bytes())
    image = pydicom.dcmread(compressed[syntax])
    with associated(listener.port, syntaxes=[syntax]) as sender:
        assert sender.store(sent, sop_instance=image.SOPInstanceUID) == (0x0000, "")
    (kept,) = spool.instances(STUDY)
    assert kept.transfer_syntax_uid == syntax
    assert data_set_bytes(kept.path.read_bytes()) == sent
    assert kept.sha256 == hashlib.sha256(sent).hexdigest()
    assert (pydicom.dcmread(kept.path).pixel_array == pydicom.dcmread(compressed[EXPLICIT_LE]).pixel_array).all()


def test_b12_b25_b26_lossy_is_taken_deflated_and_htj2k_are_not_even_offered(start_listener):
    listener = start_listener()
    refused = ["1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.201", "1.2.840.113619.5.2"]
    with associated(listener.port, syntaxes=[*TRANSFER_SYNTAXES, *refused]) as sender:
        accepted = {one.transfer_syntax[0] for one in sender.association.accepted_contexts[1:]}
    assert accepted == set(TRANSFER_SYNTAXES)
    assert {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"} <= accepted


def test_b11_other_sop_classes_are_not_offered(start_listener):
    listener = start_listener()
    ct = "1.2.840.10008.5.1.4.1.1.2"
    with associated(listener.port, sop_class=ct) as sender:
        assert [one.abstract_syntax for one in sender.association.rejected_contexts] == [ct]
        assert sender.echo() == 0x0000


@pytest.mark.dcmtk
@pytest.mark.parametrize("program", [["storescu"], ["dcmsend", "-v"]])
def test_real_senders_are_served(start_listener, spool, dcmtk, tmp_path, program):
    listener = start_listener()
    images = [make_mr() for _ in range(5)]
    for n, image in enumerate(images):
        (tmp_path / f"{n}.dcm").write_bytes(as_file(image))
    dcmtk(*program, "-aet", "SCANNER", "-aec", "HYDROPS", "127.0.0.1", listener.port, *tmp_path.glob("*.dcm"))
    dcmtk("echoscu", "-aet", "SCANNER", "-aec", "HYDROPS", "127.0.0.1", listener.port)
    kept = {one.sop_instance_uid: one for one in spool.instances(STUDY)}
    assert set(kept) == {image.SOPInstanceUID for image in images}
    for image in images:
        assert pydicom.dcmread(kept[image.SOPInstanceUID].path).PixelData == image.PixelData


def test_enhanced_mr_is_taken(start_listener, spool):
    enhanced = "1.2.840.10008.5.1.4.1.1.4.1"
    image = make_mr(SOPClassUID=enhanced)
    with associated(start_listener().port, sop_class=enhanced) as sender:
        answer = sender.store(encode(image), sop_instance=image.SOPInstanceUID, sop_class=enhanced)
    assert answer == (0x0000, "")
    assert [one.sop_class_uid for one in spool.instances(STUDY)] == [enhanced]


def bad_inputs() -> dict[str, tuple[bytes, int]]:
    """Name -> (data set, status); each is sent under the SOP Instance UID 1.2.3.4."""
    good = encode(make_mr(SOPInstanceUID="1.2.3.4"))
    deep = struct.pack("<HH2sxxI", 0x0040, 0x0275, b"SQ", 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    no_pixels = encode(make_mr(SOPInstanceUID="1.2.3.4", PixelData=None))
    return {
        "B01 truncated in pixel data": (good[:-100], 0xC101),
        "B02 truncated in an element": (good[:51], 0xC101),
        "B02 garbage": (b"\xde\xad\xbe\xef" * 1000, 0xC101),
        "B03 lying length": (no_pixels + struct.pack("<HH2sxxI", 0x7FE0, 0x10, b"OW", 0xFFFFFFF0), 0xC101),
        "B03 lying group length": (struct.pack("<HH2sHI", 0x0008, 0x0000, b"UL", 4, 7) + good, 0xC101),
        "B04 depth 300": (no_pixels + deep * 300, 0xC103),
        "B04 depth 3000": (no_pixels + deep * 3000, 0xC103),
        "B07 no study": (encode(make_mr(SOPInstanceUID="1.2.3.4", StudyInstanceUID=None)), 0xC102),
        "B08 84 digits as study": (encode(make_mr(SOPInstanceUID="1.2.3.4", StudyInstanceUID="1." + "2" * 82)), 0xC102),
        "B08 letters in study": (good.replace(STUDY.encode(), b"1.2.letters.".ljust(len(STUDY), b"3"), 1), 0xC102),
        "B09 path as study": (good.replace(STUDY.encode(), b"../" * 8, 1), 0xC102),
        "B09 newline in study": (good.replace(STUDY.encode(), b"1.2\nevent=forged" + b" " * 8, 1), 0xC102),
        "B10 other instance": (encode(make_mr(SOPInstanceUID="1.2.3.5")), 0xA900),
        "B10 other class": (encode(make_mr(SOPInstanceUID="1.2.3.4", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")), 0xA900),
    }


@pytest.mark.parametrize("name", bad_inputs())
def test_bad_input_gets_its_status_leaves_nothing_and_keeps_the_association(
    start_listener, spool, caplog, name, tmp_path
):
    caplog.set_level(logging.DEBUG)
    dataset, status = bad_inputs()[name]
    listener = start_listener()
    image = make_mr()
    with associated(listener.port) as sender:
        answer, comment = sender.store(dataset, sop_instance="1.2.3.4")
        assert answer == status
        assert 0 < len(comment) <= 64
        assert files(spool) == []
        assert sender.store(encode(image), sop_instance=image.SOPInstanceUID)[0] == 0x0000
    assert {path.name for path in tmp_path.iterdir()} <= {"spool", "node.db", "node.db-wal", "node.db-shm"}
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("dicom_node")]
    assert sum(f"status=0x{status:04X}" in line for line in lines) == 1
    assert not [r for r in caplog.records if r.exc_info or "arker" in r.getMessage() or "\n" in r.getMessage()]


@pytest.mark.parametrize("command_uid", [b"1" * 84, b"", b"../../x", b"1.2\\1.3"])
def test_b07_b08_a_command_without_a_lawful_uid_is_answered_and_the_association_goes_on(
    start_listener, spool, command_uid
):
    image = make_mr()
    with connect(start_listener().port) as peer:
        peer.sendall(associate_request())
        assert receive_pdu(peer)[0] == 0x02
        for uid, status in ((command_uid, 0xC102), (image.SOPInstanceUID.encode(), 0x0000)):
            peer.sendall(fragment(3, 3, store_command(uid)) + fragment(3, 2, encode(image)))
            kind, content = receive_pdu(peer)
            assert (kind, response_status(content)) == (0x04, status)
    assert len(files(spool)) == 1


def test_b02_an_empty_or_absent_data_set_is_answered_and_the_association_goes_on(start_listener, spool):
    image = make_mr()
    command = store_command(b"1.2.3.4")
    without_data_set = command.replace(
        struct.pack("<HHIH", 0, 0x0800, 2, 0x0102), struct.pack("<HHIH", 0, 0x0800, 2, 0x0101)
    )
    good = fragment(3, 3, store_command(image.SOPInstanceUID.encode())) + fragment(3, 2, encode(image))
    with connect(start_listener().port) as peer:
        peer.sendall(associate_request())
        assert receive_pdu(peer)[0] == 0x02
        empty = fragment(3, 3, command) + fragment(3, 2, b"")
        for message, status in ((empty, 0xC101), (fragment(3, 3, without_data_set), 0xC101), (good, 0x0000)):
            peer.sendall(message)
            kind, content = receive_pdu(peer)
            assert (kind, response_status(content)) == (0x04, status)
    assert len(files(spool)) == 1


FIELD_OF_THREE_BYTES = store_command(b"1.2.3.4").replace(
    struct.pack("<HHIH", 0, 0x0100, 2, 1), struct.pack("<HHI", 0, 0x0100, 3) + b"\1\0\0"
)
"""A Command Field (0000,0100) that is no whole number of 16-bit values; found by `make fuzz`."""


@pytest.mark.parametrize("command", [b"\xde\xad\xbe\xef" * 20, FIELD_OF_THREE_BYTES], ids=["garbage", "three bytes"])
def test_a_command_that_is_none_ends_only_its_own_association(start_listener, spool, caplog, command):
    image, listener = make_mr(), start_listener()
    with connect(listener.port) as peer:
        peer.sendall(associate_request())
        assert receive_pdu(peer)[0] == 0x02
        peer.sendall(fragment(3, 3, command))
        assert receive_pdu(peer)[0] in (0x07, 0)
    with associated(listener.port) as sender:
        assert sender.store(encode(image), sop_instance=image.SOPInstanceUID)[0] == 0x0000
    assert not [record for record in caplog.records if record.exc_info]


def test_duplicate_and_conflict_are_both_success_on_the_wire(start_listener, spool, caplog):
    caplog.set_level(logging.INFO)
    image = make_mr()
    other = make_mr(SOPInstanceUID=image.SOPInstanceUID, PixelData=bytes(512))
    with associated(start_listener().port) as sender:
        for one in (image, image, other):
            assert sender.store(encode(one), sop_instance=image.SOPInstanceUID) == (0x0000, "")
    assert [one.conflict for one in spool.instances(STUDY)] == [True, True]
    outcomes = [r.getMessage().split("outcome=")[1].split()[0] for r in caplog.records if "outcome=" in r.getMessage()]
    assert outcomes == ["new", "duplicate", "conflict"]


def test_b64_an_instance_above_the_cap_is_refused_and_the_next_one_taken(start_listener, spool):
    listener = start_listener(max_instance_bytes=100_000)
    big, image = make_mr(size=512), make_mr()
    with associated(listener.port) as sender:
        status, comment = sender.store(encode(big), sop_instance=big.SOPInstanceUID)
        assert status == 0xA700
        assert comment.startswith("SIZE_LIMIT")
        assert sender.store(encode(image), sop_instance=image.SOPInstanceUID)[0] == 0x0000
    assert len(spool.instances(STUDY)) == 1


def test_f08_a_low_disk_refuses_images_but_answers_echo_and_recovers_unaided(start_listener, spool):
    listener = start_listener()
    image = make_mr()
    spool.min_free_bytes = spool.free_bytes() * 2
    with associated(listener.port) as sender:
        status, comment = sender.store(encode(image), sop_instance=image.SOPInstanceUID)
        assert status == 0xA700
        assert "free" in comment
        assert sender.echo() == 0x0000
        assert files(spool) == []
        spool.min_free_bytes = 0
        assert sender.store(encode(image), sop_instance=image.SOPInstanceUID)[0] == 0x0000


@pytest.mark.parametrize(("field", "name"), [(0x0020, "C-FIND"), (0x0110, "N-GET"), (0x0FFF, "C-CANCEL")])
def test_an_operation_that_nobody_here_serves_ends_its_association_at_once(start_listener, field, name):
    listener = start_listener(network_timeout_s=4 * PATIENCE_S, dimse_timeout_s=4 * PATIENCE_S)
    with connect(listener.port) as peer:
        peer.sendall(associate_request())
        assert receive_pdu(peer)[0] == 0x02
        peer.sendall(fragment(1, 3, command_of(field, "1.2.3.4")))
        assert receive_pdu(peer)[0] == 0x07, name
    wait_until(lambda: listener.live_associations == 0)


def test_a_fault_of_ours_aborts_the_association_at_once_promises_nothing_and_says_where(spool, caplog):
    def broken_clock() -> float:
        raise RuntimeError("no time")

    image = make_mr()
    allowed = (AllowedPeer(ae_title="SCANNER", networks=("127.0.0.0/8",)),)
    listener = Listener(ListenerOptions(ae_title="HYDROPS", port=0, allowed=allowed), spool, broken_clock)
    listener.start()
    try:
        with connect(listener.port, timeout_s=10.0) as peer:
            peer.sendall(associate_request())
            assert receive_pdu(peer)[0] == 0x02
            command = store_command(image.SOPInstanceUID.encode())
            peer.sendall(fragment(3, 3, command) + fragment(3, 2, encode(image)))
            assert receive_pdu(peer) == (0x07, bytes((0, 0, 2, 0)))
            assert receive_pdu(peer) == (0, b"")
        assert spool.instances(STUDY) == []
    finally:
        listener.stop(drain_s=5.0)
    # The line is written by the peer's own thread, after the abort that the peer may have seen already.
    wait_until(lambda: "event=connection_failed" in caplog.text)
    (said,) = [record for record in caplog.records if "event=connection_failed" in record.getMessage()]
    assert said.exc_info is not None
    assert said.exc_info[0] is RuntimeError


def test_a_database_that_refuses_the_row_is_answered_try_later_and_the_association_goes_on(
    start_listener, spool, tmp_path
):
    listener = start_listener()
    image = make_mr()
    with sqlite3.connect(tmp_path / "node.db") as database:
        database.execute(
            "CREATE TRIGGER refusing BEFORE INSERT ON spool_instance BEGIN SELECT RAISE(ABORT, 'no row'); END"
        )
    with associated(listener.port) as sender:
        status, comment = sender.store(encode(image), sop_instance=image.SOPInstanceUID)
        assert (status, comment.partition(":")[0]) == (0xA700, "OUT_OF_RESOURCES")
        assert sender.echo() == 0x0000
