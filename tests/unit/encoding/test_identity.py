import random

import pytest
from pydicom.uid import UID

from dicom_node.encoding.identity import ResultKind, device_uid, input_key, result_uid, tracking_uid
from inference.anatomy import EarSide, FluidSpace

INSTANCES = [(f"1.2.3.{n}", f"{n:064x}") for n in range(1, 9)]


def key(instances=INSTANCES, model="aa" * 32, settings="bb" * 32):
    return input_key(instances, model_sha256=model, settings_digest=settings)


def test_the_order_of_arrival_does_not_change_the_uids():
    shuffled = INSTANCES[:]
    random.Random(1).shuffle(shuffled)
    assert result_uid(ResultKind.REPORT, key(shuffled)) == result_uid(ResultKind.REPORT, key())


def test_an_instance_received_twice_counts_once():
    assert key([*INSTANCES, INSTANCES[0]]).digest == key().digest


@pytest.mark.parametrize(
    "other",
    [
        key(INSTANCES[:-1]),
        key([*INSTANCES[:-1], ("1.2.3.8", "f" * 64)]),
        key([*INSTANCES[:-1], ("1.2.3.9", INSTANCES[-1][1])]),
        key(model="ac" * 32),
        key(settings="bc" * 32),
    ],
    ids=["a slice less", "one slice changed", "one slice under another UID", "another model", "other settings"],
)
def test_whatever_can_change_a_result_changes_its_uids(other):
    assert result_uid(ResultKind.SEGMENTATION, other) != result_uid(ResultKind.SEGMENTATION, key())


def test_every_object_series_and_tracked_structure_has_its_own_legal_uid():
    uids = [result_uid(kind, key()) for kind in ResultKind]
    uids += [tracking_uid(key(), side, space) for side in EarSide for space in (None, *FluidSpace)]
    assert len(set(uids)) == len(uids)
    assert all(UID(uid).is_valid and uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)


def test_uids_do_not_change_between_releases():
    """A changed derivation would give every stored study a second result on replay."""
    assert key().digest == "e62a138e1e5a5dc47572836bb015ae00e4ed1881e4ac6d98d584ed1415b1b3ed"
    assert result_uid(ResultKind.SEGMENTATION, key()) == "2.25.264447948129075953234708492352117133770"
    assert device_uid("42") == "2.25.74238068183690224718437976272482990017"


def test_a_digest_that_is_no_sha256_is_refused():
    with pytest.raises(ValueError, match=r"1\.2\.3"):
        key([("1.2.3", "md5")])


def test_a_result_without_input_has_no_identity():
    with pytest.raises(ValueError, match="at least one"):
        key([])
