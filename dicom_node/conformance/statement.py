"""The DICOM Conformance Statement in the layout of PS3.2 Annex N, as one Markdown page."""

from __future__ import annotations

import re
from typing import Final

import pydicom
from pydicom.uid import UID

from dicom_node import __version__
from dicom_node.conformance.negotiation import VERIFICATION, accepted_contexts, created_objects, proposed_contexts
from dicom_node.conformance.object_annexes import code_annex, object_annex, report_annex
from dicom_node.conformance.parameters import GENERAL, LISTENER, SENDER, parameter_table
from dicom_node.conformance.security import security_annex, security_section
from dicom_node.conformance.services import network_section, service_section
from dicom_node.conformance.tables import paragraphs, table
from dicom_node.delivery.commitment_answers import STORAGE_COMMITMENT

TITLE: Final = "# DICOM conformance statement"
YES, NO = "yes", "no"


def statement() -> str:
    """The whole page; the same program gives the same page."""
    body = [
        _introduction(),
        _implementation_model(),
        service_section(),
        _configuration_section(),
        network_section(),
        security_section(),
        object_annex(),
        report_annex(),
        security_annex(),
        _mapping_annex(),
        code_annex(),
    ]
    return paragraphs(TITLE, _preface(), _overview(), _contents(body), *body) + "\n"


def _preface() -> str:
    return (
        f"Hydrops Node {__version__}. Layout after DICOM PS3.2 Annex N. Written by `hydrops-node conformance` from the "
        "program's own tables and from objects that it made; tests compare this page with the program and with a "
        "running node, so it is not edited by hand. **Research use only. Not for diagnostic use.**"
    )


def _overview() -> str:
    services = [
        ("Verification", YES, YES),
        ("Storage", YES, YES),
        ("Storage Commitment", YES, NO),
        ("Query/Retrieve, Worklist, MPPS, UPS, Print, Instance Availability", NO, NO),
    ]
    roots = sorted({one.ContentTemplateSequence[0].TemplateIdentifier for one in _reports()})
    return paragraphs(
        "## 1 Overview",
        "The node receives MR images of the inner ear, decides which series are which, measures total fluid and "
        "endolymph of both ears, and sends the results to the archive in the study that they belong to.",
        "### 1.1 Content and transfer",
        table(("SOP class", "UID", "Created", "Read", "Received (SCP)", "Sent (SCU)"), _content_rows()),
        "#### 1.1.1 Root templates of structured reports",
        ", ".join(f"TID {root}" for root in roots) + ".",
        "### 1.2 DIMSE services",
        table(("Service", "SCU", "SCP"), services),
        "### 1.3 DICOM Web Services\n\nNone.",
        "### 1.4 Media services\n\nNone.",
        "### 1.5 Real-Time Video services\n\nNone.",
        "### 1.6 De-identification profiles\n\nNone.",
        "### 1.7 Specific Character Sets\n\nReads those of PS3.3 C.12.1.1.2; writes ISO_IR 192.",
    )


def _content_rows() -> list[tuple[str, ...]]:
    received = {one.abstract_syntax for one in accepted_contexts()} - {VERIFICATION, STORAGE_COMMITMENT}
    sent = [one.abstract_syntax for one in proposed_contexts()]
    created = [str(families[0][0].dataset.SOPClassUID) for families in created_objects().values()]
    rows: list[tuple[str, ...]] = []
    for uid in (*sorted(received), *created):
        made = YES if uid in created else NO
        read = YES if uid in received else NO
        rows.append((UID(uid).name, uid, made, read, read, YES if uid in sent else NO))
    return rows


def _reports() -> list[pydicom.Dataset]:
    return [family[0].dataset for family in created_objects()["SR"]]


def _contents(body: list[str]) -> str:
    titles = re.findall(r"^## (.+)$", "\n\n".join(body), re.MULTILINE)
    titles.insert(0, "1 Overview")
    return "## 2 Table of contents\n\n" + "\n".join(f"- [{title}](#{_anchor(title)})" for title in titles)


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _introduction() -> str:
    return paragraphs(
        "## 3 Introduction",
        "### 3.1 Revision history",
        "The history of this file in the project's repository; what changed for operators is in the changelog.",
        "### 3.2 Audience",
        "PACS administrators, integrators and service engineers who connect the node. Terms of DICOM are used as the "
        "standard defines them, terms of the ear as the [glossary](glossary.md) does.",
        "### 3.3 Remarks",
        "Conformance does not by itself guarantee that two products work together; `hydrops-node doctor` tries a "
        "connection. This page describes one version of the program with default settings.",
        "### 3.4 References",
        "DICOM PS3.2 (Annex N), PS3.3, PS3.4, PS3.5, PS3.6, PS3.7, PS3.8, PS3.15, PS3.16. Module usage and attributes "
        "of modules are those of the tables that highdicom carries.",
    )


def _implementation_model() -> str:
    entities = [
        ("Listener", "Keeps MR images that listed peers store. Runs as long as `listener.enabled` is true."),
        ("Sender", "Sends results to every destination of kind `dicom`; runs as long as there is one."),
    ]
    return paragraphs(
        "## 4 Implementation model",
        "### 4.1 Application Entities and data flow",
        "    scanner, PACS, router --C-STORE--> Listener -> spool -> worker -> outbox -> Sender --C-STORE--> archive",
        "Besides DICOM, images can be read from an Orthanc and results written to one over its REST API.",
        "#### 4.1.1 Functional definition of the Application Entities",
        table(("Application Entity", "What it does"), entities),
        "Both use the AE title `node.ae_title`.",
    )


def _configuration_section() -> str:
    return paragraphs(
        "## 6 Configuration",
        "### 6.1 General configuration parameters",
        "One file, edited as text or in the dashboard; every key is explained in [Configuration](configuration.md). "
        "Secrets come from the environment.",
        parameter_table(GENERAL),
        "### 6.2 Configuration of DIMSE services",
        "#### 6.2.5 Storage",
        "Listener:",
        parameter_table(LISTENER),
        "Sender:",
        parameter_table(SENDER),
    )


def _mapping_annex() -> str:
    return paragraphs(
        "## A.D Mapping of attributes",
        "No worklist, procedure step or HL7 message is mapped. What results take from their source images has the "
        "source COPY in A.A. Patient and study attributes are copied from the MR cisternography, geometry with the "
        "digits of its slices. A patient's name, ID or issuer that does not fit its attribute is refused, never cut; "
        "another text that does not fit is left out, and the report says so.",
    )
