"""Faults of an archive that is to commit: it answers late, twice, never, partly, over another association, or lies.

The ledger is the archive's own: what it holds, and under which transactions it was asked.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import Final

from committing_archive import Archive, Saying, committed, said
from committing_node import SEG_UID, SR_UID, CommittingNode, archive_at, committing_node
from fault import Fault, Observation, Scale, Trial
from patience import PATIENCE_S
from pydicom.dataset import Dataset

from dicom_node.delivery.commitment_rows import CommitmentState
from dicom_node.delivery.outbox import RetryPolicy

QUICK: Final = RetryPolicy(first_retry_s=0.1, max_retry_s=0.3, give_up_after_s=3600)
UNRULY_REQUESTS: Final = 5
"""So many requests are answered by chance; after that the archive behaves, so that a trial ends."""

MOODS: Final = ("never", "late", "twice", "partly", "elsewhere", "early", "not now", "lost", "of somebody else")


class UnrulyArchive(Archive):
    """Knows what it holds, and loses only what it has not vouched for: whatever else it does, its word counts."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(plan=self._answers)
        self._chance = chance
        self._ledger = threading.Lock()
        self._losses: dict[str, int] = {}
        self._vouched: set[str] = set()

    @property
    def held(self) -> set[str]:
        """What was stored after its last loss."""
        with self._ledger:
            return {uid for uid in set(self.stored) if self.stored.count(uid) > self._losses.get(uid, 0)}

    @property
    def sent_without_need(self) -> int:
        """Copies beyond the first that no loss of ours asked for."""
        with self._ledger:
            return sum(self.stored.count(uid) - 1 - self._losses.get(uid, 0) for uid in set(self.stored))

    def _answers(self, number: int, asked: Dataset) -> Sequence[Saying]:
        mood = self._chance.choice(MOODS) if number < UNRULY_REQUESTS else "well"
        uids = [str(one.ReferencedSOPInstanceUID) for one in asked.ReferencedSOPSequence]
        chosen = self._chance.choice(uids)
        if mood == "never":
            return []
        if mood == "late":
            return [self._truth(asked, after_s=self._chance.uniform(0.1, 0.6), same_association=False)]
        if mood == "twice":
            return [self._truth(asked), self._truth(asked, same_association=False)]
        if mood == "partly":
            return [self._truth(asked, leaving_out=[chosen], same_association=self._chance.random() < 0.5)]
        if mood == "early":
            return [self._truth(asked, before_response=True)]
        if mood == "not now":
            return [said(asked, {chosen: self._chance.choice((0x0110, 0x0131, 0x0213))}, same_association=False)]
        if mood == "lost":
            return [self._lose(asked, chosen)]
        if mood == "of somebody else":
            invented = Dataset()
            invented.update(asked)
            invented.TransactionUID = f"2.25.{self._chance.getrandbits(100)}"
            return [committed(invented, same_association=False)]
        return [self._truth(asked, same_association=self._chance.random() < 0.5)]

    def _truth(self, asked: Dataset, *, leaving_out: Sequence[str] = (), **how: object) -> Saying:
        """Vouches for what is held now; what is not is told as such."""
        held = self.held
        uids = {str(one.ReferencedSOPInstanceUID) for one in asked.ReferencedSOPSequence}
        self._vouched |= (uids & held) - set(leaving_out)
        return said(asked, dict.fromkeys(uids - held, 0x0112), leaving_out=leaving_out, **how)

    def _lose(self, asked: Dataset, uid: str) -> Saying:
        if uid not in self._vouched:
            with self._ledger:
                self._losses[uid] = self.stored.count(uid)
        return self._truth(asked, same_association=False)


def unruly_answers(trial: Trial) -> Observation:
    """Two objects, an archive that answers by chance, and a node that is stopped and started once on the way."""
    chance = trial.chance
    archive = UnrulyArchive(chance)
    with archive.listening():
        with committing_node(trial.folder, policy=QUICK) as node:
            node.put("SEG", "SR")
            _run(node, archive)
            time.sleep(chance.uniform(0.0, 1.0))
        with committing_node(trial.folder, policy=QUICK) as node:
            began = time.monotonic()
            _run(node, archive)
            states = _settled(node)
            recovery_s = time.monotonic() - began
    lost = [uid for uid, state in states.items() if state is CommitmentState.COMMITTED and uid not in archive.held]
    problems = [f"{uid} is {state}" for uid, state in states.items() if state is not CommitmentState.COMMITTED]
    if len(set(archive.transactions)) < len(archive.transactions):
        problems.append("a Transaction UID was used twice")
    return Observation(
        acknowledged=sum(state is CommitmentState.COMMITTED for state in states.values()),
        lost=len(lost),
        doubled=archive.sent_without_need,
        recovery_s=recovery_s,
        problems=tuple(problems),
    )


def _run(node: CommittingNode, archive: Archive) -> None:
    archive.home = node.listener.port
    node.ask(archive_at(archive.port))
    node.send_to(archive.port)


def _settled(node: CommittingNode) -> dict[str, CommitmentState | None]:
    """Where both objects' commitments stand once they are committed, or when patience is over."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = {one.sop_instance_uid: one for one in node.outbox.deliveries("2.25.7001")}
        states = {uid: found[uid].commitment and found[uid].commitment.state for uid in (SEG_UID, SR_UID)}
        if set(states.values()) == {CommitmentState.COMMITTED} or time.monotonic() > deadline:
            return states
        time.sleep(0.02)


FAULTS: Final = (
    Fault(
        number="P19",
        title="the archive answers a request to commit late, twice, never, partly, from elsewhere, or loses the object",
        promise="committed is only what the archive holds; what it lost goes again, and nothing else does",
        trials={Scale.CI: 3, Scale.NIGHTLY: 100, Scale.RELEASE: 500},
        run=unruly_answers,
    ),
)
