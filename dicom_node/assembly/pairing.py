"""Which series form the input set, and why every other one was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations, product
from typing import Final

from dicom_node.assembly.classification import RoleDecision, SeriesRules, classify_study
from dicom_node.assembly.geometry import SliceStack, check_stack, overlap, same_slices, stack_for_role
from dicom_node.assembly.headers import PatientIdentity, SeriesHeader, SeriesRole
from dicom_node.assembly.physics import is_derived
from dicom_node.errors import Reason, Refusal, RejectedStudy

__all__ = ["LeftOut", "RoleDecision", "SeriesSet", "StudyAssembly", "assemble"]

ACCEPTED_PARTNERS: Final = (
    (SeriesRole.PPI, SeriesRole.PEI),
    (SeriesRole.HYDROPS,),
    (SeriesRole.HYDROPS_MI2,),
    (SeriesRole.REAL_IR,),
)
"""What the cisternogram may be paired with, best first: PPI and PEI can be aligned one by one and are never clipped."""

MAX_TIME_APART: Final = timedelta(hours=12)
"""Measured series farther apart than this belong to two visits (B49); contrast is imaged within about 4 hours."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A series that is not part of the set, and why, in a sentence."""

    series_instance_uid: str
    role: SeriesRole
    reason: str


@dataclass(frozen=True, kw_only=True)
class SeriesSet:
    """The chosen input: MRC and one of {Mi2}, {HYDROPS}, {PPI, PEI}, {REAL_IR}; `series[role]` is the header.

    A header here holds only the planes that the role means: of a mixed series, just its magnitude or real part.
    """

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


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A series that could fill a role: its planes are one regular volume."""

    role: SeriesRole
    header: SeriesHeader
    stack: SliceStack


_Combination = tuple[_Candidate, ...]


def assemble(
    headers: Sequence[SeriesHeader],
    rules: SeriesRules,
    *,
    max_frames_per_series: int = 2000,
    max_series_per_study: int = 200,
) -> StudyAssembly:
    """The input set of one study, or the refusal that explains why there is none.

    Parameters
    ----------
    headers
        All series of one Study Instance UID known so far, at least one.
    max_frames_per_series, max_series_per_study
        Above these a series, or the study, is refused with SIZE_LIMIT.

    Raises
    ------
    ValueError
        If `headers` is empty or names several studies: series of two studies are never paired (B49).
    """
    studies = {header.study_instance_uid for header in headers}
    if len(studies) != 1:
        raise ValueError(f"expected the series of one study, found {len(studies)} studies")
    if len(headers) > max_series_per_study:
        detail = f"expected at most {max_series_per_study} series, found {len(headers)}"
        return _refused(headers, (), Refusal(reason=Reason.SIZE_LIMIT, detail=detail), {})
    decisions = classify_study(headers, rules)
    identity = _check_identity(headers)
    if identity is not None:
        return _refused(headers, decisions, identity, {})
    candidates, unusable = _candidates(headers, decisions, max_frames_per_series)
    refusals: list[Refusal] = []
    for partners in ACCEPTED_PARTNERS:
        outcome = _choose((SeriesRole.MRC, *partners), candidates)
        if isinstance(outcome, SeriesSet):
            return _assembled(headers, decisions, outcome, unusable)
        if outcome is not None:
            refusals.append(outcome)
    refusal = refusals[0] if refusals else _explain_no_set(decisions, candidates, unusable)
    return _refused(headers, decisions, refusal, unusable)


def _check_identity(headers: Sequence[SeriesHeader]) -> Refusal | None:
    """One patient in all series, or a refusal. Counts are told, values never."""
    identities = {identity for header in headers for identity in header.identities}
    if any(not identity.patient_id for identity in identities):
        return Refusal(reason=Reason.PATIENT_UNKNOWN, detail="expected a PatientID (0010,0020) in every image")
    for one, other in combinations(identities, 2):
        differing = _differing_attributes(one, other)
        if differing:
            detail = f"expected one patient, found images that differ in {', '.join(differing)}"
            return Refusal(reason=Reason.PATIENT_MISMATCH, detail=detail)
    return None


def _differing_attributes(one: PatientIdentity, other: PatientIdentity) -> list[str]:
    """Keywords in which two identities contradict each other; an empty value contradicts nothing but a PatientID."""
    values = {
        "PatientID": (one.patient_id, other.patient_id),
        "IssuerOfPatientID": (one.issuer, other.issuer),
        "PatientName": (_comparable_name(one.name), _comparable_name(other.name)),
        "PatientBirthDate": (one.birth_date, other.birth_date),
        "PatientSex": (one.sex, other.sex),
    }
    return [keyword for keyword, (a, b) in values.items() if a and b and a != b]


def _comparable_name(name: str) -> str:
    """A person name without the empty components and groups that some systems write at the end (PS3.5 6.2.1)."""
    groups = [group.rstrip("^ ") for group in name.split("=")]
    return "=".join(groups).rstrip("=").casefold()


def _candidates(
    headers: Sequence[SeriesHeader], decisions: Sequence[RoleDecision], max_frames: int
) -> tuple[dict[SeriesRole, list[_Candidate]], dict[str, Refusal]]:
    """Usable series by role, and the refusal of each series that has a role but cannot be used."""
    shared = _instances_in_two_series(headers)
    candidates: dict[SeriesRole, list[_Candidate]] = {}
    unusable: dict[str, Refusal] = {}
    for header, decision in zip(headers, decisions, strict=True):
        if decision.role is SeriesRole.OTHER:
            continue
        try:
            candidate = _candidate(header, decision.role, shared, max_frames)
        except RejectedStudy as rejected:
            unusable[header.series_instance_uid] = rejected.refusal
        else:
            candidates.setdefault(decision.role, []).append(candidate)
    return candidates, unusable


def _candidate(header: SeriesHeader, role: SeriesRole, shared: frozenset[str], max_frames: int) -> _Candidate:
    uid = header.series_instance_uid
    if len(header.frames) > max_frames:
        detail = f"expected at most {max_frames} images, found {len(header.frames)}"
        raise RejectedStudy(Refusal(reason=Reason.SIZE_LIMIT, detail=detail, series_instance_uid=uid))
    if shared & set(header.sop_instance_uids):
        detail = "an image of this series carries the same SOP Instance UID as another one"
        raise RejectedStudy(Refusal(reason=Reason.CONFLICT, detail=detail, series_instance_uid=uid))
    if header.lossy:
        detail = "lossy compression is stated or used"
        raise RejectedStudy(Refusal(reason=Reason.LOSSY, detail=detail, series_instance_uid=uid))
    part = stack_for_role(header, role)
    return _Candidate(role=role, header=part, stack=check_stack(part))


def _instances_in_two_series(headers: Sequence[SeriesHeader]) -> frozenset[str]:
    """SOP Instance UIDs met in two series, or twice in one (B45, B46)."""
    planes = Counter(
        (header.series_instance_uid, frame.sop_instance_uid, frame.frame_number)
        for header in headers
        for frame in header.frames
    )
    series = Counter(uid for header in headers for uid in header.sop_instance_uids)
    twice = {uid for (_, uid, _), count in planes.items() if count > 1}
    twice |= {uid for uid, count in series.items() if count > 1}
    return frozenset(twice)


def _choose(
    roles: Sequence[SeriesRole], candidates: Mapping[SeriesRole, Sequence[_Candidate]]
) -> SeriesSet | Refusal | None:
    """The best series for each role; a refusal if two are equally good or none fit together; None if a role lacks."""
    if any(not candidates.get(role) for role in roles):
        return None
    every = list(product(*(candidates[role] for role in roles)))
    fitting = [combination for combination in every if _misfit(combination) is None]
    if not fitting:
        return _misfit(every[0])
    ranked = sorted(fitting, key=_rank, reverse=True)
    best = ranked[0]
    if len(ranked) > 1 and _rank(ranked[1]) == _rank(best):
        return _tie(best, ranked[1])
    series = {candidate.role: candidate.header for candidate in best}
    return SeriesSet(series=series, warnings=(*_repeat_warnings(best, candidates), *_frame_warnings(best)))


def _misfit(combination: _Combination) -> Refusal | None:
    """Why these series do not show one region in one visit."""
    mrc, *partners = combination
    for partner in partners:
        uid = partner.header.series_instance_uid
        if not overlap(mrc.stack, partner.stack):
            same_frame = _frame_of_reference(mrc) == _frame_of_reference(partner)
            detail = f"the {partner.role} series lies outside the MRC series"
            reason = Reason.PARTNER_MISSING if same_frame else Reason.FOR_DIFFERS
            return Refusal(reason=reason, detail=detail, series_instance_uid=uid)
    times = [time for candidate in combination if (time := _measured_at(candidate)) is not None]
    if times and max(times) - min(times) > MAX_TIME_APART:
        detail = f"the series were measured {max(times) - min(times)} apart, allowed {MAX_TIME_APART}"
        return Refusal(reason=Reason.PARTNER_MISSING, detail=detail)
    return None


def _measured_at(candidate: _Candidate) -> datetime | None:
    """Time of the measurement; a computed series may be dated by the workstation, so it does not count."""
    return None if is_derived(candidate.header) else candidate.header.acquired_at


def _rank(combination: _Combination) -> tuple[int, int, tuple[datetime, ...]]:
    """Larger is better: partners in the MRC's frame of reference, then with the same slices, then the latest."""
    mrc, *partners = combination
    same_frame = sum(_frame_of_reference(mrc) == _frame_of_reference(partner) for partner in partners)
    pairs = combinations(combination, 2)
    equal_slices = sum(same_slices(one.stack, other.stack) for one, other in pairs)
    times = tuple(candidate.header.acquired_at or datetime.min for candidate in combination)  # noqa: DTZ901
    return same_frame, equal_slices, times


def _tie(best: _Combination, second: _Combination) -> Refusal:
    one, other = next((a, b) for a, b in zip(best, second, strict=True) if a.header is not b.header)
    detail = (
        f"series {one.header.series_instance_uid} and {other.header.series_instance_uid} could both be the "
        f"{one.role}; frame of reference, slices and acquisition time are the same"
    )
    return Refusal(reason=Reason.AMBIGUOUS, detail=detail, series_instance_uid=one.header.series_instance_uid)


def _repeat_warnings(best: _Combination, candidates: Mapping[SeriesRole, Sequence[_Candidate]]) -> list[Refusal]:
    return [
        Refusal(
            reason=Reason.AMBIGUOUS,
            detail=f"{len(candidates[candidate.role])} series could be the {candidate.role}; taken was the one that "
            "fits the others best and is the latest",
            series_instance_uid=candidate.header.series_instance_uid,
        )
        for candidate in best
        if len(candidates[candidate.role]) > 1
    ]


def _frame_warnings(best: _Combination) -> list[Refusal]:
    mrc, *partners = best
    return [
        Refusal(
            reason=Reason.FOR_DIFFERS,
            detail=f"the {partner.role} series has another frame of reference than the MRC series; alignment decides",
            series_instance_uid=partner.header.series_instance_uid,
        )
        for partner in partners
        if _frame_of_reference(partner) != _frame_of_reference(mrc)
    ]


def _frame_of_reference(candidate: _Candidate) -> str | None:
    return candidate.header.frames[0].frame_of_reference_uid


def _explain_no_set(
    decisions: Sequence[RoleDecision],
    candidates: Mapping[SeriesRole, Sequence[_Candidate]],
    unusable: Mapping[str, Refusal],
) -> Refusal:
    """The refusal that helps most: what would have completed a set, else doubt, else what is missing."""
    recognized = {decision.role for decision in decisions} - {SeriesRole.OTHER}
    for partners in ACCEPTED_PARTNERS:
        if {SeriesRole.MRC, *partners} <= recognized:
            return _first_unusable((SeriesRole.MRC, *partners), decisions, candidates, unusable)
    doubtful = [decision for decision in decisions if decision.doubt is not None]
    if doubtful:
        first = doubtful[0]
        assert first.doubt is not None
        return Refusal(reason=first.doubt, detail=first.reason, series_instance_uid=first.series_instance_uid)
    if not recognized:
        detail = f"none of {len(decisions)} series is a cisternogram or a hydrops contrast"
        return Refusal(reason=Reason.NO_HYDROPS_STUDY, detail=detail)
    found = ", ".join(role for role in SeriesRole if role in recognized)
    return Refusal(
        reason=Reason.PARTNER_MISSING,
        detail=f"expected MRC with PPI and PEI, HYDROPS, HYDROPS_MI2 or REAL_IR; found only {found}",
    )


def _first_unusable(
    roles: Sequence[SeriesRole],
    decisions: Sequence[RoleDecision],
    candidates: Mapping[SeriesRole, Sequence[_Candidate]],
    unusable: Mapping[str, Refusal],
) -> Refusal:
    for role in roles:
        if not candidates.get(role):
            return next(unusable[d.series_instance_uid] for d in decisions if d.role is role)
    raise AssertionError("a complete set was not chosen")


def _assembled(
    headers: Sequence[SeriesHeader],
    decisions: Sequence[RoleDecision],
    chosen: SeriesSet,
    unusable: Mapping[str, Refusal],
) -> StudyAssembly:
    used = {header.series_instance_uid for header in chosen.series.values()}
    left_out = tuple(
        LeftOut(
            series_instance_uid=decision.series_instance_uid,
            role=decision.role,
            reason=_why_left_out(decision, chosen, unusable),
        )
        for decision in decisions
        if decision.series_instance_uid not in used
    )
    return StudyAssembly(
        study_instance_uid=headers[0].study_instance_uid,
        decisions=tuple(decisions),
        chosen=chosen,
        left_out=left_out,
        refusal=None,
    )


def _why_left_out(decision: RoleDecision, chosen: SeriesSet, unusable: Mapping[str, Refusal]) -> str:
    refusal = unusable.get(decision.series_instance_uid)
    if refusal is not None:
        return f"{refusal.reason}: {refusal.detail}"
    if decision.role is SeriesRole.OTHER:
        return decision.reason
    if decision.role in chosen.series:
        return f"another {decision.role} series fits the set better or is later"
    return f"not needed: {' and '.join(chosen.series)} are used"


def _refused(
    headers: Sequence[SeriesHeader],
    decisions: Sequence[RoleDecision],
    refusal: Refusal,
    unusable: Mapping[str, Refusal],
) -> StudyAssembly:
    left_out = []
    for decision in decisions:
        own = unusable.get(decision.series_instance_uid)
        plain = decision.reason if decision.role is SeriesRole.OTHER else f"{refusal.reason}: {refusal.reason.sentence}"
        reason = f"{own.reason}: {own.detail}" if own is not None else plain
        left_out.append(LeftOut(series_instance_uid=decision.series_instance_uid, role=decision.role, reason=reason))
    return StudyAssembly(
        study_instance_uid=headers[0].study_instance_uid,
        decisions=tuple(decisions),
        chosen=None,
        left_out=tuple(left_out),
        refusal=refusal,
    )
