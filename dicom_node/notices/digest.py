"""Notices as a message: one subject, one text, one JSON document, with patient data only where that was asked for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from dicom_node.notices.notice import Notice

MOST_LISTED: Final = 50
"""Of a flood the first ones are told one by one, the rest as a number."""

Patient = Callable[[str], str]
"""One line about the patient of a study, in visible characters; "" where nothing is known or may be said."""


def nothing_of_the_patient(_study_instance_uid: str) -> str:
    """What is said of a patient by default."""
    return ""


@dataclass(frozen=True, kw_only=True)
class DigestOptions:
    """`node_name` is this installation's; `dashboard_url` is where studies are found, "" for no links."""

    node_name: str
    dashboard_url: str = ""
    patient: Patient = nothing_of_the_patient


@dataclass(frozen=True, kw_only=True)
class Digest:
    """One message. `identification` is the same for the same notices, so a receiver can tell a repetition."""

    identification: str
    subject: str
    text: str
    document: dict[str, Any]


def digest(notices: Sequence[Notice], options: DigestOptions) -> Digest:
    """One message about all of them, oldest first."""
    listed = notices[:MOST_LISTED]
    left = len(notices) - len(listed)
    blocks = [_block(one, options) for one in listed]
    if left:
        blocks.append(f"... and {left} more, not listed here.")
    head = f"{options.node_name} has {_counted(notices)}."
    foot = "Research use only. Not for diagnostic use."
    text = "\n\n".join([head, *blocks, foot]) + "\n"
    identification = _identification(notices, options.node_name)
    return Digest(
        identification=identification,
        subject=f"[{options.node_name}] {_counted(notices)}",
        text=text,
        document={
            "id": identification,
            "node": options.node_name,
            "text": text,
            "notices": [_item(one, options) for one in listed],
            "not_listed": left,
        },
    )


def _counted(notices: Sequence[Notice]) -> str:
    """How many of what, such as "2 x study refused, 1 x disk nearly full"."""
    return ", ".join(f"{count} x {words}" for words, count in Counter(one.kind.words for one in notices).items())


def _block(one: Notice, options: DigestOptions) -> str:
    lines = [f"{_time(one.at)}  {one.kind.words}", one.text]
    if one.study_instance_uid:
        lines.append(f"Study {one.study_instance_uid}")
        patient = options.patient(one.study_instance_uid)
        lines += [f"Patient {patient}"] if patient else []
        link = _link(one, options)
        lines += [link] if link else []
    return "\n  ".join(lines)


def _item(one: Notice, options: DigestOptions) -> dict[str, Any]:
    item: dict[str, Any] = {"kind": one.kind.value, "at": _time(one.at), "text": one.text}
    if one.study_instance_uid:
        item["study_instance_uid"] = one.study_instance_uid
        patient = options.patient(one.study_instance_uid)
        item |= {"patient": patient} if patient else {}
        item["link"] = _link(one, options)
    return item


def _link(one: Notice, options: DigestOptions) -> str:
    if not options.dashboard_url:
        return ""
    return f"{options.dashboard_url.rstrip('/')}/studies/{quote(one.study_instance_uid, safe='.')}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="seconds")


def _identification(notices: Sequence[Notice], node_name: str) -> str:
    said = "\n".join([node_name, *(f"{one.number} {one.at} {one.kind.value}" for one in notices)])
    return hashlib.sha256(said.encode()).hexdigest()[:32]
