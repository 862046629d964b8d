"""Sections 5 and 7 of the statement: services, associations, statuses."""

from __future__ import annotations

from typing import Final

from pydicom.uid import UID
from pynetdicom import AE

from dicom_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.conformance import status_codes
from dicom_node.conformance.commitment import commitment_service, commitment_statuses
from dicom_node.conformance.negotiation import LOSSY, VERIFICATION, Context, accepted_contexts, proposed_contexts
from dicom_node.conformance.tables import paragraphs, table
from dicom_node.delivery.commitment_scu import CONTEXT
from dicom_node.delivery.store_scu import SLOWEST_LINE_BYTES_PER_S
from dicom_node.settings.sections import DeliverySettings, DestinationSettings, ListenerSettings

APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
_NOT_SUPPORTED: Final = (
    "5.2.1 Basic Worklist Management",
    "5.2.2 Modality Performed Procedure Step",
    "5.2.3 Unified Worklist and Procedure Step",
    "5.2.4 Instance Availability Notification",
    "5.2.7 Query/Retrieve",
    "5.2.8 Print Management",
)


def service_section() -> str:
    """Section 5."""
    mapping = [
        ("Verification", "SCU, by command (`hydrops-node echo`, `hydrops-node doctor`)", "SCP"),
        ("Storage", "SCU", "SCP"),
        ("Storage Commitment", "SCU", "takes the reports for the sender, as SCU"),
    ]
    return paragraphs(
        "## 5 Service and interoperability description",
        "### 5.1 Mapping of services to Application Entities",
        table(("Service", "Sender", "Listener"), mapping),
        "### 5.2 DIMSE services",
        "Not supported, neither as SCU nor as SCP: " + "; ".join(_NOT_SUPPORTED) + ".",
        "#### 5.2.5 Storage service",
        "##### 5.2.5.1 SCU of the Storage SOP classes",
        "Every object is encoded once, kept with its digest and sent as those very bytes, as often as it takes: a "
        "repetition has the same SOP Instance UID and the same content. The segmentation goes before what "
        "refers to it. The same input images, model and settings give the same UIDs, on any day. Transfer syntaxes are "
        "never changed on the way. A delivery is believed when the status says so, or when the receiver has committed "
        "to keeping the object, as the site chooses (`destinations[].done`). "
        "`hydrops-node send` sends files of any SOP class as they are.",
        "##### 5.2.5.2 SCP of the Storage SOP classes",
        "Level 2 (Full). Data sets are kept byte for byte; no element is coerced, removed or added, and none is "
        "decoded to answer. Success is answered when file and index row are durable. Objects are inputs of a "
        "computation and cannot be retrieved from here. Whether an image is fit to be measured is decided afterwards "
        "and never answered by a status ([Bad input](bad-input.md)).",
        commitment_service(),
        "### 5.3 DICOM Web Services",
        "None of PS3.18. The viewer that the node serves reads from the archive's DICOMweb through a reverse proxy; "
        "the node is no origin server of its own. An `orthanc` destination and the Orthanc "
        "entrance use Orthanc's own REST API, which is not a DICOM service.",
        "### 5.4 Media services",
        "None.",
        "### 5.5 Real-Time Video services",
        "None.",
        "### 5.6 Cross-service considerations",
        "A study is computed when it is complete, not when an association ends. Images that come later make it be "
        "computed again under new UIDs; what was sent before is not changed. Objects that the node made itself and "
        "gets back are no MR images and start nothing.",
        "### 5.7 Specific Character Sets",
        "In: the single-byte and multi-byte sets of PS3.3 C.12.1.1.2, code extensions (ISO 2022) included, also as "
        "some systems misspell them. Out: ISO_IR 192 (UTF-8) in every object. What is not legal in its declared set is "
        "decoded as well as can be, and the report names the attribute; a patient's name or ID is never shortened.",
    )


def network_section() -> str:
    """Section 7."""
    return paragraphs(
        "## 7 Network and media communication details",
        "### 7.1 General",
        _general_parameters(),
        "### 7.2 Specifications",
        _listener(),
        _sender(),
        "### 7.3 Status codes",
        "#### 7.3.1 General communication and failure behavior",
        "Each outcome is one line in the log, with AE titles, UIDs, status and reason, without a value of the "
        "patient's. A peer that sends no association request in time, announces a PDU longer than agreed or stops "
        "inside a message is disconnected or aborted; other associations go on.",
        "#### 7.3.2 DIMSE services",
        "Verification: the listener answers 0000; the sender takes any other status as a failure and shows it.",
        "##### 7.3.2.5 Storage service",
        "###### 7.3.2.5.1 SCU: C-STORE",
        status_codes.understood_statuses(),
        'No answer, no connection and an association that breaks are taken as "sent again later". A kind of object '
        "whose presentation context the receiver does not accept is noted as not sent, and holds nothing else back.",
        status_codes.understood_rejections(),
        "###### 7.3.2.5.2 SCP: C-STORE",
        status_codes.answered_statuses(),
        commitment_statuses(),
    )


def _general_parameters() -> str:
    rows = [
        ("Application Context Name", APPLICATION_CONTEXT),
        ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
        ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
        ("Asynchronous operations window", "not negotiated: one operation at a time"),
        ("SOP class extended, common extended and user identity negotiation", "not negotiated"),
        (
            "SCP/SCU role selection",
            "accepted for Storage Commitment Push Model, with the caller as SCP; otherwise not negotiated",
        ),
        ("IPv4, IPv6", "both"),
    ]
    return paragraphs("#### 7.1.1 General association parameters", table(("Name", "Value"), rows))


def _listener() -> str:
    defaults = ListenerSettings()
    rows = [
        ("Maximum number of associations", f"{defaults.max_associations} (`listener.max_associations`)"),
        (
            "Maximum number of associations of one AE title",
            f"{defaults.max_associations_per_ae} (`listener.max_associations_per_ae`)",
        ),
        ("Maximum PDU length", f"{defaults.max_pdu_bytes} (`listener.max_pdu_bytes`)"),
        ("Waits for the association request (ARTIM)", f"{defaults.acse_timeout_s:g} s (`listener.acse_timeout_s`)"),
        ("Waits inside a message", f"{defaults.dimse_timeout_s:g} s (`listener.dimse_timeout_s`)"),
        ("Waits on an idle association", f"{defaults.network_timeout_s:g} s (`listener.network_timeout_s`)"),
    ]
    return paragraphs(
        "#### 7.2.1 Listener Application Entity",
        "##### 7.2.1.1 Sequencing of real-world activities",
        "A scanner, PACS or router opens an association, stores images and releases it. When the series that are "
        "needed are complete, the worker computes; the sender then opens associations of its own. A receiver of "
        "results may call to report on storage commitment.",
        "##### 7.2.1.2 Association parameters",
        table(("Name", "Value"), rows),
        "##### 7.2.1.3 Association initiation",
        "None.",
        "##### 7.2.1.4 Association acceptance",
        "Judged in this order: calling AE title, address, certificate (with TLS), called AE title, free places.",
        status_codes.sent_rejections(),
        "Presentation contexts accepted; of each one the first transfer syntax of this list that the peer proposes:",
        context_table(accepted_contexts()),
        "Data in a lossy transfer syntax are kept and then refused as input with `LOSSY`. Deflated (a small object may "
        "become a huge one) and high-throughput JPEG 2000 (no decoder) are not accepted for images.",
    )


def _sender() -> str:
    delivery, timeout_s = DeliverySettings(), DestinationSettings(name="", kind="").timeout_s
    rows = [
        ("Maximum number of associations", "1 to each destination"),
        ("Maximum PDU length received", str(AE().maximum_pdu_size)),
        ("Waits for connection, association and answer", f"{timeout_s:g} s (`destinations[].timeout_s`)"),
        ("Waits longer for the answer to a large object", f"as long as {SLOWEST_LINE_BYTES_PER_S} bytes/s take"),
    ]
    return paragraphs(
        "#### 7.2.2 Sender Application Entity",
        "##### 7.2.2.1 Sequencing of real-world activities",
        "Once a day a receiver is asked which kinds of results it takes, by an association that proposes Verification "
        "and all of them and sends nothing. Then one association for each object: request, C-STORE, release. After a "
        "failure the next try follows "
        f"{delivery.first_retry_s:g} s later, the pause doubles up to {delivery.max_retry_s:g} s, and "
        f"{delivery.give_up_after_h:g} h after the first try the delivery stops.",
        "##### 7.2.2.2 Association parameters",
        table(("Name", "Value"), rows),
        "##### 7.2.2.3 Association initiation",
        "Proposed: to send an object its own class alone, to ask what a receiver takes all of them, to ask for "
        "commitment that class alone:",
        context_table(
            (
                Context(abstract_syntax=VERIFICATION, transfer_syntaxes=("1.2.840.10008.1.2",)),
                *proposed_contexts(),
                Context(abstract_syntax=CONTEXT[0], transfer_syntaxes=CONTEXT[1:]),
            )
        ),
        "##### 7.2.2.4 Association acceptance",
        "None.",
    )


def context_table(contexts: tuple[Context, ...]) -> str:
    """Abstract and transfer syntaxes."""
    rows = [
        (one.name, one.abstract_syntax, UID(syntax).name + (" (lossy)" if syntax in LOSSY else ""), syntax)
        for one in contexts
        for syntax in one.transfer_syntaxes
    ]
    return table(("Abstract syntax", "UID", "Transfer syntax", "UID"), rows)
