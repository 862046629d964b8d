"""Whether everything has arrived: by evidence first, by a quiet timer last. A half series is never computed.

The ladder, best rung first: the source's own count; Images in Acquisition or the frame count of an enhanced image;
equal, gap-free slices in the whole set; and, if nothing else speaks, a quiet time without any new image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import Final

from dicom_node.assembly.geometry import SliceStack, check_stack, is_cut_short, same_slices
from dicom_node.assembly.headers import SeriesHeader, SeriesRole
from dicom_node.assembly.pairing import ACCEPTED_PARTNERS, SeriesSet, StudyAssembly
from dicom_node.errors import Reason, Refusal

SETTLE_S: Final = 3.0
"""Equal counts prove nothing while images still come in: a sender that alternates between the series keeps their
counts equal all the time. Three seconds is longer than any pause inside a running association."""


BEYOND_WAITING: Final = frozenset(
    {Reason.CONFLICT, Reason.SOURCE_CORRUPT, Reason.SIZE_LIMIT, Reason.TS_UNSUPPORTED, Reason.PIXEL_LENGTH}
)
"""What is wrong with images that are there, or that the source cannot give: those that lack do not change it, so
nobody waits for them longer than for a pause of the sender."""


class CompletenessState(StrEnum):
    """COMPLETE: compute now. WAITING: look again at `look_again_at`. EXPIRED: it will not come; refuse."""

    COMPLETE = "complete"
    WAITING = "waiting"
    EXPIRED = "expired"


class Evidence(StrEnum):
    """The rungs of the ladder; the value is what logs and reports show."""

    SOURCE_COUNT = "source count"
    IMAGES_IN_ACQUISITION = "images in acquisition"
    FRAME_COUNT = "enhanced frame count"
    EQUAL_SLICES = "equal slices in the set"
    QUIET_TIMER = "quiet timer"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """What the spool knows about a series' arrival. Times are POSIX seconds, kept across restarts."""

    series_instance_uid: str
    received: int
    last_received_at: float
    expected: int | None
    """Instance count that the source stated (Orthanc asked back), or None."""


@dataclass(frozen=True, kw_only=True)
class Completeness:
    """The verdict, the rung of the evidence ladder that gave it, and a sentence.

    `refusal` is why an EXPIRED study is refused, and what a WAITING one would be refused for if nothing more came.
    """

    state: CompletenessState
    evidence: str
    reason: str
    look_again_at: float | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, kw_only=True)
class _SeriesCount:
    """What one series' own counts say: `missing` images are known to lack; None means that no count speaks."""

    evidence: Evidence
    missing: int | None

    @property
    def proven(self) -> bool:
        return self.missing == 0


def judge(
    assembly: StudyAssembly,
    headers: Sequence[SeriesHeader],
    arrivals: Mapping[str, Arrival],
    *,
    now: float,
    quiet_s: float,
    partner_wait_s: float,
) -> Completeness:
    """Whether to compute, wait, or give up, for the study as it is now.

    Call it again at `look_again_at` and whenever images have arrived: EXPIRED is open to late slices.

    Parameters
    ----------
    assembly, headers
        The decisions about the study, and the headers they were made from.
    arrivals
        By Series Instance UID; a series in here without a header has just begun and is waited for.
    now
        POSIX seconds on the clock that stamped the arrivals.
    quiet_s, partner_wait_s
        How long to wait after the last image: for more of what is there, and for series or images known to lack.
    """
    study = _Study(
        headers={header.series_instance_uid: header for header in headers},
        arrivals=arrivals,
        now=now,
        quiet_s=quiet_s,
        partner_wait_s=partner_wait_s,
    )
    if assembly.chosen is None:
        return _judge_refused(assembly, study)
    return _judge_chosen(assembly, assembly.chosen, study)


@dataclass(frozen=True, kw_only=True)
class _Study:
    headers: Mapping[str, SeriesHeader]
    arrivals: Mapping[str, Arrival]
    now: float
    quiet_s: float
    partner_wait_s: float

    @property
    def last_received_at(self) -> float:
        return max((arrival.last_received_at for arrival in self.arrivals.values()), default=self.now)

    def count(self, uid: str) -> _SeriesCount:
        """What counts say about one series."""
        header, arrival = self.headers.get(uid), self.arrivals.get(uid)
        if arrival is not None and arrival.expected is not None and arrival.received <= arrival.expected:
            return _SeriesCount(evidence=Evidence.SOURCE_COUNT, missing=arrival.expected - arrival.received)
        if header is None:
            return _SeriesCount(evidence=Evidence.NONE, missing=None)
        if header.enhanced and len(header.sop_instance_uids) == 1:
            return _SeriesCount(evidence=Evidence.FRAME_COUNT, missing=0)
        return _count_by_acquisition(header)

    def is_read(self, uid: str) -> bool:
        """True if the header was made from every instance that has arrived."""
        header, arrival = self.headers.get(uid), self.arrivals.get(uid)
        return header is not None and (arrival is None or len(header.sop_instance_uids) >= arrival.received)

    def grows_until(self, uid: str) -> float:
        """Until when images of this series may still be on their way; in the past if none are expected."""
        arrival, count = self.arrivals[uid], self.count(uid)
        if count.proven and self.is_read(uid):
            return arrival.last_received_at
        return arrival.last_received_at + (self.partner_wait_s if count.missing else self.quiet_s)


def _count_by_acquisition(header: SeriesHeader) -> _SeriesCount:
    """What Images in Acquisition says; nothing if the series holds several acquisitions, or several images a slice."""
    stated = header.images_in_acquisition
    places = {frame.position_mm for frame in header.frames}
    if stated is None or stated < max(2, len(header.frames)) or len(places) < len(header.frames):
        return _SeriesCount(evidence=Evidence.NONE, missing=None)
    return _SeriesCount(evidence=Evidence.IMAGES_IN_ACQUISITION, missing=stated - len(header.frames))


def _judge_chosen(assembly: StudyAssembly, chosen: SeriesSet, study: _Study) -> Completeness:
    roles = {header.series_instance_uid: role for role, header in chosen.series.items()}
    counts = {uid: study.count(uid) for uid in roles}
    for uid, count in counts.items():
        if count.missing:
            return _lacking(uid, roles[uid], count, study)
        if not study.is_read(uid):
            return _wait(study, study.now + SETTLE_S, f"the {roles[uid]} series has images that are not read yet")
    pending = _pending_rivals(assembly, chosen, study)
    if pending:
        until = min(study.grows_until(uid) for uid in pending)
        return _wait(study, until, f"{len(pending)} more series that could belong to the set may not be finished")
    settled_at = study.last_received_at + SETTLE_S
    if study.now < settled_at and _better_roles(chosen):
        return _wait(study, settled_at, "a better set may be about to arrive")
    return _judge_counts(chosen, counts, roles, study)


def _judge_counts(
    chosen: SeriesSet, counts: Mapping[str, _SeriesCount], roles: Mapping[str, SeriesRole], study: _Study
) -> Completeness:
    """The rungs in turn for a set whose counts contradict nothing."""
    if all(count.proven for count in counts.values()):
        evidence = " and ".join(sorted({count.evidence for count in counts.values()}))
        return _complete(evidence, f"every series of the set has all its images by {evidence}")
    stacks = {uid: check_stack(header) for uid, header in zip(roles, chosen.series.values(), strict=True)}
    if all(same_slices(one, other) for one, other in combinations(stacks.values(), 2)):
        until = study.last_received_at + min(SETTLE_S, study.quiet_s)
        if study.now >= until:
            return _complete(Evidence.EQUAL_SLICES, "all series of the set have the same slices without a gap")
        return _wait(study, until, "all series of the set have the same slices; waiting for the sender to pause")
    until = study.last_received_at + study.quiet_s
    if study.now < until:
        return _wait(study, until, "no count proves that the last slices have arrived")
    short = _cut_short(stacks, counts)
    if short is not None:
        detail = f"the {roles[short]} series ends {_slices(stacks, short)} slices before its partner on the same grid"
        return _expired(Refusal(reason=Reason.INCOMPLETE, detail=detail, series_instance_uid=short))
    return _complete(Evidence.QUIET_TIMER, f"no image for {study.quiet_s:g} s, and no series has a gap")


def _judge_refused(assembly: StudyAssembly, study: _Study) -> Completeness:
    """Wait for what could cure the refusal; then give up with it."""
    assert assembly.refusal is not None
    refusal = assembly.refusal
    known_lacking = any(study.count(uid).missing for uid in study.arrivals)
    curable_by_partner = refusal.reason is Reason.PARTNER_MISSING
    waits_for_more = curable_by_partner or (known_lacking and refusal.reason not in BEYOND_WAITING)
    wait_s = study.partner_wait_s if waits_for_more else study.quiet_s
    until = study.last_received_at + wait_s
    if study.arrivals and study.now < until:
        return _wait(study, until, f"{refusal.reason} so far; more images may come", refusal=refusal)
    return _expired(refusal)


def _lacking(uid: str, role: SeriesRole, count: _SeriesCount, study: _Study) -> Completeness:
    detail = f"{count.missing} images of the {role} series have not arrived, by {count.evidence}"
    until = study.last_received_at + study.partner_wait_s
    refusal = Refusal(reason=Reason.INCOMPLETE, detail=detail, series_instance_uid=uid)
    return _wait(study, until, detail, refusal=refusal) if study.now < until else _expired(refusal)


def _pending_rivals(assembly: StudyAssembly, chosen: SeriesSet, study: _Study) -> list[str]:
    """Growing series that may still change the set: a repeat, a part of a better set, a doubt, or not read yet."""
    used = {header.series_instance_uid for header in chosen.series.values()}
    wanted = set(chosen.series) | _better_roles(chosen)
    idle = {
        decision.series_instance_uid
        for decision in assembly.decisions
        if decision.role not in wanted and decision.doubt is None
    }
    return [uid for uid in study.arrivals if uid not in used | idle and study.now < study.grows_until(uid)]


def _better_roles(chosen: SeriesSet) -> set[SeriesRole]:
    """Roles of the partners that would have been preferred to the chosen ones."""
    better: set[SeriesRole] = set()
    for partners in ACCEPTED_PARTNERS:
        if set(partners) <= set(chosen.series):
            return better
        better |= set(partners)
    return better


def _cut_short(stacks: Mapping[str, SliceStack], counts: Mapping[str, _SeriesCount]) -> str | None:
    """An unproven series that is the same grid as another but shorter: its tail is missing (B34)."""
    for uid, stack in stacks.items():
        if not counts[uid].proven and any(is_cut_short(stack, other) for other in stacks.values()):
            return uid
    return None


def _slices(stacks: Mapping[str, SliceStack], short: str) -> int:
    return max(len(stack.frames) for stack in stacks.values()) - len(stacks[short].frames)


def _complete(evidence: str, reason: str) -> Completeness:
    return Completeness(state=CompletenessState.COMPLETE, evidence=evidence, reason=reason)


def _wait(study: _Study, until: float, reason: str, *, refusal: Refusal | None = None) -> Completeness:
    return Completeness(
        state=CompletenessState.WAITING,
        evidence=Evidence.NONE,
        reason=reason,
        look_again_at=max(until, study.now),
        refusal=refusal,
    )


def _expired(refusal: Refusal) -> Completeness:
    return Completeness(
        state=CompletenessState.EXPIRED,
        evidence=Evidence.QUIET_TIMER,
        reason=f"{refusal.reason}: {refusal.detail}",
        refusal=refusal,
    )
