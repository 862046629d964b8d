"""The worker starts anew, between two studies: to take over a changed configuration, and after a fault of its own.

Models, rules and destinations are read once and handed down; a worker that begins again cannot mix old and new ones.
Nor does the next study meet what a fault left behind: memory that ran out, a graphics card that answers no more.
It keeps its process id and the pipe that its parent holds, so `serve` does not notice.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path

from dicom_node.cli.live_configuration import LiveConfiguration
from dicom_node.cli.wiring import make_segmenter
from dicom_node.settings import LoadedSettings
from dicom_node.settings.effects import Effect

log = logging.getLogger(__name__)


class WorkerRenewal:
    """Watches the configuration for a worker; `gate` is what every study is computed in.

    Parameters
    ----------
    path, loaded
        The configuration file and what the worker started with.
    stop
        Set to end the worker: by whoever stops it, or here once the study that is being computed is done.
    """

    def __init__(self, path: Path, loaded: LoadedSettings, stop: threading.Event) -> None:
        self.gate = threading.Lock()
        self.wanted = False
        self._stop = stop
        self._model = loaded.settings.processing.model
        self._live = LiveConfiguration(path, loaded, self._take)

    def start(self) -> None:
        """Watch from now on, on a thread of its own."""
        threading.Thread(target=self._live.watch, args=(self._stop,), name="Configuration", daemon=True).start()

    def after_end(self, *, told: bool) -> None:
        """Begin anew where that is wanted, when everything of this worker is closed.

        One that was `told` to stop meanwhile ends, and that here: the engine's thread with the next study stands at the
        gate, which is never opened again, and the interpreter would wait for it.
        """
        if self.wanted and told:
            logging.shutdown()
            os._exit(0)
        if self.wanted:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Become a fresh worker in this very process; does not return."""
        log.info("event=worker_renewed")
        os.execv(sys.executable, [sys.executable, "-m", "dicom_node.cli", *sys.argv[1:]])  # noqa: S606 - our own program

    def after_fault(self) -> None:
        """Have the worker begin anew before it computes anything else."""
        if not self.wanted:
            log.warning("event=worker_begins_anew reason=a study failed for a fault nobody foresaw")
            self._end_between_studies()

    def _take(self, loaded: LoadedSettings, effects: frozenset[Effect]) -> None:
        """Have the worker begin anew if the change concerns it.

        Raises
        ------
        ConfigError
            If the model that the settings name now cannot be used: a worker that began with it would only end.
        """
        if Effect.WORKER not in effects or self.wanted:
            return
        if loaded.settings.processing.model != self._model:
            make_segmenter(loaded)
        self._end_between_studies()

    def _end_between_studies(self) -> None:
        """Set `stop` once no study is being computed."""
        while not self.gate.acquire(timeout=0.2):  # after the study that runs
            if self._stop.is_set():
                return
        if self._stop.is_set():  # told to stop while the study ran: then that is what happens
            self.gate.release()
            return
        # The gate is not given back, so that no other study begins.
        self.wanted = True
        self._stop.set()
