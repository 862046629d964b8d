"""Check the audit trail, or show what is in it.

hydrops-node audit verify               is every entry there, unchanged and in order?
hydrops-node audit show                 the last entries: when, who, what, which study, how it ended
hydrops-node audit show --study UID     what was done to one study
hydrops-node audit show --json          whole entries, one JSON object a line, with the fields of PS3.15 A.5

Showing the trail is itself an entry in it. Exit status of `verify`: 0 whole, 1 changed, missing or cut entries.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicom_node.audit import AuditEntry, AuditTrail


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `audit`."""
    parser.add_argument("what", choices=("verify", "show"), help="check the chain, or print entries")
    parser.add_argument("--config", default="config/node.toml", metavar="NODE_TOML", help="default: %(default)s")
    parser.add_argument("--study", metavar="UID", help="show: only entries about this Study Instance UID")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="show: how many (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="show: print whole entries")


def run(arguments: argparse.Namespace) -> int:
    """Verify or show."""
    from dicom_node.cli.wiring import audit_trail, load_settings
    from dicom_node.errors import UnusableInput

    loaded = load_settings(Path(arguments.config))
    if not loaded.state_dir.is_dir():
        raise UnusableInput(f"{loaded.state_dir}: no state here yet; has the node run with this configuration?")
    trail = audit_trail(loaded)
    return _verify(trail) if arguments.what == "verify" else _show(trail, arguments)


def _verify(trail: AuditTrail) -> int:
    problems = trail.verify()
    for problem in problems:
        print(f"{problem.where}: {problem.sentence}")
    count = sum(1 for _ in trail.entries())
    print(f"{count} entries, {len(problems)} problems" if problems else f"{count} entries, all there and unchanged")
    return 1 if problems else 0


def _show(trail: AuditTrail, arguments: argparse.Namespace) -> int:
    from dicom_node.audit import AuditAction
    from dicom_node.cli.os_user import os_user

    wanted = [one for one in trail.entries() if arguments.study in (None, study_of(one))]
    trail.record(AuditAction.AUDIT_READ, actor=os_user(), study_instance_uid=arguments.study or "")
    for entry in wanted[-arguments.limit :] if arguments.limit > 0 else wanted:
        print(json.dumps({"sequence": entry.sequence, **entry.message}) if arguments.json else line_of(entry))
    return 0


def study_of(entry: AuditEntry) -> str:
    """The Study Instance UID that an entry is about, or an empty string."""
    for one in entry.message["ParticipantObjectIdentification"]:
        if one["ParticipantObjectIDTypeCode"]["csd-code"] == "110180":
            return str(one["ParticipantObjectID"])
    return ""


def line_of(entry: AuditEntry) -> str:
    """One entry on one line; what came from outside cannot move the cursor of a terminal."""
    event = entry.message["EventIdentification"]
    who, _node, *receivers = entry.message["ActiveParticipant"]
    words = [
        str(entry.sequence).rjust(6),
        event["EventDateTime"],
        "ok    " if event["EventOutcomeIndicator"] == "0" else "failed",
        entry.action.value,
        f"by {who['UserID']}" + (f" from {who['NetworkAccessPointID']}" if "NetworkAccessPointID" in who else ""),
        *(f"to {one['UserID']}" for one in receivers),
        study_of(entry),
        event.get("EventOutcomeDescription", ""),
    ]
    line = "  ".join(word for word in words if word)
    return "".join(character if character.isprintable() else "?" for character in line)
