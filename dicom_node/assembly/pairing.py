"""Which series form the input set, and why every other one was left out."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.assembly.headers import SeriesHeader, SeriesRole
from dicom_node.errors import Refusal


@dataclass(frozen=True, kw_only=True)
class RoleDecision:
    """What one series was taken as, by which rule, and why, in a sentence."""

    series_instance_uid: str
    role: SeriesRole
    rule: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A series that is not part of the set, and why, in a sentence."""

    series_instance_uid: str
    role: SeriesRole
    reason: str


@dataclass(frozen=True, kw_only=True)
class SeriesSet:
    """The chosen input: MRC and one of {Mi2}, {HYDROPS}, {PPI, PEI}, {REAL_IR}; `series[role]` is the header."""

    series: dict[SeriesRole, SeriesHeader]
    warnings: tuple[Refusal, ...] = ()
    """Remarks that do not stop the work (e.g. FOR_DIFFERS, repeat scan: latest taken)."""

    @property
    def mrc(self) -> SeriesHeader:
        """The anatomical series; SEG and SR refer to its grid."""
        return self.series[SeriesRole.MRC]


@dataclass(frozen=True, kw_only=True)
class StudyAssembly:
    """Everything decided about a study: the roles, the set or the refusal, and what was left out."""

    study_instance_uid: str
    decisions: tuple[RoleDecision, ...]
    chosen: SeriesSet | None
    left_out: tuple[LeftOut, ...]
    refusal: Refusal | None
