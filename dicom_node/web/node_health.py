"""What the node knows of itself at one moment, and when that makes it ill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, Self

# A worker notes its heartbeat every few seconds; a study takes at most minutes. Silence for this long means it is gone.
WORKER_SILENT_S = 60.0

FOR_ADMINS: Final = "sign in as an admin to see it"
"""Stands for a text that quotes the configuration: addresses, user names, keys."""


@dataclass(frozen=True, kw_only=True)
class HealthSnapshot:
    """What the node knows of itself at one moment. None: that part is not run by this process, so not judged."""

    listener_up: bool | None
    database_ok: bool
    disk_free_bytes: int
    min_free_bytes: int
    worker_heartbeat_age_s: float | None
    queues: Mapping[str, int] = field(default_factory=dict)
    """Name to length, e.g. "studies_waiting", "deliveries_waiting", "dead_letters". Shown, not judged."""
    dead_deliveries: tuple[str, ...] = ()
    """Names of destinations whose delivery thread has ended by a fault."""
    orthanc_feed: str | None = None
    """How reading from Orthanc goes: "starting", "reading", "unreachable", "denied", "failed"; None: it is not read."""
    orthanc_problem: str = ""
    """The sentence of its last failure; empty when all is well."""
    configuration_problem: str = ""
    """Why a changed configuration file is not used; the node works on with the one before. Shown, not judged."""
    configuration_restart_needed: tuple[str, ...] = ()
    """Keys of the file that take effect with the next start."""

    def problems(self) -> tuple[str, ...]:
        """Why the node cannot do its work, in words; empty when it can."""
        found = []
        if self.listener_up is False:
            found.append("the DICOM listener does not accept associations")
        if not self.database_ok:
            found.append("the database does not answer")
        if self.disk_free_bytes < self.min_free_bytes:
            found.append(f"{self.disk_free_bytes} bytes free on the state disk; {self.min_free_bytes} are required")
        if self.worker_heartbeat_age_s is not None and self.worker_heartbeat_age_s > WORKER_SILENT_S:
            found.append(f"the worker has been silent for {self.worker_heartbeat_age_s:.0f} s")
        if self.orthanc_problem:
            found.append(f"no images can be read from Orthanc: {self.orthanc_problem}")
        found.extend(f"nothing is sent to destination {name} any more" for name in self.dead_deliveries)
        return tuple(found)

    def for_everybody(self) -> Self:
        """The same without what it quotes of the configuration; that there is something to see is still said."""
        return replace(
            self,
            orthanc_problem=self.orthanc_problem and FOR_ADMINS,
            configuration_problem=self.configuration_problem and FOR_ADMINS,
            configuration_restart_needed=self.configuration_restart_needed and (FOR_ADMINS,),
        )


class NodeHealth(Protocol):
    """Whoever can look at the node. It answers within a second and does not raise when a part is down."""

    def snapshot(self) -> HealthSnapshot:
        """The state of the node now."""
        ...
