"""The erasing side of the node: what ends when, by its settings, and the thread that sees to it beside receiving."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from dicom_node.cli.wiring import audit_sent_up_to, audit_trail, retry_policy
from dicom_node.database import DATABASE_AWAY
from dicom_node.delivery.commitments import Commitments
from dicom_node.delivery.outbox import Outbox
from dicom_node.errors import TransientError
from dicom_node.intake.spool import Spool
from dicom_node.retention import Erased, Eraser, Periods, RetentionRounds
from dicom_node.retention.disk_use import disk_use
from dicom_node.settings import LoadedSettings, RetentionSettings

log = logging.getLogger(__name__)

FIRST_ROUND_S: Final = 30.0
"""After the start: by then it receives, and what the last run left half erased goes soon."""

EVERY_S: Final = 3600.0
SOON_S: Final = 2.0
"""Between two rounds while there is more to erase; receiving has the disk and the database to itself meanwhile."""

TROUBLE_S: Final = 300.0


def periods_of(settings: RetentionSettings) -> Periods:
    """How long what is kept, as configured."""
    return Periods(inputs_days=settings.inputs_days, results_days=settings.results_days, audit_days=settings.audit_days)


def make_eraser(loaded: LoadedSettings, engine: Engine, spool: Spool) -> Eraser:
    """What erases on this node."""
    return Eraser(engine, loaded.state_dir, spool=spool, audit=audit_trail(loaded), clock=time.time)


def make_keeper(
    loaded: LoadedSettings, engine: Engine, *, spool: Spool, outbox: Outbox, stop: threading.Event
) -> RetentionKeeper:
    """The thread that erases what has ended."""
    commitments = Commitments(engine, policy=retry_policy(loaded.settings))
    rounds = RetentionRounds(
        engine,
        loaded.state_dir,
        eraser=make_eraser(loaded, engine, spool),
        sweeps=[outbox.sweep, commitments.sweep],
        audit=audit_trail(loaded),
        periods=periods_of(loaded.settings.retention),
        audit_sent_up_to=lambda: audit_sent_up_to(loaded),
    )
    return RetentionKeeper(rounds, loaded.state_dir, stop=stop)


class RetentionKeeper(threading.Thread):
    """Erases what has ended, a little at a time; runs where images are received, because their files are there.

    `erased` and `disk_use` tell what it did since its start, and what the parts of the state folder took when it last
    looked (None before that).
    """

    def __init__(
        self,
        rounds: RetentionRounds,
        state_dir: Path,
        *,
        stop: threading.Event,
        measure: Callable[[Path], Mapping[str, int]] = disk_use,
    ) -> None:
        super().__init__(name="Retention", daemon=True)
        self._rounds = rounds
        self._state_dir = state_dir
        self._stop_asked = stop
        self._measure = measure
        self.disk_use: Mapping[str, int] | None = None

    @property
    def erased(self) -> Erased:
        """What was erased since the start."""
        return self._rounds.erased

    def keep(self, settings: RetentionSettings) -> None:
        """Go by these from the next round on."""
        self._rounds.periods = periods_of(settings)

    def run(self) -> None:
        """Erase until told to stop."""
        pause_s = FIRST_ROUND_S
        while not self._stop_asked.wait(pause_s):
            pause_s = self.once()

    def once(self) -> float:
        """One round; seconds until the next."""
        try:
            more = self._rounds.once()
            if not more:
                self.disk_use = self._measure(self._state_dir)
        except (TransientError, OSError, *DATABASE_AWAY) as error:  # nothing is lost by waiting
            log.warning("event=retention_paused again_in_s=%g reason=%s", TROUBLE_S, type(error).__name__)
            return TROUBLE_S
        except Exception:  # this thread's only net; without it the disk would fill without a word
            log.exception("event=retention_failed again_in_s=%g", TROUBLE_S)
            return TROUBLE_S
        return SOON_S if more else EVERY_S
