"""SIGTERM to a whole node under load: ten associations store, a study is computed, and the node is told to stop.

The ledgers are the senders' and the PACS's own.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Final

from dicom_receivers import Receiver
from exact_sender import associated
from fault import Fault, Observation, Scale, Trial
from free_ports import free_port
from local_node import LocalNode
from mr_images import STUDY, encode
from patience import PATIENCE_S, STUDY_S, wait_until
from phantom_patients import images_of
from raw_peer import connect
from sending import Acknowledged, look_at, send_until_refused
from small_studies import SMALL_EARS
from tripwire import armed_environment

from dicom_node.cli.receiving import DRAIN_S
from dicom_node.ledger import StudyState
from inference.phantom import make_study

CALLERS: Final = ("SCANNER", "SECOND")
SENDERS: Final = 10
"""Five of each caller: all the places that there are."""

MOST_AFTERWARDS: Final = 5
STOPPED_WITHIN_S: Final = 90.0
"""`TimeoutStopSec` in setup/hydrops-node.service: after that systemd kills whoever has not ended."""

PAUSE_S: Final = 0.1
RESULTS: Final = 3
"""Segmentation, report and page."""


@dataclass(kw_only=True)
class Storing:
    """One association that stores image after image: so many more once the node is stopping, None: until it ends."""

    caller: str
    afterwards: int | None
    ledger: Acknowledged = field(default_factory=dict)
    problem: str = ""
    ended_at: float | None = None

    def run(self, port: int, stopping: threading.Event) -> None:
        """Store; what goes wrong is kept as `problem`."""
        try:
            with associated(port, calling=self.caller) as sender:
                left = self.afterwards
                while left != 0:
                    if stopping.is_set() and left is not None:
                        left -= 1
                    status = send_until_refused(sender, self.ledger, size=64, most=1)
                    if status is None:
                        self.ended_at = time.monotonic()
                        return
                    if status != 0:
                        self.problem = f"an image was answered {status:04X}"
                        return
                    time.sleep(PAUSE_S)
        except OSError as error:
            self.problem = f"{type(error).__name__}: {error}"


def stopped_under_load(trial: Trial) -> Observation:
    """SIGTERM to `serve`; by turns everybody leaves, one sender stays, or the worker is at a study that does not end.

    Then the node starts again and finishes what it was at.
    """
    stays, lingers = trial.seed % 3 == 1, trial.seed % 3 == 2
    receiver = Receiver(port=free_port())
    images = images_of(make_study(SMALL_EARS), "MRC", "PPI", "PEI")
    study = str(images[0].StudyInstanceUID)
    node = _node(trial, receiver)
    harm = armed_environment(trial.folder / "harm", "infer", "linger") if lingers else {}
    with receiver.listening():
        ledger: Acknowledged = {}
        with _node(trial, receiver, like=node, environment=harm) as first:
            with associated(first.dicom_port) as sender:
                for one in images:
                    data = encode(one)
                    if sender.store(data, sop_instance=one.SOPInstanceUID)[0] == 0:
                        ledger[one.SOPInstanceUID] = hashlib.sha256(data).hexdigest()
            wait_until(
                lambda: _is_begun(first, study), seconds=STUDY_S, found=lambda: f"not begun: {first.log_tail(600)}"
            )
            shares, problems, stopped_after_s = _stop_under_load(trial, first, stays=stays)
        for share in shares:
            ledger |= share.ledger
        with node:
            found = node.wait_until_finished(study)
        # The senders' own images are no study of the inner ear, which the PACS is told, too.
        versions = {(uid, data) for uid, _, data in receiver.received if study.encode() in data}
    if missing := sum(one.SOPInstanceUID not in ledger for one in images):
        problems.append(f"{missing} images of the study were not taken before the stop")
    if found.state is not StudyState.COMPUTED:
        problems.append(f"the study that was at work is {found.state} ({found.detail!r})")
    kept = look_at(node.state_dir, ledger, studies=(STUDY, study))
    return Observation(
        acknowledged=len(ledger),
        lost=kept.lost + max(0, RESULTS - len(versions)),
        doubled=kept.doubled + max(0, len(versions) - RESULTS),
        left_over=kept.left_over,
        recovery_s=stopped_after_s,
        problems=(*problems, *kept.problems),
    )


def _stop_under_load(trial: Trial, node: LocalNode, *, stays: bool) -> tuple[list[Storing], list[str], float]:
    """The senders with what was acknowledged to each, what went wrong, and how long the node took to end."""
    chance, stopping, port = trial.chance, threading.Event(), node.dicom_port
    storing = [
        Storing(caller=CALLERS[n % len(CALLERS)], afterwards=chance.randint(1, MOST_AFTERWARDS)) for n in range(SENDERS)
    ]
    if stays:
        storing[0] = replace(storing[0], afterwards=None)
    threads = [threading.Thread(target=one.run, args=(port, stopping)) for one in storing]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(one.ledger or one.problem for one in storing), found=lambda: f"nobody stores: {storing}")
    time.sleep(chance.uniform(0.0, 0.5))
    worker_was_there = bool(node.worker_pids())
    began = time.monotonic()
    os.kill(node.pids()[0], signal.SIGTERM)
    wait_until(lambda: _is_closed(port), found=lambda: f"new callers are let in: {node.log_tail(600)}")
    problems = []
    if trial.seed % 3 == 2 and worker_was_there and not node.worker_pids():
        problems.append("new callers were let in until the worker had ended")
    stopping.set()
    for thread in threads:
        thread.join()
    status = node.wait_for_its_end()  # told a second time while it ends, the interpreter would die of the signal
    stopped_after_s = time.monotonic() - began
    if status != 0:
        problems.append(f"exit status {status}: {node.log_tail(300)}")
    if stopped_after_s > STOPPED_WITHIN_S:
        problems.append(f"ended after {stopped_after_s:.0f} s")
    for one in storing:
        problems += [f"{one.caller}: {one.problem}"] if one.problem else []
        if one.ended_at is not None and one.ended_at - began < DRAIN_S:
            problems.append(f"{one.caller}: aborted {one.ended_at - began:.1f} s after the stop was asked for")
        if one.ended_at is not None and one.afterwards is not None:
            problems.append(f"{one.caller}: did not get rid of its last images")
    return storing, problems, stopped_after_s


def _node(
    trial: Trial, receiver: Receiver, *, like: LocalNode | None = None, environment: dict[str, str] | None = None
) -> LocalNode:
    """A node on the folder of the trial that delivers to `receiver`, on the ports of another one."""
    pacs = f'name = "pacs"\nkind = "dicom"\nhost = "127.0.0.1"\nport = {receiver.port}\ncalled_ae = "PACS"'
    return LocalNode(
        trial.folder,
        entrance="dicom",
        callers=CALLERS,
        overrides={
            "processing": 'model = "threshold"\nthreads = 1',
            "assembly": "quiet_s = 1.0",
            "[destinations]": pacs,
        },
        dicom_port=like.dicom_port if like else None,
        web_port=like.web_port if like else None,
        environment=environment,
    )


def _is_begun(node: LocalNode, study: str) -> bool:
    """Whether the worker has begun to compute."""
    record = node.ledger.get(study)
    return record is not None and record.state in (StudyState.COMPUTING, StudyState.COMPUTED)


def _is_closed(port: int) -> bool:
    try:
        connect(port, timeout_s=PATIENCE_S).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was in line when the port was closed
        return False
    return False


FAULTS: Final = (
    Fault(
        number="F07",
        title="SIGTERM while ten associations store and a study is computed",
        promise="nobody new is let in at once; whoever is there gets rid of everything, and is aborted after thirty "
        "seconds at the earliest; the study is finished by the next start, once (recovery: how long the stop took)",
        trials={Scale.CI: 1, Scale.NIGHTLY: 30, Scale.RELEASE: 100},
        run=stopped_under_load,
    ),
)
