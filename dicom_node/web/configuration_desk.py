"""What the configuration pages need of whoever holds the files: the web itself reads and writes none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class ConfigurationTexts:
    """The two files as they stand on disk, or as somebody would have them."""

    settings: str
    rules: str


@dataclass(frozen=True, kw_only=True)
class FoundConfiguration:
    """The files now. `digest` names their content; whoever saves says which content the change was made on."""

    texts: ConfigurationTexts
    digest: str
    settings_path: str
    rules_path: str


@dataclass(frozen=True, kw_only=True)
class ConfigurationProblem:
    """What is wrong, at which key ("listener.allowed[0].networks"); the key is empty where it is none's."""

    key: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class ChangedKey:
    """A key whose value differs from what runs, and when that takes effect ("at once", "after a restart")."""

    key: str
    effect: str


@dataclass(frozen=True, kw_only=True)
class SeriesPreview:
    """One series of a past study: its role as it is judged with today's files and with the changed ones."""

    number: str
    description: str
    old_role: str
    new_role: str
    old_used: bool
    new_used: bool
    reason: str

    @property
    def changed(self) -> bool:
        """Whether anything about the series would be decided otherwise."""
        return (self.old_role, self.old_used) != (self.new_role, self.new_used)


@dataclass(frozen=True, kw_only=True)
class StudyPreview:
    """One past study: what would be taken, in a sentence each, and its series."""

    study_instance_uid: str
    received_at: float
    old_outcome: str
    new_outcome: str
    series: tuple[SeriesPreview, ...]

    @property
    def changed(self) -> bool:
        """Whether the study would be taken otherwise."""
        return self.old_outcome != self.new_outcome or any(one.changed for one in self.series)


@dataclass(frozen=True, kw_only=True)
class PeerPreview:
    """One AE title that is or would be listed: where it may call from, now and then; and how many images it sent."""

    ae_title: str
    old_networks: str
    new_networks: str
    images: int

    @property
    def verdict(self) -> str:
        """What changes for it, in words."""
        if not self.new_networks:
            return "would be refused"
        if not self.old_networks:
            return "would be let in"
        return "as before" if self.old_networks == self.new_networks else "from other networks"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What would come of a change. With `problems` nothing else is known, and it cannot be saved."""

    problems: tuple[ConfigurationProblem, ...] = ()
    changed: tuple[ChangedKey, ...] = ()
    studies: tuple[StudyPreview, ...] = ()
    peers: tuple[PeerPreview, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What became of saving: `done`, and a sentence; `moved_on` when the files had changed on disk meanwhile."""

    done: bool
    sentence: str
    moved_on: bool = False


@dataclass(frozen=True, kw_only=True)
class Backup:
    """Both files as they were before a change; `name` begins with the moment (UTC)."""

    name: str
    at: float


@dataclass(frozen=True, kw_only=True)
class RunningConfiguration:
    """What runs: since when, why a newer file is not used, and which keys of it wait for a restart."""

    since: float
    problem: str
    restart_needed: tuple[str, ...]


class ConfigurationDesk(Protocol):
    """Reads, checks and writes the configuration files."""

    def found(self) -> FoundConfiguration:
        """The files as they are now; ConfigError when they cannot be read as text."""
        ...

    def running(self) -> RunningConfiguration:
        """What the node works with."""
        ...

    def judge(self, texts: ConfigurationTexts) -> Verdict:
        """What would come of these texts; takes seconds, since past studies are examined with them."""
        ...

    def save(self, texts: ConfigurationTexts, *, digest: str, actor: str) -> Saved:
        """Write both files, if they still are those of `digest` and the texts have no problems."""
        ...

    def backups(self) -> tuple[Backup, ...]:
        """What can be restored, latest first."""
        ...

    def backup(self, name: str) -> ConfigurationTexts:
        """The texts of one backup; KeyError if there is none of that name, ConfigError if it is no text."""
        ...
