"""An entry of the trail as the XML of PS3.15 A.5.1, which audit record repositories read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, tostring

_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped; a caller's title may have them."""


def written_as_xml(message: Mapping[str, Any]) -> bytes:
    """The message as one XML document in UTF-8.

    Parameters
    ----------
    message
        `AuditEntry.message`: its fields have the names of the schema, so this only says which of them are attributes,
        which are elements, and in which order elements stand.
    """
    root = Element("AuditMessage")
    _event(root, message["EventIdentification"])
    for participant in message["ActiveParticipant"]:
        _participant(root, participant)
    _source(root, message["AuditSourceIdentification"])
    for one in message["ParticipantObjectIdentification"]:
        _object(root, one)
    written: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _event(root: Element, fields: Mapping[str, Any]) -> None:
    event = _element(root, "EventIdentification", fields, ("EventActionCode", "EventDateTime", "EventOutcomeIndicator"))
    _coded(event, fields, ("EventID", "EventTypeCode"))
    if "EventOutcomeDescription" in fields:
        SubElement(event, "EventOutcomeDescription").text = _text(fields["EventOutcomeDescription"])


def _participant(root: Element, fields: Mapping[str, Any]) -> None:
    names = ("UserID", "AlternativeUserID", "UserName", "UserIsRequestor")
    network = ("NetworkAccessPointID", "NetworkAccessPointTypeCode")
    _coded(_element(root, "ActiveParticipant", fields, names + network), fields, ("RoleIDCode",))


def _source(root: Element, fields: Mapping[str, Any]) -> None:
    source = _element(root, "AuditSourceIdentification", fields, ("AuditEnterpriseSiteID", "AuditSourceID"))
    SubElement(source, "AuditSourceTypeCode", {"csd-code": _text(fields["AuditSourceTypeCode"])})


def _object(root: Element, fields: Mapping[str, Any]) -> None:
    names = ("ParticipantObjectID", "ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole")
    one = _element(root, "ParticipantObjectIdentification", fields, names)
    _coded(one, fields, ("ParticipantObjectIDTypeCode",))
    if "ParticipantObjectQuery" in fields:
        SubElement(one, "ParticipantObjectQuery").text = _text(fields["ParticipantObjectQuery"])


def _element(root: Element, name: str, fields: Mapping[str, Any], attributes: Iterable[str]) -> Element:
    return SubElement(root, name, {one: _text(fields[one]) for one in attributes if one in fields})


def _coded(parent: Element, fields: Mapping[str, Any], names: Iterable[str]) -> None:
    """Coded values: csd-code, codeSystemName and originalText are attributes of an empty element."""
    for name in names:
        if name in fields:
            SubElement(parent, name, {one: _text(value) for one, value in fields[name].items()})


def _text(value: object) -> str:
    """A value as XML may hold it; truth values in the words of XML Schema."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", str(value))
