"""The conformance statement against `hydrops-node serve`: what it accepts, rejects and says of itself on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import pydicom
import pytest
from dicom_receivers import destination
from free_ports import free_port
from local_node import LocalNode
from mr_images import as_file, make_mr
from patience import PATIENCE_S
from pydicom.dataset import Dataset
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import _STORAGE_CLASSES  # type: ignore[attr-defined]
from result_objects import make_results

from dicom_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.conformance.negotiation import VERIFICATION, accepted_contexts, proposed_contexts
from dicom_node.conformance.status_codes import rejections
from dicom_node.delivery.commitment_answers import STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE
from dicom_node.delivery.outcome import OutcomeKind
from dicom_node.delivery.reactor_pause import hold_pauses
from dicom_node.delivery.store_scu import echo, store

ACCEPTED = {one.abstract_syntax: one.transfer_syntaxes for one in accepted_contexts()}
ALL_SYNTAXES = tuple(str(uid) for uid in AllTransferSyntaxes)
"""Every transfer syntax that the standard had when pydicom was made, deflated and HTJ2K included."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    with LocalNode(tmp_path_factory.mktemp("node"), callers=("SCANNER",)) as running:
        yield running


def call(
    node: LocalNode, contexts: list[tuple[str, list[str]]], *, calling: str = "SCANNER", called: str = "HYDROPS"
) -> Association:
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = PATIENCE_S
    proposed = [build_context(abstract, syntaxes) for abstract, syntaxes in contexts]
    association = entity.associate("127.0.0.1", node.dicom_port, contexts=proposed, ae_title=called)
    hold_pauses(association)
    return association


@pytest.mark.parametrize("abstract_syntax", sorted(ACCEPTED))
def test_exactly_the_listed_transfer_syntaxes_are_accepted(node: LocalNode, abstract_syntax: str) -> None:
    assert len(ALL_SYNTAXES) > 30
    association = call(node, [(abstract_syntax, [syntax]) for syntax in ALL_SYNTAXES])
    try:
        accepted = {str(one.transfer_syntax[0]) for one in association.accepted_contexts}
        assert accepted == set(ACCEPTED[abstract_syntax])
    finally:
        association.release()


def test_of_several_the_first_of_the_nodes_own_list_is_taken(node: LocalNode) -> None:
    mr, (*_, second, first) = "1.2.840.10008.5.1.4.1.1.4", ACCEPTED["1.2.840.10008.5.1.4.1.1.4"]
    association = call(node, [(mr, ["1.2.840.10008.1.2.1.99", first, second])])
    try:
        assert [str(one.transfer_syntax[0]) for one in association.accepted_contexts] == [second]
    finally:
        association.release()


def test_no_other_storage_class_is_accepted(node: LocalNode) -> None:
    others = sorted({str(uid) for uid in _STORAGE_CLASSES.values()} - set(ACCEPTED))
    assert len(others) > 100
    accepted = set()
    for start in range(0, len(others), 100):
        batch = [(uid, ["1.2.840.10008.1.2.1"]) for uid in others[start : start + 100]]
        association = call(node, [(VERIFICATION, ["1.2.840.10008.1.2"]), *batch])
        accepted |= {str(one.abstract_syntax) for one in association.accepted_contexts}
        association.release()
    assert accepted == {VERIFICATION}


def test_query_retrieve_and_worklist_are_refused(node: LocalNode) -> None:
    services = ("1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.31")
    association = call(
        node, [(VERIFICATION, ["1.2.840.10008.1.2"]), *((uid, ["1.2.840.10008.1.2"]) for uid in services)]
    )
    try:
        assert {str(one.abstract_syntax) for one in association.rejected_contexts} == set(services)
        assert association.send_c_echo().Status == 0x0000
    finally:
        association.release()


def test_an_archive_that_reports_on_storage_commitment_is_scp_by_role_selection(node: LocalNode) -> None:
    entity = AE("SCANNER")
    entity.add_requested_context(STORAGE_COMMITMENT, ["1.2.840.10008.1.2"])
    role = build_role(STORAGE_COMMITMENT, scp_role=True)
    association = entity.associate("127.0.0.1", node.dicom_port, ae_title="HYDROPS", ext_neg=[role])
    hold_pauses(association)
    try:
        (context,) = association.accepted_contexts
        assert (context.as_scu, context.as_scp) == (False, True)
        report = Dataset()
        report.TransactionUID = "2.25.4711"
        response, _ = association.send_n_event_report(report, 1, STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE)
        assert response.Status == 0x0115  # nothing was asked under this transaction
    finally:
        association.release()


def test_who_asks_the_listener_to_commit_is_refused(node: LocalNode) -> None:
    association = call(node, [(STORAGE_COMMITMENT, ["1.2.840.10008.1.2"])])
    request = Dataset()
    request.TransactionUID = "2.25.4711"
    try:
        response, _ = association.send_n_action(request, 1, STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE)
        assert response.Status == 0x0211
    finally:
        association.release()


def test_the_listener_names_itself_and_its_longest_pdu(node: LocalNode) -> None:
    association = call(node, [(VERIFICATION, ["1.2.840.10008.1.2"])])
    try:
        acceptor = association.acceptor
        assert str(acceptor.implementation_class_uid) == IMPLEMENTATION_CLASS_UID
        assert acceptor.implementation_version_name == IMPLEMENTATION_VERSION_NAME
        assert acceptor.maximum_length == 131072
    finally:
        association.release()


@pytest.mark.parametrize(
    ("calling", "called"), [("STRANGER", "HYDROPS"), ("SCANNER", "OTHER")], ids=["caller-unknown", "called-unknown"]
)
def test_rejections_are_those_of_the_table(node: LocalNode, calling: str, called: str) -> None:
    association = call(node, [(VERIFICATION, ["1.2.840.10008.1.2"])], calling=calling, called=called)
    answer = association.acceptor.primitive
    assert association.is_rejected
    listed = {(one.result, one.source, one.reason) for one in rejections()}
    expected = (1, 1, 3) if calling == "STRANGER" else (1, 1, 7)
    assert (answer.result, answer.result_source, answer.diagnostic) == expected
    assert expected in listed


def test_statuses_are_those_of_the_table(node: LocalNode) -> None:
    image = pydicom.dcmread(BytesIO(as_file(make_mr())))
    mr = "1.2.840.10008.5.1.4.1.1.4"
    association = call(node, [(mr, ["1.2.840.10008.1.2.1"])])
    try:
        assert association.send_c_store(image).Status == 0x0000
        assert association.send_c_store(image).Status == 0x0000  # the same content again
        image.StudyInstanceUID = "not.a.uid"
        answer = association.send_c_store(image)
        assert (answer.Status, answer.ErrorComment.partition(":")[0]) == (0xC102, "UID_ILLEGAL")
    finally:
        association.release()


@contextmanager
def noting_receiver() -> Iterator[tuple[int, list[tuple[str, tuple[str, ...]]], set[tuple[str, str | None]]]]:
    """A receiver that takes everything: its port, the contexts that were proposed to it, and who proposed them."""
    proposed: list[tuple[str, tuple[str, ...]]] = []
    names: set[tuple[str, str | None]] = set()

    def note(event: evt.Event) -> None:
        requestor = event.assoc.requestor
        names.add((str(requestor.implementation_class_uid), requestor.implementation_version_name))
        for one in requestor.requested_contexts:
            proposed.append((str(one.abstract_syntax), tuple(str(syntax) for syntax in one.transfer_syntax)))

    entity = AE("PACS")
    entity.supported_contexts = AllStoragePresentationContexts
    entity.add_supported_context(VERIFICATION)
    handlers = [(evt.EVT_REQUESTED, note), (evt.EVT_C_STORE, lambda _event: 0x0000)]
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield port, proposed, names
    finally:
        server.shutdown()


def test_the_sender_proposes_what_the_table_lists_and_names_itself() -> None:
    results = make_results()
    with noting_receiver() as (port, proposed, names):
        for data in (results.seg_bytes, results.report_bytes):
            assert store(data, destination(port)).kind is OutcomeKind.DELIVERED
        assert echo(destination(port)).kind is OutcomeKind.DELIVERED
    listed = {one.abstract_syntax: one.transfer_syntaxes for one in proposed_contexts()}
    sent = [(uid, listed[uid]) for uid in (str(results.seg.SOPClassUID), str(results.report.SOPClassUID))]
    assert proposed == [*sent, (VERIFICATION, ("1.2.840.10008.1.2",))]
    assert names == {(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)}


def test_created_files_name_the_node_as_who_wrote_them() -> None:
    results = make_results()
    for dataset in (results.seg, results.report):
        assert str(dataset.file_meta.ImplementationClassUID) == IMPLEMENTATION_CLASS_UID
