"""How long what is kept, as a site set it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

A_DAY_S: Final = 86400.0


@dataclass(frozen=True, kw_only=True)
class Periods:
    """Days after which images, everything else of a study, and days of the audit trail are erased; 0: never."""

    inputs_days: int
    results_days: int
    audit_days: int

    def images_until(self, since: float) -> float | None:
        """When images end whose study was done `since` (POSIX seconds); None: they do not."""
        return _end(since, self.inputs_days)

    def results_until(self, since: float) -> float | None:
        """When the rest of a study ends that was done `since` (POSIX seconds); None: it does not."""
        return _end(since, self.results_days)


def _end(since: float, days: int) -> float | None:
    return since + days * A_DAY_S if days else None
