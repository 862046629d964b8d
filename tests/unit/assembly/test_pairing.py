"""The input set: preferred pairs, repeats, refusals, and a reason for every series that was left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEG2000
from scanned_series import CORONAL, HYDROPS, HYDROPS_MI2, MRC, PEI, PPI, REAL_IR, Scan, data_sets, header_of

from dicom_node.assembly.classification import SeriesRules, read_rules
from dicom_node.assembly.headers import SeriesHeader, SeriesRole, read_series_header
from dicom_node.assembly.pairing import StudyAssembly, assemble
from dicom_node.errors import Reason

RULES: SeriesRules = read_rules(
    (Path(__file__).parents[3] / "config" / "series_rules.toml").read_text(encoding="utf-8")
)
LOCALIZER = Scan(name="localizer", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), dimension="2D", echo_time_ms=5.0)


def assembled(*series: Scan | SeriesHeader) -> StudyAssembly:
    headers = [header_of(one) if isinstance(one, Scan) else one for one in series]
    assembly = assemble(headers, RULES)
    everyone = {header.series_instance_uid for header in headers}
    used = {h.series_instance_uid for h in assembly.chosen.series.values()} if assembly.chosen else set()
    assert used | {one.series_instance_uid for one in assembly.left_out} == everyone
    assert all(one.reason for one in assembly.left_out)
    assert (assembly.chosen is None) == (assembly.refusal is not None)
    return assembly


def chosen_roles(assembly: StudyAssembly) -> set[SeriesRole]:
    assert assembly.chosen is not None, assembly.refusal
    return set(assembly.chosen.series)


def reason_of(assembly: StudyAssembly) -> Reason:
    assert assembly.refusal is not None
    return assembly.refusal.reason


def reasons_left_out(assembly: StudyAssembly) -> dict[str, str]:
    return {one.series_instance_uid: one.reason for one in assembly.left_out}


@pytest.mark.parametrize(
    ("scans", "roles"),
    [
        ((MRC, PPI, PEI), {SeriesRole.MRC, SeriesRole.PPI, SeriesRole.PEI}),
        ((MRC, HYDROPS), {SeriesRole.MRC, SeriesRole.HYDROPS}),
        ((MRC, HYDROPS_MI2), {SeriesRole.MRC, SeriesRole.HYDROPS_MI2}),
        ((MRC, REAL_IR), {SeriesRole.MRC, SeriesRole.REAL_IR}),
        ((MRC, PPI, HYDROPS, LOCALIZER), {SeriesRole.MRC, SeriesRole.HYDROPS}),
    ],
)
def test_each_accepted_set_is_taken(scans, roles):
    assert chosen_roles(assembled(*scans)) == roles


EVERYTHING = [header_of(scan) for scan in (MRC, PPI, PEI, HYDROPS, HYDROPS_MI2, REAL_IR, LOCALIZER)]


@settings(max_examples=50, deadline=None)
@given(st.permutations(EVERYTHING))
def test_the_measured_pair_is_preferred_in_any_order(headers):
    assembly = assembled(*headers)
    assert chosen_roles(assembly) == {SeriesRole.MRC, SeriesRole.PPI, SeriesRole.PEI}
    assert reasons_left_out(assembly)[HYDROPS.series_uid] == "not needed: MRC and PPI and PEI are used"
    assert "localizer" in reasons_left_out(assembly)[LOCALIZER.series_uid]


@pytest.mark.parametrize("scans", [(MRC,), (HYDROPS,), (PPI, PEI), (MRC, PPI), (MRC, PEI, LOCALIZER)])
def test_without_partner_the_study_is_refused_saying_what_was_found(scans):
    assembly = assembled(*scans)
    assert reason_of(assembly) is Reason.PARTNER_MISSING
    assert assembly.refusal is not None
    assert scans[0].name in assembly.refusal.detail


def test_a_study_without_any_series_of_ours_is_not_a_hydrops_study():
    assert reason_of(assembled(LOCALIZER, MRC.but(dimension="2D"))) is Reason.NO_HYDROPS_STUDY


def test_doubt_is_told_as_doubt():
    unsure = PPI.but(name="PPI", inversion_time_ms=None).with_attributes(ScanningSequence=["SE", "IR"])
    assert reason_of(assembled(MRC, unsure, PEI)) is Reason.ROLE_UNSURE


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientID": "PHANTOM-2"},
        {"IssuerOfPatientID": "ELSEWHERE"},
        {"PatientName": "Phantom^Two"},
        {"PatientBirthDate": "19700102"},
        {"PatientSex": "F"},
    ],
)
def test_two_patients_are_refused_without_naming_them(attributes):
    here = {scan.name: scan.with_attributes(IssuerOfPatientID="HERE") for scan in (MRC, PPI)}
    pei = PEI.with_attributes(**{"IssuerOfPatientID": "HERE", **attributes})
    assembly = assembled(*here.values(), pei)
    assert reason_of(assembly) is Reason.PATIENT_MISMATCH
    assert assembly.refusal is not None
    assert next(iter(attributes)) in assembly.refusal.detail
    assert next(iter(attributes.values())) not in assembly.refusal.detail


def test_two_patients_inside_one_series_are_refused():
    datasets = data_sets(MRC)
    datasets[3].PatientID = "PHANTOM-2"
    assert reason_of(assembled(read_series_header(datasets), PPI, PEI)) is Reason.PATIENT_MISMATCH


def test_a_workstation_that_leaves_out_the_birth_date_is_still_the_same_patient():
    scan = HYDROPS.with_attributes(PatientBirthDate="", PatientName="Phantom^One^^^")
    assert chosen_roles(assembled(MRC, scan)) == {SeriesRole.MRC, SeriesRole.HYDROPS}


@pytest.mark.parametrize("value", ["", None])
def test_an_unknown_patient_is_refused(value):
    scans = [scan.with_attributes(PatientID=value) for scan in (MRC, PPI, PEI)]
    assert reason_of(assembled(*scans)) is Reason.PATIENT_UNKNOWN


def test_a_de_identified_study_keeps_its_identity_and_is_computed():
    scans = [scan.with_attributes(PatientIdentityRemoved="YES") for scan in (MRC, PPI, PEI)]
    assert chosen_roles(assembled(*scans)) == {SeriesRole.MRC, SeriesRole.PPI, SeriesRole.PEI}


def test_another_frame_of_reference_is_a_warning_because_alignment_decides():
    assembly = assembled(MRC, PPI, PEI.but(frame_of_reference_uid="2.25.401"))
    assert assembly.chosen is not None
    assert [warning.reason for warning in assembly.chosen.warnings] == [Reason.FOR_DIFFERS]
    assert assembly.chosen.warnings[0].series_instance_uid == PEI.series_uid


@pytest.mark.parametrize(("frame", "reason"), [("2.25.400", Reason.PARTNER_MISSING), ("2.25.9", Reason.FOR_DIFFERS)])
def test_volumes_that_do_not_touch_are_no_set(frame, reason):
    far = {"center_mm": (0.0, 0.0, 200.0), "frame_of_reference_uid": frame}
    assert reason_of(assembled(MRC, HYDROPS.but(**far))) is reason


def test_of_two_repeats_the_latest_is_taken_and_recorded():
    repeat = MRC.but(name="MRC again", time="110000")
    assembly = assembled(MRC, repeat, PPI, PEI)
    assert assembly.chosen is not None
    assert assembly.chosen.mrc.series_instance_uid == repeat.series_uid
    assert [warning.reason for warning in assembly.chosen.warnings] == [Reason.AMBIGUOUS]
    assert "another MRC series" in reasons_left_out(assembly)[MRC.series_uid]


def test_a_later_repeat_in_another_frame_of_reference_loses_to_the_earlier_one():
    repeat = MRC.but(name="MRC again", time="110000", frame_of_reference_uid="2.25.401")
    assembly = assembled(MRC, repeat, PPI, PEI)
    assert assembly.chosen is not None
    assert assembly.chosen.mrc.series_instance_uid == MRC.series_uid


def test_a_later_aborted_repeat_loses_to_the_whole_one():
    repeat = PPI.but(name="PPI again", time="110000", shape=(5, 6, 5))
    assembly = assembled(MRC, PPI, repeat, PEI)
    assert assembly.chosen is not None
    assert assembly.chosen.series[SeriesRole.PPI].series_instance_uid == PPI.series_uid


def test_twins_that_nothing_tells_apart_are_ambiguous():
    assert reason_of(assembled(MRC, MRC.but(name="MRC copy"), PPI, PEI)) is Reason.AMBIGUOUS


def test_a_gap_in_one_of_the_pair_falls_back_to_the_subtraction_and_says_why():
    datasets = data_sets(PEI)
    del datasets[3]
    assembly = assembled(MRC, PPI, read_series_header(datasets), HYDROPS)
    assert chosen_roles(assembly) == {SeriesRole.MRC, SeriesRole.HYDROPS}
    assert reasons_left_out(assembly)[PEI.series_uid].startswith("SLICE_GAP")


def test_a_gap_without_fall_back_is_the_refusal_of_the_study():
    datasets = data_sets(MRC)
    del datasets[3]
    assembly = assembled(read_series_header(datasets), PPI, PEI)
    assert reason_of(assembly) is Reason.SLICE_GAP
    assert assembly.refusal is not None
    assert assembly.refusal.series_instance_uid == MRC.series_uid


def test_lossy_images_are_refused():
    datasets = data_sets(MRC)
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = JPEG2000
    assert reason_of(assembled(read_series_header(datasets), PPI, PEI)) is Reason.LOSSY


def test_one_image_in_two_series_is_a_conflict():
    datasets = data_sets(PEI)
    datasets[2].SOPInstanceUID = data_sets(PPI)[2].SOPInstanceUID
    assert reason_of(assembled(MRC, PPI, read_series_header(datasets))) is Reason.CONFLICT


def test_a_series_larger_than_allowed_is_refused_and_leaves_others_alone():
    headers = [header_of(scan) for scan in (MRC, PPI, PEI.but(shape=(30, 6, 5)), HYDROPS)]
    assembly = assemble(headers, RULES, max_frames_per_series=20)
    assert chosen_roles(assembly) == {SeriesRole.MRC, SeriesRole.HYDROPS}
    assert reasons_left_out(assembly)[PEI.series_uid].startswith("SIZE_LIMIT")


def test_a_study_of_more_series_than_allowed_is_refused():
    headers = [header_of(LOCALIZER.but(name=f"localizer {number}")) for number in range(4)]
    assert reason_of(assemble(headers, RULES, max_series_per_study=3)) is Reason.SIZE_LIMIT


def test_series_measured_on_two_days_are_not_paired():
    other_day = PPI.with_attributes(AcquisitionDate="20260105"), PEI.with_attributes(AcquisitionDate="20260105")
    assert reason_of(assembled(MRC, *other_day)) is Reason.PARTNER_MISSING


def test_a_subtraction_dated_by_the_workstation_days_later_is_paired():
    assert SeriesRole.HYDROPS in chosen_roles(assembled(MRC, HYDROPS.with_attributes(AcquisitionDate="20260105")))


def test_series_of_two_studies_are_never_paired():
    with pytest.raises(ValueError, match="one study"):
        assembled(MRC, PPI.but(study_uid="2.25.101"), PEI)


def test_different_orientation_of_the_partner_is_allowed_because_it_is_resampled():
    assert SeriesRole.HYDROPS in chosen_roles(assembled(MRC, HYDROPS.but(orientation=CORONAL)))


@pytest.mark.parametrize("real_first", [True, False])
def test_of_a_mixed_series_only_the_meant_planes_are_in_the_set(real_first):
    real, magnitude = data_sets(REAL_IR), data_sets(REAL_IR.but(name="m", image_type=("ORIGINAL", "PRIMARY", "M")))
    for dataset in magnitude:
        dataset.SeriesInstanceUID = REAL_IR.series_uid
    both = [*real, *magnitude] if real_first else [*magnitude, *real]
    assembly = assembled(MRC, read_series_header(both))
    assert assembly.chosen is not None
    part = assembly.chosen.series[SeriesRole.REAL_IR]
    assert set(part.sop_instance_uids) == {str(dataset.SOPInstanceUID) for dataset in real}
