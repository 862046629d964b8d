"""Configuration parameters that touch DICOM, with the defaults of the program and when a change takes effect."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Final

from dicom_node.conformance.tables import table
from dicom_node.settings import Settings
from dicom_node.settings.effects import effect_of

GENERAL: Final[Mapping[str, str]] = {
    "node.ae_title": "AE title of listener and sender",
    "results.device_name": "Device Observer Name of reports",
    "results.device_serial_number": "Device Serial Number of every object; the Device Observer UID follows from it",
}
LISTENER: Final[Mapping[str, str]] = {
    "listener.enabled": "whether the listener runs",
    "listener.host": "address to listen on",
    "listener.port": "TCP port to listen on",
    "listener.allowed": "peers that may call; none by default",
    "listener.allowed[].ae_title": "calling AE title, compared exactly",
    "listener.allowed[].networks": "networks that it may call from",
    "listener.allowed[].certificate_sha256": "binds it to one TLS certificate",
    "listener.max_associations": "associations at the same time, 1 to 1000",
    "listener.max_associations_per_ae": "of these, how many one AE title may have, 1 to 1000",
    "listener.max_pdu_bytes": "longest PDU taken, 4096 to 1048576",
    "listener.max_instance_bytes": "largest object taken",
    "listener.acse_timeout_s": "waits for the association request",
    "listener.dimse_timeout_s": "waits inside a message",
    "listener.network_timeout_s": "waits on an idle association",
    "listener.min_free_bytes": "below this free space A700 is answered",
    "listener.tls_certificate": "our certificate; empty: no TLS",
    "listener.tls_key": "its private key",
    "listener.tls_client_ca": "authorities of our peers; given, every peer must show a certificate",
}
SENDER: Final[Mapping[str, str]] = {
    "destinations[].name": "name of the receiver within the node",
    "destinations[].kind": "`dicom` is C-STORE; `orthanc` is Orthanc's REST API and no DICOM service",
    "destinations[].host": "host name or address",
    "destinations[].port": "TCP port",
    "destinations[].called_ae": "its AE title",
    "destinations[].send": "kinds of objects to send (SEG, SR, SC, PDF); empty: all that the receiver takes",
    "destinations[].done": "`sent`: done when stored; `committed`: done when committed by storage commitment",
    "destinations[].timeout_s": "waits for each answer; for a C-STORE as much longer as 64 000 bytes/s would take",
    "destinations[].tls": "whether to call it by TLS",
    "destinations[].tls_ca": "who signs its certificate; empty: the authorities that the system trusts",
    "destinations[].tls_certificate": "our certificate, for a receiver that asks for one",
    "destinations[].tls_key": "its private key",
    "destinations[].tls_name": "the name in its certificate, if not `host`",
    "delivery.first_retry_s": "pause after the first failed try, doubled with every further one",
    "delivery.max_retry_s": "longest pause",
    "delivery.give_up_after_h": "then the delivery stops",
    "results.send_not_computed": "whether a study that was refused, or failed, gets a report with the reason",
    "results.segmentation_series_number": "Series Number of the segmentation",
    "results.report_series_number": "Series Number of the report",
    "results.summary": "whether the summary is made as a Secondary Capture image",
    "results.summary_series_number": "its Series Number",
    "results.pdf": "whether the summary is made as an Encapsulated PDF",
    "results.pdf_series_number": "its Series Number",
}


def parameter_table(parameters: Mapping[str, str]) -> str:
    """Key, default, when a change counts, and meaning."""
    rows = [
        (f"`{key}`", default_of(key), str(effect_of(key.partition("[")[0])), words) for key, words in parameters.items()
    ]
    return table(("Parameter", "Default", "A change counts", "Meaning"), rows)


def default_of(key: str) -> str:
    """The default as the configuration file writes it, or "required"."""
    kind: Any = Settings
    *path, name = key.split(".")
    for step in path:
        hint = typing.get_type_hints(kind)[step.removesuffix("[]")]
        kind = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint
    (one,) = (one for one in fields(kind) if one.name == name)
    if one.default is MISSING:
        return "required"
    return f"`{_written(one.default)}`"


def _written(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_written(one) for one in value) + "]"
    return json.dumps(value)
