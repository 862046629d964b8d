"""Complete before computed: evidence first, the quiet timer last, and never a half series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from scanned_series import HYDROPS, MRC, PEI, PPI, REAL_IR, Scan, data_sets, enhanced_data_set

from dicom_node.assembly.classification import read_rules
from dicom_node.assembly.completeness import Arrival, Completeness, CompletenessState, Evidence, judge
from dicom_node.assembly.headers import group_series, read_series_header
from dicom_node.assembly.pairing import assemble
from dicom_node.errors import Reason

RULES = read_rules((Path(__file__).parents[3] / "config" / "series_rules.toml").read_text(encoding="utf-8"))
QUIET_S, PARTNER_WAIT_S = 30.0, 1800.0
LOCALIZER = Scan(name="localizer", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), dimension="2D", echo_time_ms=5.0)


class Study:
    """A study as the spool sees it: data sets with the time at which each arrived."""

    def __init__(self, expected: Mapping[str, int] | None = None) -> None:
        self._expected = expected or {}
        self._datasets: list[Dataset] = []
        self._arrived_at: dict[str, float] = {}

    def receive(self, datasets: Sequence[Dataset], *, at: float) -> Study:
        for dataset in datasets:
            self._datasets.append(dataset)
            self._arrived_at[str(dataset.SeriesInstanceUID)] = at
        return self

    def judge(self, *, at: float) -> Completeness:
        headers = [read_series_header(group) for group in group_series(self._datasets).values()]
        arrivals = {
            header.series_instance_uid: Arrival(
                series_instance_uid=header.series_instance_uid,
                received=len(header.sop_instance_uids),
                last_received_at=self._arrived_at[header.series_instance_uid],
                expected=self._expected.get(header.series_instance_uid),
            )
            for header in headers
        }
        assembly = assemble(headers, RULES)
        return judge(assembly, headers, arrivals, now=at, quiet_s=QUIET_S, partner_wait_s=PARTNER_WAIT_S)


def counts(*scans: Scan) -> dict[str, int]:
    """What the source states about each series."""
    return {scan.series_uid: scan.shape[0] for scan in scans}


def whole(*scans: Scan) -> list[Dataset]:
    return [dataset for scan in scans for dataset in data_sets(scan)]


def reason_of(verdict: Completeness) -> Reason:
    assert verdict.state is CompletenessState.EXPIRED, verdict
    assert verdict.refusal is not None
    return verdict.refusal.reason


def assert_waits_until(verdict: Completeness, until: float) -> None:
    assert verdict.state is CompletenessState.WAITING, verdict
    assert verdict.look_again_at == pytest.approx(until)


def test_the_count_of_the_source_completes_at_once():
    verdict = Study(counts(MRC, PPI, PEI)).receive(whole(MRC, PPI, PEI), at=100.0).judge(at=100.0)
    assert (verdict.state, verdict.evidence) == (CompletenessState.COMPLETE, Evidence.SOURCE_COUNT)


def test_images_in_acquisition_complete_at_once():
    scans = [scan.with_attributes(ImagesInAcquisition=8) for scan in (MRC, PPI, PEI)]
    verdict = Study().receive(whole(*scans), at=100.0).judge(at=100.0)
    assert (verdict.state, verdict.evidence) == (CompletenessState.COMPLETE, Evidence.IMAGES_IN_ACQUISITION)


def test_enhanced_images_are_complete_by_their_frame_count():
    images = [enhanced_data_set(scan) for scan in (MRC, PPI, PEI)]
    verdict = Study().receive(images, at=100.0).judge(at=100.0)
    assert (verdict.state, verdict.evidence) == (CompletenessState.COMPLETE, Evidence.FRAME_COUNT)


def test_equal_slices_complete_once_the_sender_pauses():
    study = Study().receive(whole(MRC, PPI, PEI), at=100.0)
    assert_waits_until(study.judge(at=100.5), 103.0)
    assert study.judge(at=103.0).evidence == Evidence.EQUAL_SLICES


def test_without_counts_and_equal_slices_the_quiet_timer_decides_last():
    study = Study().receive(whole(MRC.but(shape=(12, 9, 9)), HYDROPS), at=100.0)
    assert_waits_until(study.judge(at=104.0), 130.0)
    verdict = study.judge(at=130.0)
    assert (verdict.state, verdict.evidence) == (CompletenessState.COMPLETE, Evidence.QUIET_TIMER)


def test_a_missing_tail_waits_and_is_refused_because_the_partner_is_longer():
    study = Study().receive(whole(MRC, PPI), at=100.0).receive(data_sets(PEI)[:5], at=100.0)
    assert_waits_until(study.judge(at=110.0), 130.0)
    assert reason_of(study.judge(at=130.0)) is Reason.INCOMPLETE


@pytest.mark.parametrize("by", ["source", "acquisition"])
def test_images_known_to_lack_are_waited_for_longer_than_the_quiet_time(by):
    scans = [MRC, PPI, PEI if by == "source" else PEI.with_attributes(ImagesInAcquisition=8)]
    study = Study(counts(*scans) if by == "source" else None)
    study.receive(whole(*scans[:2]), at=100.0).receive(data_sets(scans[2])[:7], at=100.0)
    assert_waits_until(study.judge(at=200.0), 1900.0)
    assert reason_of(study.judge(at=1900.0)) is Reason.INCOMPLETE


def test_a_gap_waits_for_quiet_and_is_then_refused_as_a_gap():
    study = Study().receive(whole(MRC, PPI), at=100.0).receive(data_sets(PEI)[:3] + data_sets(PEI)[4:], at=100.0)
    assert_waits_until(study.judge(at=110.0), 130.0)
    assert reason_of(study.judge(at=130.0)) is Reason.SLICE_GAP


def test_a_late_slice_reopens_an_expired_study():
    study = Study().receive(whole(MRC, PPI), at=100.0).receive(data_sets(PEI)[:3] + data_sets(PEI)[4:], at=100.0)
    assert study.judge(at=130.0).state is CompletenessState.EXPIRED
    study.receive(data_sets(PEI)[3:4], at=500.0)
    assert study.judge(at=503.0).state is CompletenessState.COMPLETE


@pytest.mark.parametrize("scans", [(MRC,), (HYDROPS,), (MRC, PPI)])
def test_a_missing_partner_is_waited_for_and_then_named(scans):
    study = Study(counts(*scans)).receive(whole(*scans), at=100.0)
    assert_waits_until(study.judge(at=200.0), 1900.0)
    assert reason_of(study.judge(at=1900.0)) is Reason.PARTNER_MISSING


def test_a_study_that_is_not_ours_ends_after_the_quiet_time():
    study = Study().receive(whole(LOCALIZER), at=100.0)
    assert_waits_until(study.judge(at=110.0), 130.0)
    assert reason_of(study.judge(at=130.0)) is Reason.NO_HYDROPS_STUDY


def test_a_smaller_set_waits_while_a_better_one_is_arriving():
    study = Study(counts(MRC, HYDROPS)).receive(whole(MRC, HYDROPS), at=100.0).receive(data_sets(PPI)[:4], at=105.0)
    assert_waits_until(study.judge(at=110.0), 135.0)


def test_a_smaller_set_is_computed_when_the_better_one_never_ends():
    study = Study(counts(MRC, HYDROPS)).receive(whole(MRC, HYDROPS), at=100.0).receive(data_sets(PPI)[:4], at=105.0)
    assert study.judge(at=135.0).state is CompletenessState.COMPLETE


def test_a_smaller_set_gives_the_better_one_a_moment_to_begin():
    study = Study(counts(MRC, HYDROPS)).receive(whole(MRC, HYDROPS), at=100.0)
    assert_waits_until(study.judge(at=100.0), 103.0)
    assert study.judge(at=103.0).state is CompletenessState.COMPLETE


def test_series_that_cannot_change_the_set_do_not_hold_it_up():
    study = Study(counts(MRC, PPI, PEI)).receive(whole(MRC, PPI, PEI), at=100.0)
    study.receive([*data_sets(LOCALIZER)[:2], *data_sets(REAL_IR)[:3]], at=100.0)
    assert study.judge(at=100.0).state is CompletenessState.COMPLETE


def test_a_repeat_that_is_still_arriving_is_waited_for():
    repeat = MRC.but(name="MRC again", time="110000")
    study = Study(counts(MRC, PPI, PEI)).receive(whole(MRC, PPI, PEI), at=100.0).receive(data_sets(repeat)[:3], at=100)
    assert_waits_until(study.judge(at=101.0), 130.0)


def test_a_series_that_has_arrived_but_was_not_read_yet_is_waited_for():
    headers = [read_series_header(data_sets(scan)) for scan in (MRC, PPI, PEI)]
    arrivals = {
        header.series_instance_uid: Arrival(
            series_instance_uid=header.series_instance_uid, received=9, last_received_at=100.0, expected=9
        )
        for header in headers
    }
    verdict = judge(
        assemble(headers, RULES), headers, arrivals, now=100.0, quiet_s=QUIET_S, partner_wait_s=PARTNER_WAIT_S
    )
    assert verdict.state is CompletenessState.WAITING


def test_magnitude_and_real_part_together_are_not_proven_by_the_images_of_one_acquisition():
    real = REAL_IR.with_attributes(ImagesInAcquisition=8)
    magnitude = real.but(name="m", image_type=("ORIGINAL", "PRIMARY", "M"))
    both = [dataset for pair in zip(data_sets(real), data_sets(magnitude), strict=True) for dataset in pair]
    for dataset in both:
        dataset.SeriesInstanceUID = REAL_IR.series_uid
    study = Study().receive(whole(MRC), at=100.0).receive(both[:8], at=100.0)
    assert study.judge(at=100.0).state is CompletenessState.WAITING


ALL = whole(MRC, PPI, PEI, HYDROPS)
SIZES = counts(MRC, PPI, PEI, HYDROPS)


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(len(ALL))), pauses=st.lists(st.floats(0.0, 200.0), min_size=40, max_size=40))
def test_no_half_series_is_ever_computed_when_the_source_states_its_counts(order, pauses):
    """Random order, random pauses: at every step a COMPLETE verdict means that the whole chosen set is there."""
    study, now = Study(SIZES), 0.0
    received: dict[str, int] = dict.fromkeys(SIZES, 0)
    verdict = None
    for step, pause in zip(order[::4], pauses, strict=False):
        batch = [ALL[index] for index in order[order.index(step) : order.index(step) + 4]]
        study.receive(batch, at=now)
        for dataset in batch:
            received[str(dataset.SeriesInstanceUID)] += 1
        now += pause
        verdict = study.judge(at=now)
        if verdict.state is CompletenessState.COMPLETE:
            finished = {uid for uid, count in received.items() if count == SIZES[uid]}
            assert MRC.series_uid in finished
            assert {PPI.series_uid, PEI.series_uid} <= finished or HYDROPS.series_uid in finished
    assert verdict is not None
    assert study.judge(at=now + 10.0).state is CompletenessState.COMPLETE


@settings(max_examples=50, deadline=None)
@given(
    cut=st.integers(1, 7),
    scan=st.sampled_from([MRC, PPI, PEI]),
    from_front=st.booleans(),
    later=st.floats(0.0, 5000.0),
)
def test_a_cut_series_beside_whole_ones_is_never_computed_even_without_counts(cut, scan, from_front, later):
    study = Study()
    for one in (MRC, PPI, PEI):
        datasets = data_sets(one)
        part = datasets[cut:] if from_front else datasets[:cut]
        study.receive(part if one is scan else datasets, at=100.0)
    assert study.judge(at=100.0 + later).state is not CompletenessState.COMPLETE


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0, 4000.0))
def test_waiting_always_ends(later):
    for scans in ((MRC,), (MRC, PPI, PEI), (LOCALIZER,)):
        study, now = Study().receive(whole(*scans), at=100.0), 100.0 + later
        for _ in range(4):
            verdict = study.judge(at=now)
            if verdict.state is not CompletenessState.WAITING:
                break
            assert verdict.look_again_at is not None
            assert verdict.look_again_at > now
            now = verdict.look_again_at
        assert verdict.state is not CompletenessState.WAITING
