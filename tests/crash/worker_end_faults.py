"""A study that ends every worker that computes it, on a whole node: what becomes of it, of its neighbor, and of peers.

The node is `hydrops-node serve`; the ledger of answers is that of the test's own sender, which never stops asking.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from desk_parts import hydrops_study
from exact_sender import associated
from fault import Fault, Observation, Scale, Trial
from local_node import LocalNode
from mr_images import encode
from phantom_patients import images_of
from pydicom.dataset import Dataset
from receiver_stem import forked_receiver
from small_studies import SMALL_EARS
from tripwire import armed_environment

from dicom_node.ledger import StudyEvent, StudyState
from dicom_node.study_actions import sent_key
from inference.phantom import make_study

ENDS: Final = ("kill", "abort", "crash", "hang", "starve")
AT: Final = "infer"
"""No ear of the neighbor's study is found, and so it never comes there."""

NEIGHBOR: Final = "2.25.900"
HANG_LIMIT_S: Final = 45.0
LIMIT_S: Final = 900.0
"""A hang is found by a limit; no other harm needs one, and an honest study takes 15 s and more on a busy machine."""

ECHO_EVERY_S: Final = 0.2
SLOWEST_ECHO_S: Final = 5.0
"""So much longer may an answer take than the longest of a receiver beside it that has no worker: how busy the machine
is, both feel."""


@dataclass(kw_only=True)
class Peer:
    """Somebody who asks a node again and again whether it is there, on an association of its own each time."""

    port: int
    answered: int = 0
    unanswered: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask during the block."""
        done = threading.Event()
        thread = threading.Thread(target=self._ask, args=(done,))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _ask(self, done: threading.Event) -> None:
        while not done.wait(ECHO_EVERY_S):
            began = time.monotonic()
            try:
                with associated(self.port) as sender:
                    status = sender.echo()
            except OSError as error:
                self.unanswered.append(str(error))
                continue
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if status == 0:
                self.answered += 1
            else:
                self.unanswered.append(f"status {status}")


def ends_its_worker(trial: Trial) -> Observation:
    """The worker ends, or hangs, each time it comes to one study's fluid; another study waits behind it."""
    harm = ENDS[trial.seed % len(ENDS)]
    images = images_of(make_study(SMALL_EARS), "MRC", "PPI", "PEI")
    victim = str(images[0].StudyInstanceUID)
    node = LocalNode(
        trial.folder,
        entrance="dicom",
        overrides={"processing": _processing(harm)},
        environment=armed_environment(trial.folder / "harm", AT, harm),
    )
    (beside := trial.folder / "beside").mkdir()
    with node, forked_receiver(beside) as (_, port):
        peer, yardstick = Peer(port=node.dicom_port), Peer(port=port)
        with peer.asking(), yardstick.asking():
            acknowledged = _send(node, images) + _send(node, hydrops_study(NEIGHBOR))
            found = node.wait_until_finished(victim)
            neighbor = node.wait_until_finished(NEIGHBOR)
            history = [line.event for line in node.ledger.history(victim)]
            published = sorted(one.kind for one in node.outbox.objects(sent_key(found, node.outbox)))
    # The memory that is left may do the second time: then there is one result, as of a study that nothing disturbed.
    saved = harm == "starve" and found.state is StudyState.COMPUTED and StudyEvent.FAULTED in history
    problems = [f"{harm}: {one}" for one in peer.unanswered]
    if peer.slowest_s > SLOWEST_ECHO_S + yardstick.slowest_s:
        problems.append(f"{harm}: a C-ECHO took {peer.slowest_s:.1f} s, beside it {yardstick.slowest_s:.1f} s")
    if not saved and (found.state is not StudyState.FAILED or not found.detail):
        problems.append(f"{harm}: the study is {found.state} ({found.detail!r}), expected failed with a reason")
    if neighbor.state is not StudyState.REFUSED:
        problems.append(f"{harm}: the study behind it is {neighbor.state}, expected refused")
    if history.count(StudyEvent.STARTED) not in (2, 3):  # a third beginning finds that two ended
        problems.append(f"{harm}: begun {history.count(StudyEvent.STARTED)} times, expected a single retry")
    if not saved and published != ["SC", "SR"]:  # page and report that say so, and nothing that was measured
        problems.append(f"{harm}: {published} go to the PACS, expected what says that the node failed")
    sent = len(images) + len(hydrops_study(NEIGHBOR))
    return Observation(
        acknowledged=acknowledged,
        lost=sent - acknowledged,
        doubled=len(published) - len(set(published)),
        problems=tuple(problems),
    )


def drawing_ends_its_worker(trial: Trial) -> Observation:
    """The worker ends, or hangs, each time it draws one study's page; another study waits behind it."""
    harm = ENDS[trial.seed % len(ENDS)]
    images = images_of(make_study(SMALL_EARS), "MRC", "PPI", "PEI")
    victim = str(images[0].StudyInstanceUID)
    node = LocalNode(
        trial.folder,
        entrance="dicom",
        overrides={"processing": _processing(harm)},
        environment=armed_environment(trial.folder / "harm", "draw", harm),
    )
    with node:
        acknowledged = _send(node, images) + _send(node, hydrops_study(NEIGHBOR))
        found = node.wait_until_finished(victim)
        neighbor = node.wait_until_finished(NEIGHBOR)
        history = [line.event for line in node.ledger.history(victim)]
        kinds = sorted(one.kind for one in node.outbox.objects(found.work_id))
    problems = []
    undrawn = history.count(StudyEvent.NOT_DRAWN)
    # The memory that is left may do for the page, or for that of a worker that begins anew and needs less of it.
    drawn_after_all = harm == "starve" and not undrawn
    if found.state is not StudyState.COMPUTED or (undrawn != 1 and not drawn_after_all):
        problems.append(f"{harm}: the study is {found.state}, {history}; expected computed, and told that no page is")
    if kinds != (["SC", "SEG", "SR"] if drawn_after_all else ["SEG", "SR"]):
        problems.append(f"{harm}: {kinds} stand, expected SEG and SR")
    if history.count(StudyEvent.STARTED) != 1:
        problems.append(f"{harm}: begun {history.count(StudyEvent.STARTED)} times although its results were out")
    if neighbor.state is not StudyState.REFUSED:
        problems.append(f"{harm}: the study behind it is {neighbor.state}, expected refused")
    sent = len(images) + len(hydrops_study(NEIGHBOR))
    return Observation(acknowledged=acknowledged, lost=sent - acknowledged, problems=tuple(problems))


def _processing(harm: str) -> str:
    """How the node computes."""
    return f'model = "threshold"\nthreads = 1\ntime_limit_s = {HANG_LIMIT_S if harm == "hang" else LIMIT_S}'


def _send(node: LocalNode, images: list[Dataset]) -> int:
    """How many of the images were acknowledged."""
    with associated(node.dicom_port) as sender:
        return sum(sender.store(encode(one), sop_instance=one.SOPInstanceUID)[0] == 0 for one in images)


FAULTS: Final = (
    Fault(
        number="F24",
        title="a study ends each worker that computes it (killed, abort, segmentation fault, hang, no memory)",
        promise="receiving answers throughout, the study behind it is done, this one is tried once more and then "
        "failed with a reason; where memory was refused and suffices the second time, it has one result",
        trials={Scale.CI: 1, Scale.NIGHTLY: 50, Scale.RELEASE: 250},
        run=ends_its_worker,
    ),
    Fault(
        number="F24 page",
        title="the page of a study ends each worker that draws it, when SEG and SR are out",
        promise="SEG and SR stand, the study behind it is done, the page is tried three times and then given up with a "
        "reason",
        trials={Scale.CI: 1, Scale.NIGHTLY: 25, Scale.RELEASE: 100},
        run=drawing_ends_its_worker,
    ),
)
