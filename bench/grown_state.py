"""A state database as years of work leave it, written by the product's own tables and without a single image.

Every study has `IMAGES_PER_STUDY` images in the index of the spool, its line in the ledger, its history, an outcome,
both ears' numbers, and two delivered results. What a node does all day is then timed on it by `growth.py`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, Table, insert

HERE: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from dashboard import card, put_cards, results, row  # noqa: E402 - the list's bench writes the same studies
from planted_studies import DECISIONS, document  # noqa: E402

from dicom_node.database import writing  # noqa: E402
from dicom_node.delivery.outbox import Outbox  # noqa: E402
from dicom_node.delivery.outbox_rows import DeliveryState, delivery_rows, object_rows  # noqa: E402
from dicom_node.drift_points import DriftPoints  # noqa: E402
from dicom_node.intake.spool_rows import instance_table, series_table, study_table  # noqa: E402
from dicom_node.ledger import Ledger  # noqa: E402
from dicom_node.ledger_rows import ledger_events, ledger_results, ledger_studies  # noqa: E402
from dicom_node.study_cards import StudyCards  # noqa: E402
from dicom_node.study_moves import StudyEvent, StudyState  # noqa: E402
from inference.anatomy import EarSide  # noqa: E402

IMAGES_PER_STUDY: Final = 100
SERIES_PER_STUDY: Final = 4
APART_S: Final = 300.0
"""Between two studies; a thousand of them are three and a half days of a busy scanner."""

ROWS_AT_A_TIME: Final = 20_000
STATES: Final = (*[StudyState.COMPUTED] * 8, StudyState.REFUSED, StudyState.NOT_OURS)
"""All of them ended: nothing of what grows is work that is left to do."""

RESULTS: Final = (("SEG", "1.2.840.10008.5.1.4.1.1.66.4"), ("SR", "1.2.840.10008.5.1.4.1.1.88.33"))
MR: Final = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
WAY: Final = (StudyEvent.ARRIVED, StudyEvent.COMPLETED, StudyEvent.STARTED, StudyEvent.COMPUTED)


def grow(engine: Engine, studies: int, *, destination: str, with_images: bool = True) -> None:
    """Write that many ended studies with all their rows; the newest was decided just now.

    Without images, as retention leaves a study whose results are still kept.
    """
    now = time.time()
    findings, decisions = json.dumps(document(0.271, (EarSide.RIGHT, EarSide.LEFT))), json.dumps(list(DECISIONS))
    numbers = range(studies)
    if with_images:
        _write(engine, instance_table, (one for number in numbers for one in images(number, now)))
        _write(engine, series_table, (one for number in numbers for one in series(number)))
    _write(engine, study_table, ({"study_instance_uid": _study(number), "revision": 1} for number in numbers))
    rows = (row(number, findings, decisions, now - APART_S * number) for number in numbers)
    _write(engine, ledger_studies, (one | {"state": STATES[number % 10].value} for number, one in enumerate(rows)))
    _write(engine, ledger_results, (_outcome(number, findings, now) for number in numbers))
    _write(engine, ledger_events, (one for number in numbers for one in _history(number, now)))
    _write(engine, object_rows, (one for number in numbers for one in _objects(number)))
    _write(engine, delivery_rows, (one for number in numbers for one in _deliveries(number, destination, now)))
    put_cards(engine, studies)
    cards = StudyCards(engine)
    for start in range(0, studies, 500):
        cards.put_results([one for number in numbers[start : start + 500] for one in results(number, now)])
    with tempfile.TemporaryDirectory() as folder:
        points = DriftPoints(engine, ledger=Ledger(engine), cards=cards, outbox=Outbox(Path(folder), engine))
        while points.settle():
            pass
    with engine.connect() as connection:  # PostgreSQL gathers its statistics by itself, but not within seconds
        connection.exec_driver_sql("ANALYZE" if engine.dialect.name == "postgresql" else "SELECT 1")
        connection.commit()


def images(number: int, now: float) -> Iterator[dict[str, Any]]:
    """The spool's rows of one study."""
    for image in range(IMAGES_PER_STUDY):
        name = file_name(number, image)
        yield {
            "file_name": name,
            "sop_instance_uid": f"{_study(number)}.{image}",
            "series_instance_uid": _series(number, image % SERIES_PER_STUDY),
            "study_instance_uid": _study(number),
            "sop_class_uid": MR,
            "transfer_syntax_uid": EXPLICIT_LITTLE,
            "sha256": name,
            "source": "SCANNER",
            "received_at": now - APART_S * number - 60.0,
            "conflict": False,
        }


def file_name(number: int, image: int) -> str:
    """A name as the spool gives it: 64 hexadecimal digits, spread evenly over its folders."""
    return f"{(number * IMAGES_PER_STUDY + image) * 2654435761 % 2**32:08x}{number:028x}{image:028x}"


def series(number: int) -> Iterator[dict[str, Any]]:
    """How many images each series of one study was said to have."""
    for one in range(SERIES_PER_STUDY):
        yield {"series_instance_uid": _series(number, one), "expected": IMAGES_PER_STUDY // SERIES_PER_STUDY}


def _study(number: int) -> str:
    return card(number).study_instance_uid


def _series(number: int, one: int) -> str:
    return f"{_study(number)}.90{one}"


def _outcome(number: int, findings: str, now: float) -> dict[str, Any]:
    return {
        "work_id": f"work-{number}",
        "study_instance_uid": _study(number),
        "event": StudyEvent.COMPUTED.value,
        "reason": "",
        "detail": "",
        "findings": findings,
        "at": now - APART_S * number,
    }


def _history(number: int, now: float) -> Iterator[dict[str, Any]]:
    for place, event in enumerate(WAY):
        yield {
            "study_instance_uid": _study(number),
            "at": now - APART_S * number - 10.0 + place,
            "event": event.value,
            "detail": "",
        }


def _objects(number: int) -> Iterator[dict[str, Any]]:
    for order, (kind, sop_class) in enumerate(RESULTS):
        yield {
            "sop_instance_uid": _result(number, order),
            "key": f"work-{number}",
            "study_instance_uid": _study(number),
            "series_instance_uid": f"{_result(number, order)}.0",
            "sop_class_uid": sop_class,
            "kind": kind,
            "send_order": order,
            "sha256": file_name(number, order),
        }


def _deliveries(number: int, destination: str, now: float) -> Iterator[dict[str, Any]]:
    for order in range(len(RESULTS)):
        yield {
            "sop_instance_uid": _result(number, order),
            "destination": destination,
            "state": DeliveryState.DELIVERED.value,
            "attempts": 1,
            "queued_at": now - APART_S * number,
            "next_attempt_at": now - APART_S * number,
            "last_attempt_at": now - APART_S * number,
            "last_detail": "",
        }


def _result(number: int, order: int) -> str:
    return f"{_study(number)}.80{order}"


def _write(engine: Engine, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows, many in one transaction."""
    left = iter(rows)
    while some := list(islice(left, ROWS_AT_A_TIME)):
        with writing(engine) as connection:
            connection.execute(insert(table), some)
