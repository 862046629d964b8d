"""The configuration files for the dashboard: read, judged by a dry run, backed up and replaced as a whole."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from dicom_node.audit import AuditAction, AuditOutcome, AuditTrail
from dicom_node.cli.live_configuration import LiveConfiguration
from dicom_node.durable_file import sync_directory, write_durably
from dicom_node.errors import ConfigError, TransientError
from dicom_node.web.configuration_desk import (
    Backup,
    ChangedKey,
    ConfigurationProblem,
    ConfigurationTexts,
    FoundConfiguration,
    PeerPreview,
    RunningConfiguration,
    Saved,
    SeriesPreview,
    StudyPreview,
    Verdict,
)

log = logging.getLogger(__name__)

JUDGING_S: Final = 60.0
"""A dry run reads the headers of some thousand images at most; one that takes longer has a pattern that never ends."""

BACKUPS: Final = "backups"
_BACKUP_NAME: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_MOMENT: Final = "%Y%m%dT%H%M%S.%fZ"


class ConfigurationFiles:
    """Implements `web.configuration_desk.ConfigurationDesk` on the files that `live` watches."""

    def __init__(self, live: LiveConfiguration, audit: AuditTrail) -> None:
        self._live = live
        self._audit = audit
        self._saving = threading.Lock()

    def found(self) -> FoundConfiguration:
        """Both files as they are now; ConfigError when one cannot be read as text."""
        settings, rules = _text_of(self._live.path), _text_of(self._live.rules_path)
        return FoundConfiguration(
            texts=ConfigurationTexts(settings=settings, rules=rules),
            digest=_digest(settings, rules),
            settings_path=str(self._live.path),
            rules_path=str(self._live.rules_path),
        )

    def running(self) -> RunningConfiguration:
        """What the node works with."""
        state = self._live.state
        return RunningConfiguration(since=state.since, problem=state.problem, restart_needed=state.restart_needed)

    def judge(self, texts: ConfigurationTexts) -> Verdict:
        """What would come of these texts, found out in a process of its own.

        A regular expression may never end and a study's headers may be many; neither is to touch receiving.
        """
        request = {"path": str(self._live.path), "rules_path": str(self._live.rules_path)} | asdict(texts)
        command = [sys.executable, "-m", "dicom_node.cli.dry_run"]
        try:
            done = subprocess.run(  # noqa: S603 - our own program, no shell
                command, input=json.dumps(request), capture_output=True, text=True, timeout=JUDGING_S, check=True
            )
        except subprocess.TimeoutExpired:
            sentence = f"The check did not end within {JUDGING_S:.0f} s. Is there a pattern that never comes to an end?"
            return Verdict(problems=(ConfigurationProblem(key="", sentence=sentence),))
        except subprocess.CalledProcessError as error:
            problem = _exception_in(error.stderr)
            log.error("event=dry_run_failed exit_status=%d exception=%s", error.returncode, problem)
            sentence = f"The check itself failed ({problem}); nothing was written."
            return Verdict(problems=(ConfigurationProblem(key="", sentence=sentence),))
        return _verdict(json.loads(done.stdout))

    def save(self, texts: ConfigurationTexts, *, digest: str, actor: str) -> Saved:
        """Write what changed, keep what was, and let it take effect."""
        try:
            self.found()  # what cannot be read is not judged against either
            verdict = self.judge(texts)
            if verdict.problems:
                return Saved(done=False, sentence=verdict.problems[0].sentence)
            with self._saving:
                before = self.found()
                if before.digest != digest:
                    sentence = "The files changed on disk since you opened them; nothing was written."
                    return Saved(done=False, sentence=sentence, moved_on=True)
                name = self._back_up(before.texts)
                self._replace(before.texts, texts)
        except ConfigError as error:
            return Saved(done=False, sentence=str(error))
        except OSError as error:
            return Saved(done=False, sentence=_not_writable(self._live.path.parent, error))
        keys = ", ".join(one.key for one in verdict.changed) or "comments"
        self._record(actor, f"changed: {keys}; backup {name}")
        self._live.look(settled=True)
        problem = self._live.state.problem
        if problem:
            return Saved(done=False, sentence=f"Written, but not taken over: {problem}")
        return Saved(done=True, sentence=f"Saved. What was before is kept as backup {name}.")

    def backups(self) -> tuple[Backup, ...]:
        """What can be restored, latest first."""
        folder = self._live.path.parent / BACKUPS
        names = [one.name for one in folder.iterdir() if _BACKUP_NAME.fullmatch(one.name)] if folder.is_dir() else []
        return tuple(Backup(name=name, at=_moment(name)) for name in sorted(names, reverse=True))

    def backup(self, name: str) -> ConfigurationTexts:
        """The texts of one backup."""
        if not _BACKUP_NAME.fullmatch(name):
            raise KeyError(name)
        folder = self._live.path.parent / BACKUPS / name
        files = [folder / path.name for path in (self._live.path, self._live.rules_path)]
        if not all(one.is_file() for one in files):
            raise KeyError(name)
        settings, rules = map(_text_of, files)
        return ConfigurationTexts(settings=settings, rules=rules)

    def _back_up(self, texts: ConfigurationTexts) -> str:
        """Keep both files as they are, under the moment's name: there after a power cut before anything is replaced."""
        name = datetime.now(UTC).strftime(_MOMENT)
        backups = self._live.path.parent / BACKUPS
        folder = backups / name
        folder.mkdir(parents=True, mode=0o750)
        try:
            for path, text in ((self._live.path, texts.settings), (self._live.rules_path, texts.rules)):
                write_durably(folder / path.name, f".{path.name}.part", [text.encode()])
                shutil.copymode(path, folder / path.name)
            sync_directory(backups)
            sync_directory(backups.parent)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return name

    def _replace(self, before: ConfigurationTexts, after: ConfigurationTexts) -> None:
        """Write what changed, both files or none; the rules first, because the settings are what is read with them."""
        if after.rules != before.rules:
            _replace_file(self._live.rules_path, after.rules)
        try:
            if after.settings != before.settings:
                _replace_file(self._live.path, after.settings)
        except OSError:
            if after.rules != before.rules:
                _replace_file(self._live.rules_path, before.rules)
            raise

    def _record(self, actor: str, detail: str) -> None:
        with suppress(TransientError):  # a full disk undoes nothing that was written; the trail's check tells the gap
            self._audit.record(
                AuditAction.CONFIGURATION_CHANGED, actor=actor, detail=detail, outcome=AuditOutcome.SUCCESS
            )


def _text_of(path: Path) -> str:
    """What stands in a file.

    Raises
    ------
    ConfigError
        If it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}: expected a text in UTF-8, found byte 0x{error.object[error.start]:02x} in line {line}; the node "
            "works on with the configuration it has. Save the file as UTF-8 with an editor on the node's machine"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); the node works on with what it has") from None


def _replace_file(path: Path, text: str) -> None:
    """The file with new content, as a whole or not at all, with the permissions that it had; a link stays one."""
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        shutil.copymode(path, temporary)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _digest(settings: str, rules: str) -> str:
    return hashlib.sha256(f"{settings}\0{rules}".encode()).hexdigest()


def _moment(name: str) -> float:
    return datetime.strptime(name, _MOMENT).replace(tzinfo=UTC).timestamp()


def _exception_in(text: str) -> str:
    """Type of the exception that ended a program, from its traceback; the message may quote what stood in a header."""
    found: list[str] = re.findall(r"(?m)^([\w.]+(?:Error|Exception|Missing))\b", text)
    return found[-1] if found else "no traceback"


def _not_writable(folder: Path, error: OSError) -> str:
    return (
        f"Nothing was written: {error.strerror} ({error.filename or folder}). The node must be allowed to write into "
        f"{folder}; with the systemd service add ReadWritePaths={folder}, or edit the files there by hand: a changed "
        "file is taken over by itself."
    )


def _verdict(data: dict[str, Any]) -> Verdict:
    """What the dry run wrote."""
    return Verdict(
        problems=tuple(ConfigurationProblem(**one) for one in data["problems"]),
        changed=tuple(ChangedKey(**one) for one in data["changed"]),
        studies=tuple(
            StudyPreview(**one | {"series": tuple(SeriesPreview(**row) for row in one["series"])})
            for one in data["studies"]
        ),
        peers=tuple(PeerPreview(**one) for one in data["peers"]),
        remarks=tuple(data["remarks"]),
    )
