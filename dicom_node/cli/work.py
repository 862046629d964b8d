"""Compute and deliver only. Pair it with `listen`.

Takes complete studies from the spool, computes them one at a time and sends the results to every destination.

hydrops-node work --config config/node.toml
"""

from __future__ import annotations

import argparse
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.cli.service import add_service_arguments, until_told_to_stop

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dicom_node.cli.worker_renewal import WorkerRenewal
    from dicom_node.delivery.outbox import Outbox
    from dicom_node.settings import LoadedSettings
    from dicom_node.study_desk import StudyDesk
    from inference.segmentation import FluidSegmenter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `work`."""
    add_service_arguments(parser)
    parser.add_argument("--until-stdin-ends", action="store_true", help=argparse.SUPPRESS)  # how `serve` holds it


def run(arguments: argparse.Namespace) -> int:
    """Work until SIGTERM, Ctrl-C or (as a child of `serve`) the parent's end."""
    from dicom_node.cli.logs import start_logging
    from dicom_node.cli.node_audit import audited_run
    from dicom_node.cli.state_folder import only_one, prepare
    from dicom_node.cli.wiring import audit_forwarder, audit_trail, load_settings
    from dicom_node.cli.worker_renewal import WorkerRenewal

    start_logging(arguments.log_level)
    loaded = load_settings(Path(arguments.config))
    folder = prepare(loaded.state_dir)
    worker_id = loaded.settings.node.worker_id
    with (
        only_one(folder, f"work-{worker_id}"),
        audited_run(audit_trail(loaded), f"computing as {worker_id}", forwarder=audit_forwarder(loaded)),
        until_told_to_stop(stdin_too=arguments.until_stdin_ends) as stop,
    ):
        renewal = WorkerRenewal(Path(arguments.config), loaded, stop)
        renewal.start()
        _work(loaded, stop, renewal)
    renewal.after_end(told=stop.told)
    return 0


def _work(loaded: LoadedSettings, stop: threading.Event, renewal: WorkerRenewal) -> None:
    """Compute and deliver until told to stop."""
    from dicom_node.cli.delivering import Outgoing
    from dicom_node.cli.heartbeat import Heartbeat, model_words
    from dicom_node.cli.step_durations import StepDurations
    from dicom_node.cli.wiring import make_segmenter
    from dicom_node.database import open_database, require_whole
    from dicom_node.delivery.outbox import Outbox
    from dicom_node.drift_points import DriftPoints
    from dicom_node.ledger import Ledger
    from dicom_node.look_pace import LookPace
    from dicom_node.roster import Roster, wait_for_place
    from dicom_node.study_cards import StudyCards
    from dicom_node.time_limit import TimeLimit
    from dicom_node.workflow import StudyWorker

    engine = open_database(loaded.database_url)
    require_whole(engine)
    worker_id, roster = loaded.settings.node.worker_id, Roster(engine)
    wait_for_place(roster, worker_id, socket.gethostname())
    outbox = Outbox(loaded.state_dir / "outbox", engine)
    outbox.sweep(time.time())
    pump = Outgoing(loaded, outbox, engine)
    segmenter, durations = make_segmenter(loaded), StepDurations()
    Heartbeat(
        loaded.state_dir,
        worker_id,
        dead_deliveries=pump.dead,
        stop=stop,
        about=lambda: {"model": model_words(segmenter.identity), "steps": durations.as_json()},
    ).start()
    worker = StudyWorker(
        _desk(loaded, engine, outbox, segmenter, on_published=pump.wake, on_step_done=durations.add),
        workflow_url=loaded.workflow_url,
        worker_id=worker_id,
        roster=roster,
        pace=LookPace(engine, clock=time.time, monotonic=time.monotonic),
        host=socket.gethostname(),
        gate=renewal.gate,
        on_fault=renewal.after_fault,
        after_look=DriftPoints(engine, ledger=Ledger(engine), cards=StudyCards(engine), outbox=outbox).settle,
        time_limit=TimeLimit(loaded.state_dir / f"{worker_id}.limit", loaded.settings.processing.time_limit_s),
    )
    pump.start()
    try:
        worker.run(stop)
    finally:
        pump.stop()
        engine.dispose()


def _desk(
    loaded: LoadedSettings,
    engine: Engine,
    outbox: Outbox,
    segmenter: FluidSegmenter,
    *,
    on_published: Callable[[], None],
    on_step_done: Callable[[str, float], None],
) -> StudyDesk:
    """The desk on this node's spool, ledger, outbox and shelf of pictures."""
    from dicom_node.arrival_times import ArrivalTimes
    from dicom_node.claims import Claims
    from dicom_node.cli.receiving import open_spool
    from dicom_node.cli.wiring import audit_trail, case_options, destinations
    from dicom_node.ledger import Ledger
    from dicom_node.owed_failures import OwedFailures
    from dicom_node.owed_pictures import OwedPictures
    from dicom_node.study_cards import StudyCards
    from dicom_node.study_desk import DeskOptions, StudyDesk
    from dicom_node.study_requests import StudyRequests
    from dicom_node.urgency import Urgencies
    from dicom_node.views.shelf import ViewShelf

    views = ViewShelf(loaded.state_dir / "views")
    views.sweep(time.time())
    return StudyDesk(
        spool=open_spool(loaded, engine),
        ledger=Ledger(engine),
        claims=Claims(engine, loaded.settings.node.worker_id),
        cards=StudyCards(engine),
        outbox=outbox,
        views=views,
        owed=OwedPictures(engine),
        owed_failures=OwedFailures(engine),
        requests=StudyRequests(engine),
        urgencies=Urgencies(engine),
        audit=audit_trail(loaded),
        segmenter=segmenter,
        case_options=case_options(loaded, from_file=True),
        options=DeskOptions(
            quiet_s=loaded.settings.assembly.quiet_s,
            partner_wait_s=loaded.settings.assembly.partner_wait_s,
            send_not_computed=loaded.settings.results.send_not_computed,
            destinations=tuple(one.name for one in destinations(loaded)),
            urgent_from=loaded.settings.assembly.urgent_from,
        ),
        arrival_times=ArrivalTimes(clock=time.time, monotonic=time.monotonic),
        clock=time.time,
        monotonic=time.monotonic,
        on_published=on_published,
        on_step_done=on_step_done,
    )
