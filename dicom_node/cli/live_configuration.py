"""A changed configuration file takes effect in a node that runs; a bad one changes nothing and is told.

The files are looked at once a second. A signal would need a process to send it and a right to do so; editors, `cp`,
configuration management and the dashboard all just write. What counts is the content, not the time stamp, and it
counts when two looks in a row find the same: an editor that writes in pieces is not caught half-way.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dicom_node.cli.wiring import series_rules
from dicom_node.errors import ConfigError
from dicom_node.settings import LoadedSettings, read_settings
from dicom_node.settings.effects import Effect, changed_keys, effect_of

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
RULES_KEY: Final = "assembly.rules_file"


@dataclass(frozen=True, kw_only=True)
class ConfigurationState:
    """What runs: since when (POSIX seconds), why a newer file is not used ("" if it is), what waits for a restart."""

    since: float
    problem: str = ""
    restart_needed: tuple[str, ...] = ()


Apply = Callable[[LoadedSettings, frozenset[Effect]], None]
"""Called with the new settings and with when their changes take effect; it takes over what it can."""


class LiveConfiguration:
    """The configuration that runs, and the files that it came from.

    Parameters
    ----------
    path
        The configuration file; the rules file is the one that it names.
    loaded
        What the node started with.
    apply
        Told of every good change, on the thread that found it.
    """

    def __init__(
        self, path: Path, loaded: LoadedSettings, apply: Apply, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path.resolve()
        self._apply = apply
        self._clock = clock
        self._lock = threading.RLock()
        self._started_with = loaded
        self._running = loaded
        self._state = ConfigurationState(since=clock())
        self._rules = self._rules_text(loaded)
        self._used = self._last_look = self._content()

    @property
    def path(self) -> Path:
        """The configuration file."""
        return self._path

    @property
    def rules_path(self) -> Path:
        """The rules file that the running configuration names."""
        return self._running.config_dir / self._running.settings.assembly.rules_file

    @property
    def running(self) -> LoadedSettings:
        """The settings as far as they have taken effect or will with the next start."""
        return self._running

    @property
    def state(self) -> ConfigurationState:
        """What runs, and what does not."""
        return self._state

    def watch(self, stop: threading.Event) -> None:
        """Look at the files until `stop`."""
        while not stop.wait(LOOK_EVERY_S):
            self.look()

    def look(self, *, settled: bool = False) -> None:
        """Look once; `settled` says that nobody is still writing, so that one look is enough."""
        with self._lock:
            content = self._content()
            quiet = settled or content == self._last_look
            self._last_look = content
            if quiet and content != self._used:
                self._used = content
                self._take(self._clock())

    def _take(self, now: float) -> None:
        """Read the files anew and take over what they say, or keep what runs."""
        try:
            loaded = read_settings(self._path, os.environ)
            series_rules(loaded, from_file=True)
        except ConfigError as error:
            self._state = replace(self._state, problem=str(error))
            log.error('event=configuration_kept reason="%s"', error)
            return
        rules = self._rules_text(loaded)
        keys = [*changed_keys(self._running.settings, loaded.settings)]
        keys += [] if rules == self._rules else [RULES_KEY]
        effects = frozenset(effect_of(key) for key in keys)
        waiting = tuple(
            key
            for key in changed_keys(self._started_with.settings, loaded.settings)
            if effect_of(key) is Effect.RESTART
        )
        try:
            self._apply(loaded, effects)
        except ConfigError as error:
            self._state = replace(self._state, problem=str(error))
            log.error('event=configuration_kept reason="%s"', error)
            return
        self._running, self._rules = loaded, rules
        self._state = ConfigurationState(since=now, restart_needed=waiting)
        log.info("event=configuration_taken keys=%s restart_needed=%s", ",".join(keys), ",".join(waiting))

    def _content(self) -> str:
        """One digest over both files; a file that is not there now (it may be being replaced) counts as empty."""
        text = b""
        with suppress(OSError):
            text = self._path.read_bytes()
        return hashlib.sha256(text + b"\0" + self._rules_text(self._running)).hexdigest()

    @staticmethod
    def _rules_text(loaded: LoadedSettings) -> bytes:
        with suppress(OSError):
            return (loaded.config_dir / loaded.settings.assembly.rules_file).read_bytes()
        return b""
