"""Every action has its codes."""

from __future__ import annotations

from dicom_node.audit import AuditAction
from dicom_node.audit.events import KINDS, PRIVATE_SCHEME


def test_every_action_has_an_event_of_the_standard_and_a_letter() -> None:
    assert set(KINDS) == set(AuditAction)
    for kind in KINDS.values():
        assert kind.event.scheme == "DCM"
        assert kind.event.value.startswith("1101")
        assert kind.letter in "CRUDE"


def test_types_of_our_own_are_named_in_our_scheme_by_the_action() -> None:
    own = {action.value: kind.type.value for action, kind in KINDS.items() if kind.type and kind.type.scheme != "DCM"}
    assert own
    assert all(action == code for action, code in own.items())
    assert {kind.type.scheme for kind in KINDS.values() if kind.type} == {"DCM", PRIVATE_SCHEME}
