"""Show every study and what became of it, or one study with its whole history.

hydrops-node status                     what each destination gets, and the studies that changed last
hydrops-node status STUDY_INSTANCE_UID  series roles with reasons, numbers, deliveries, history
hydrops-node status --json [STUDY]      the same for programs
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicom_node import RESEARCH_USE
from dicom_node.errors import UnusableInput

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dicom_node.delivery.capabilities import DestinationForms
    from dicom_node.delivery.outbox import Delivery, Outbox
    from dicom_node.duties import Duty
    from dicom_node.ledger import Ledger, StudyRecord
    from dicom_node.settings import LoadedSettings
    from dicom_node.urgency import StudyUrgency


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `status`."""
    parser.add_argument("study", nargs="?", metavar="STUDY", help="Study Instance UID; all studies when left out")
    parser.add_argument("--config", default="config/node.toml", metavar="NODE_TOML", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="how many studies (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Print the state of the node's studies."""
    from dicom_node.cli.wiring import load_settings
    from dicom_node.database import open_database
    from dicom_node.delivery.outbox import Outbox
    from dicom_node.duties import duties
    from dicom_node.ledger import Ledger
    from dicom_node.urgency import Urgencies

    loaded = load_settings(Path(arguments.config))
    if not loaded.state_dir.is_dir():
        raise UnusableInput(f"{loaded.state_dir}: no state here yet; has the node run with this configuration?")
    engine = open_database(loaded.database_url)
    ledger, outbox = Ledger(engine), Outbox(loaded.state_dir / "outbox", engine)
    urgencies = Urgencies(engine)
    if arguments.study is None:
        records = ledger.recent(limit=arguments.limit)
        if arguments.json:
            print(json.dumps([asdict(one) for one in records], indent=2))
            return 0
        print("\n".join(destination_lines(forms_of_destinations(loaded, engine))))
        print("\n".join(worker_lines(duties(engine))))
        print(_table(records, urgencies.of_studies(one.study_instance_uid for one in records)))
        return 0
    record = ledger.get(arguments.study)
    if record is None:
        raise UnusableInput(f"study {arguments.study}: unknown here; `hydrops-node status` lists what is known")
    urgency = urgencies.of_study(record.study_instance_uid)
    if arguments.json:
        print(_one_as_json(record, urgency, ledger, outbox))
    else:
        print("\n".join(_one(record, urgency, ledger, outbox)))
    return 0


def _table(records: Sequence[StudyRecord], urgencies: Mapping[str, StudyUrgency]) -> str:
    if not records:
        return "no study has been received yet"
    rows = [("changed", "state", "study", "step or reason")]
    rows += [
        (
            _time(one.updated_at),
            _state_words(one, urgencies[one.study_instance_uid]),
            one.study_instance_uid,
            one.step or one.detail or one.reason,
        )
        for one in records
    ]
    widths = [max(len(row[n]) for row in rows) for n in range(3)]
    return "\n".join("  ".join([*(row[n].ljust(widths[n]) for n in range(3)), row[3]]).rstrip() for row in rows)


def _state_words(record: StudyRecord, urgency: StudyUrgency) -> str:
    """The state, and how urgent a study is that still waits for its turn or has it."""
    from dicom_node.study_moves import UNDER_WAY

    urgent = urgency.sentence and record.state in UNDER_WAY
    return f"{record.state}, {urgency.urgency}" if urgent else record.state.value


def _one(record: StudyRecord, urgency: StudyUrgency, ledger: Ledger, outbox: Outbox) -> list[str]:
    lines = [f"study {record.study_instance_uid}", f"state {record.state} {record.step}".rstrip()]
    if urgency.sentence:  # also of one that has ended: it says why that one went before others
        lines.append(urgency.sentence)
    if record.reason or record.detail:
        lines.append(f"reason {record.reason} {record.detail}".rstrip())
    lines += ["", "series"]
    lines += [_series_line(one) for one in record.decisions]
    lines += ["", "ears"]
    lines += [*_ear_lines(record.findings), f"  {RESEARCH_USE}"]
    lines += ["", "deliveries"]
    lines += [_delivery_line(one) for one in outbox.deliveries(record.study_instance_uid)] or ["  none"]
    lines += ["", "history"]
    lines += [
        f"  {_time(one.at)}  {one.event}  {one.detail}".rstrip() for one in ledger.history(record.study_instance_uid)
    ]
    return lines


def _series_line(decision: Mapping[str, Any]) -> str:
    verdict = "used" if decision["used"] else f"left out: {decision['left_out_because'] or 'not needed'}"
    return f"  {decision['series_instance_uid']}  taken as {decision['role']} because {decision['reason']} ({verdict})"


def _ear_lines(findings: Mapping[str, Any] | None) -> list[str]:
    from dicom_node.encoding.measurements import read_measurements

    measured = read_measurements(findings or {})
    if measured is None:
        return ["  no numbers"]
    return [f"  {line}" for ear in measured.ears for line in ear.sentences]


def forms_of_destinations(loaded: LoadedSettings, engine: Engine) -> list[DestinationForms]:
    """What is known of each configured destination, in the order of the configuration."""
    from dicom_node.cli.wiring import destinations, made_kinds
    from dicom_node.delivery.capabilities import Capabilities

    capabilities = Capabilities(engine, made=made_kinds(loaded.settings))
    return [capabilities.of(one) for one in destinations(loaded)]


def destination_lines(forms: Sequence[DestinationForms]) -> list[str]:
    """What goes to each destination and what does not, with the reason."""
    if not forms:
        return ["no destination is configured: results stay in the outbox", ""]
    return ["destinations", *(f"  {one.destination}: {one.sentence}" for one in forms), ""]


def worker_lines(found: Sequence[Duty]) -> list[str]:
    """Every worker: on duty or not, where, at which study, taken over from whom."""
    if not found:
        return ["no worker has been seen within a week", ""]
    return ["workers", *(f"  {_worker_line(one)}" for one in found), ""]


def _worker_line(duty: Duty) -> str:
    worker = duty.worker
    line = f"{worker.worker_id} on {worker.host or 'a machine without name'} since {_time(worker.began_at)}"
    if worker.left_at is not None:
        return f"{line}, stopped {_time(worker.left_at)}"
    if not worker.on_duty:
        line += f", silent for {worker.silent_s:.0f} s"
    if not duty.study_instance_uid:
        return line
    taken = f", taken over from {duty.taken_from}" if duty.taken_from else ""
    return f"{line}, at {duty.study_instance_uid} {duty.step}".rstrip() + taken


def _delivery_line(one: Delivery) -> str:
    from dicom_node.delivery.outbox import DeliveryState

    if one.state is DeliveryState.NOT_SENT:
        return f"  {one.kind} to {one.destination}: {one.last_detail}"
    words = one.standing.replace("_", " ")
    line = f"  {one.kind} to {one.destination}: {words}, tries: {one.attempts}. {one.last_detail}".rstrip()
    word = one.commitment
    if word is None:
        return line
    again = f", sent again {word.sent_again}" if word.sent_again else ""
    return f"{line}\n    asked to commit: {word.asked}{again}. {word.last_detail}".rstrip()


def _one_as_json(record: StudyRecord, urgency: StudyUrgency, ledger: Ledger, outbox: Outbox) -> str:
    document = asdict(record)
    document["urgency"] = asdict(urgency)
    document["history"] = [asdict(one) for one in ledger.history(record.study_instance_uid)]
    document["deliveries"] = [asdict(one) for one in outbox.deliveries(record.study_instance_uid)]
    return json.dumps(document, indent=2)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
