"""Which series is what: physics first, site rules second, names last; every decision says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dicom_node.assembly.geometry import split_stacks
from dicom_node.assembly.headers import SeriesHeader, SeriesRole
from dicom_node.assembly.physics import (
    DERIVED_ROLES,
    SUBTRACTION_TYPES,
    PhysicsVerdict,
    acquisition,
    is_inversion_recovery,
    is_real_part,
    is_subtraction_or_product,
    judge_physics,
)
from dicom_node.assembly.site_rules import SeriesRules, facts_of, read_rules
from dicom_node.errors import Reason

__all__ = ["RoleDecision", "SeriesRules", "classify", "classify_study", "read_rules"]

INVERSION_RULE = "inversion-time"
PAIR_TOLERANCE = 0.05
"""PPI and PEI are one protocol scanned twice: TR and TE agree within rounding."""


@dataclass(frozen=True, kw_only=True)
class RoleDecision:
    """What one series was taken as, by which rule, and why, in a sentence."""

    series_instance_uid: str
    role: SeriesRole
    rule: str
    reason: str
    doubt: Reason | None = None
    """Set on OTHER if the series may well belong to the set but must not be guessed (ROLE_UNSURE)."""


def classify(header: SeriesHeader, rules: SeriesRules) -> RoleDecision:
    """The role of one series on its own; `classify_study` also lets the series of a study explain each other."""
    header = _meant_part(header)
    verdict = judge_physics(header)
    named = rules.named_role(header)
    decision = _decided_by_physics(header, verdict) or _decided_by_site_rule(header, verdict, rules)
    decision = decision or _decided_by_name(header, verdict, named) or _undecided(header, verdict)
    if named is None or decision.role in (named, SeriesRole.OTHER):
        return decision
    remark = f"; its name reads like {named}, which was not believed"
    return replace(decision, reason=decision.reason + remark)


def classify_study(headers: Sequence[SeriesHeader], rules: SeriesRules) -> tuple[RoleDecision, ...]:
    """The roles of all series of one study, in the order given.

    Two things only the study shows: of two inversion series that differ in nothing but TI the longer one is PPI; and
    a computed image that names its sources is HYDROPS-Mi2 if the cisternogram is among them.
    """
    decisions = {header.series_instance_uid: classify(header, rules) for header in headers}
    decisions.update(_inversion_pairs(headers, decisions))
    decisions.update(_by_sources(headers, decisions))
    return tuple(decisions[header.series_instance_uid] for header in headers)


def _meant_part(header: SeriesHeader) -> SeriesHeader:
    """Of a series with several images per position, the real part if there is one: nobody makes it by accident."""
    parts = split_stacks(header)
    return next((part for part in parts if is_real_part(part)), parts[0])


def _decided_by_physics(header: SeriesHeader, verdict: PhysicsVerdict) -> RoleDecision | None:
    return _decision(header, verdict.roles[0], verdict.rule, verdict.reason) if verdict.certain else None


def _decided_by_site_rule(header: SeriesHeader, verdict: PhysicsVerdict, rules: SeriesRules) -> RoleDecision | None:
    facts = facts_of(header)
    for rule in rules.rules:
        if rule.matches(facts) and rule.role in (*verdict.roles, SeriesRole.OTHER):
            reason = f"{verdict.reason}; the site rule '{rule.name}' says {rule.role}"
            return _decision(header, rule.role, rule.name, reason)
    return None


def _decided_by_name(header: SeriesHeader, verdict: PhysicsVerdict, named: SeriesRole | None) -> RoleDecision | None:
    if verdict.names_may_decide and named in verdict.roles:
        return _decision(header, named, f"{verdict.rule}+name", f"{verdict.reason}; its name reads like {named}")
    if set(header.image_type) & SUBTRACTION_TYPES and SeriesRole.HYDROPS in verdict.roles:
        reason = f"{verdict.reason}; nothing says that it was multiplied by a cisternogram"
        return _decision(header, SeriesRole.HYDROPS, verdict.rule, reason)
    return None


def _undecided(header: SeriesHeader, verdict: PhysicsVerdict) -> RoleDecision:
    reason = verdict.reason
    if verdict.doubt is not None and verdict.names_may_decide:
        reason += f"; it could be {' or '.join(verdict.roles)}, and neither a rule nor its name decides"
    return replace(_decision(header, SeriesRole.OTHER, verdict.rule, reason), doubt=verdict.doubt)


def _decision(header: SeriesHeader, role: SeriesRole, rule: str, reason: str) -> RoleDecision:
    return RoleDecision(series_instance_uid=header.series_instance_uid, role=role, rule=rule, reason=reason)


def _inversion_pairs(headers: Sequence[SeriesHeader], decisions: Mapping[str, RoleDecision]) -> dict[str, RoleDecision]:
    """Where series of one protocol show exactly two inversion times, the longer is PPI, the shorter PEI."""
    inversions = [h for h in headers if decisions[h.series_instance_uid].rule == INVERSION_RULE]
    found: dict[str, RoleDecision] = {}
    for header in inversions:
        protocol = [other for other in inversions if _same_protocol(header, other)]
        times = sorted({other.inversion_time_ms for other in protocol if other.inversion_time_ms is not None})
        if len(times) != 2:
            continue
        role = SeriesRole.PPI if header.inversion_time_ms == times[1] else SeriesRole.PEI
        length = "longer" if role is SeriesRole.PPI else "shorter"
        reason = f"the {length} inversion time of the pair {times[0]:g} and {times[1]:g} ms ({acquisition(header)})"
        if decisions[header.series_instance_uid].role is not role:
            found[header.series_instance_uid] = _decision(header, role, "inversion-pair", reason)
    return found


def _same_protocol(one: SeriesHeader, other: SeriesHeader) -> bool:
    return _close(one.repetition_time_ms, other.repetition_time_ms) and _close(one.echo_time_ms, other.echo_time_ms)


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= PAIR_TOLERANCE * max(one, other)


def _by_sources(headers: Sequence[SeriesHeader], decisions: Mapping[str, RoleDecision]) -> dict[str, RoleDecision]:
    """Computed images that name their sources: with the cisternogram among them it is Mi2, otherwise HYDROPS."""
    series_of = {uid: header.series_instance_uid for header in headers for uid in header.sop_instance_uids}
    found: dict[str, RoleDecision] = {}
    for header in headers:
        uid = header.series_instance_uid
        verdict = judge_physics(header)
        if verdict.certain or not set(DERIVED_ROLES) <= set(verdict.roles) or not verdict.names_may_decide:
            continue
        sources = header.source_series_uids | {series_of.get(source, "") for source in header.source_instance_uids}
        roles = {decisions[source].role for source in sources if source in decisions and source != uid}
        role = _role_by_sources(
            roles, after_inversion=is_inversion_recovery(header) or is_subtraction_or_product(header)
        )
        if role is not None and role is not decisions[uid].role:
            names = " and ".join(sorted(roles))
            found[uid] = _decision(header, role, "named-sources", f"{verdict.reason}; it was made from {names}")
    return found


def _role_by_sources(roles: set[SeriesRole], *, after_inversion: bool) -> SeriesRole | None:
    """What was made from `roles`. A filtered cisternogram, too, names its cisternogram, but has seen no inversion."""
    inversions = {SeriesRole.PPI, SeriesRole.PEI, SeriesRole.HYDROPS}
    if SeriesRole.MRC in roles and (after_inversion or roles & inversions):
        return SeriesRole.HYDROPS_MI2
    if {SeriesRole.PPI, SeriesRole.PEI} <= roles:
        return SeriesRole.HYDROPS
    return None
