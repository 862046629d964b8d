"""Roles: physics decides, site rules and names only where physics leaves it open, and every decision says why."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from scanned_series import (
    HYDROPS,
    HYDROPS_MI2,
    MRC,
    PEI,
    PPI,
    REAL_IR,
    Scan,
    data_sets,
    enhanced_data_set,
    header_of,
    uid_of,
)

from dicom_node.assembly.classification import SeriesRules, classify, classify_study, read_rules
from dicom_node.assembly.headers import SeriesRole, read_series_header
from dicom_node.cli.wiring import USUAL_RULES, load_settings, series_rules
from dicom_node.errors import ConfigError, Reason

RULES_FILE = Path(__file__).parents[3] / "config" / "series_rules.toml"
NO_RULES = SeriesRules()


@pytest.fixture(scope="module")
def rules() -> SeriesRules:
    return read_rules(RULES_FILE.read_text(encoding="utf-8"))


PROTOCOL = {
    SeriesRole.MRC: MRC,
    SeriesRole.PPI: PPI,
    SeriesRole.PEI: PEI,
    SeriesRole.REAL_IR: REAL_IR,
    SeriesRole.HYDROPS: HYDROPS,
    SeriesRole.HYDROPS_MI2: HYDROPS_MI2,
}
MEASURED = [SeriesRole.MRC, SeriesRole.PPI, SeriesRole.PEI, SeriesRole.REAL_IR]
FLAIR = Scan(name="3D FLAIR", repetition_time_ms=6000.0, echo_time_ms=134.0, inversion_time_ms=2240.0)
CISS = Scan(name="t2_ci3d_tra", repetition_time_ms=6.4, echo_time_ms=2.6).with_attributes(ScanningSequence="GR")


@pytest.mark.parametrize("role", PROTOCOL)
def test_every_series_of_the_protocol_gets_its_role(rules, role):
    decision = classify(header_of(PROTOCOL[role]), rules)
    assert decision.role is role
    assert decision.rule
    assert len(decision.reason) > 20


@pytest.mark.parametrize("role", MEASURED)
def test_measured_series_need_no_name_and_no_rules(role):
    assert classify(header_of(PROTOCOL[role].with_attributes(SeriesDescription="")), NO_RULES).role is role


@pytest.mark.parametrize("role", MEASURED)
@settings(max_examples=50, deadline=None)
@given(name=st.sampled_from(["HYDROPS", "MRC", "PPI", "PEI", "HYDROPS-Mi2", "3D real IR", "localizer", "三次元"]))
def test_no_name_ever_beats_physics(role, name):
    rules = read_rules(RULES_FILE.read_text(encoding="utf-8"))
    assert classify(header_of(PROTOCOL[role].with_attributes(SeriesDescription=name)), rules).role is role


def test_a_swapped_name_is_mentioned_in_the_reason(rules):
    decision = classify(header_of(MRC.with_attributes(SeriesDescription="HYDROPS")), rules)
    assert decision.role is SeriesRole.MRC
    assert "reads like HYDROPS, which was not believed" in decision.reason


def test_a_subtraction_named_mrc_stays_hydrops(rules):
    decision = classify(header_of(HYDROPS.with_attributes(SeriesDescription="MRC")), rules)
    assert decision.role is SeriesRole.HYDROPS


@pytest.mark.parametrize("role", MEASURED)
def test_enhanced_images_get_the_same_roles(rules, role):
    assert classify(read_series_header([enhanced_data_set(PROTOCOL[role])]), rules).role is role


def test_a_short_echo_space_protocol_is_a_cisternogram(rules):
    assert classify(header_of(MRC.but(repetition_time_ms=1000.0, echo_time_ms=133.0)), rules).role is SeriesRole.MRC


@pytest.mark.parametrize(("time", "role"), [(2700.0, SeriesRole.PPI), (2500.0, SeriesRole.PEI)])
def test_the_improved_pair_with_longer_repetition_time_is_told_apart(rules, time, role):
    scan = PPI.but(repetition_time_ms=16000.0, inversion_time_ms=time)
    assert classify(header_of(scan), rules).role is role


def test_in_a_study_the_longer_of_two_inversion_times_is_ppi_whatever_they_are(rules):
    long, short = PPI.but(name="a", inversion_time_ms=2120.0), PEI.but(name="b", inversion_time_ms=1900.0)
    roles = [decision.role for decision in classify_study([header_of(short), header_of(long)], rules)]
    assert roles == [SeriesRole.PEI, SeriesRole.PPI]


def test_a_lone_series_between_the_two_inversion_times_is_not_guessed(rules):
    decision = classify(header_of(PPI.but(inversion_time_ms=2150.0)), rules)
    assert (decision.role, decision.doubt) == (SeriesRole.OTHER, Reason.ROLE_UNSURE)


@pytest.mark.parametrize("name", ["PPI", "hT2 FLAIR 2250"])
def test_inversion_recovery_without_inversion_time_is_not_guessed_from_its_name(rules, name):
    scan = PPI.but(name=name, inversion_time_ms=None).with_attributes(ScanningSequence=["SE", "IR"])
    decision = classify(header_of(scan), rules)
    assert (decision.role, decision.doubt) == (SeriesRole.OTHER, Reason.ROLE_UNSURE)
    assert decision.rule == "inversion-time-missing"


def test_a_site_rule_may_say_what_a_series_without_inversion_time_is():
    rules = read_rules(SITE_RULE)
    scan = PPI.but(inversion_time_ms=None).with_attributes(ScanningSequence=["SE", "IR"], ProtocolName="ear_ppi_v3")
    decision = classify(header_of(scan), rules)
    assert (decision.role, decision.rule) == (SeriesRole.PPI, "our PPI")


def test_a_site_rule_cannot_turn_a_localizer_into_an_input():
    rules = read_rules(SITE_RULE)
    scan = PPI.but(image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), inversion_time_ms=None)
    assert classify(header_of(scan.with_attributes(ProtocolName="ear_ppi_v3")), rules).role is SeriesRole.OTHER


@pytest.mark.parametrize(
    ("scan", "rule"),
    [
        (MRC.but(image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), dimension="2D"), "localizer"),
        (MRC.but(image_type=("DERIVED", "SECONDARY", "MPR", "CSA MPR")), "projection"),
        (HYDROPS.but(image_type=("DERIVED", "SECONDARY", "PROJECTION IMAGE", "MIP")), "projection"),
        (MRC.but(image_type=("ORIGINAL", "PRIMARY", "P", "ND")), "phase"),
        (MRC.with_attributes(DiffusionBValue=1000.0), "diffusion"),
        (MRC.but(image_type=("DERIVED", "SECONDARY", "SCREEN SAVE")), "screen-capture"),
        (MRC.with_attributes(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), "not-an-mr-image"),
        (MRC.with_attributes(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", Modality="SEG"), "not-an-mr-image"),
        (MRC.but(dimension="2D"), "two-dimensional"),
        (MRC.with_attributes(BodyPartExamined="ABDOMEN"), "other-body-part"),
        (MRC.but(spacing_mm=(1.0, 1.0, 1.0)), "no-known-contrast"),
        (FLAIR, "no-known-contrast"),
        (PPI.but(inversion_time_ms=160.0), "no-known-contrast"),
        (MRC.but(repetition_time_ms=500.0, echo_time_ms=10.0), "no-known-contrast"),
    ],
)
def test_what_is_not_an_input_is_other_and_says_why(rules, scan, rule):
    decision = classify(header_of(scan), rules)
    assert (decision.role, decision.rule, decision.doubt) == (SeriesRole.OTHER, rule, None)


def test_derived_images_are_not_excluded_because_hydrops_is_one(rules):
    scan = HYDROPS.but(image_type=("DERIVED", "SECONDARY", "OTHER"))
    assert classify(header_of(scan), rules).role is SeriesRole.HYDROPS


def test_a_computed_image_that_nothing_names_is_unsure(rules):
    scan = HYDROPS.but(image_type=("DERIVED", "SECONDARY", "OTHER")).with_attributes(SeriesDescription="result 1")
    decision = classify(header_of(scan), rules)
    assert (decision.role, decision.doubt) == (SeriesRole.OTHER, Reason.ROLE_UNSURE)


@pytest.mark.parametrize(
    ("sources", "role"),
    [
        ((PPI, PEI), SeriesRole.HYDROPS),
        ((PPI, PEI, MRC), SeriesRole.HYDROPS_MI2),
        ((HYDROPS.but(name="not in the study"), MRC), SeriesRole.HYDROPS_MI2),
    ],
)
def test_named_sources_tell_hydrops_from_its_product_with_the_cisternogram(rules, sources, role):
    wrong_name = "HYDROPS" if role is SeriesRole.HYDROPS_MI2 else "HYDROPS-Mi2"
    computed = data_sets(HYDROPS_MI2.with_attributes(SeriesDescription=wrong_name))
    for k, dataset in enumerate(computed):
        dataset.SourceImageSequence = [
            _reference(uid_of(f"{source.name} {source.study_uid} {k}")) for source in sources
        ]
    headers = [*map(header_of, (MRC, PPI, PEI)), read_series_header(computed)]
    assert classify_study(headers, rules)[3].role is role


def _reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPInstanceUID = uid
    return item


@pytest.mark.parametrize("real_first", [True, False])
def test_a_series_with_magnitude_and_real_part_is_real_inversion_recovery(rules, real_first):
    real, magnitude = data_sets(REAL_IR), data_sets(REAL_IR.but(name="m", image_type=("ORIGINAL", "PRIMARY", "M")))
    for dataset in magnitude:
        dataset.SeriesInstanceUID = REAL_IR.series_uid
    header = read_series_header([*real, *magnitude] if real_first else [*magnitude, *real])
    assert classify(header, rules).role is SeriesRole.REAL_IR


def test_a_fine_gradient_echo_is_a_cisternogram_only_if_its_name_says_balanced(rules):
    assert classify(header_of(CISS), rules).role is SeriesRole.MRC
    assert classify(header_of(CISS.but(name="t1_vibe_tra")), rules).role is SeriesRole.OTHER


def test_without_echo_and_repetition_time_nothing_is_guessed(rules):
    decision = classify(header_of(MRC.but(repetition_time_ms=None, echo_time_ms=None)), rules)
    assert (decision.role, decision.doubt) == (SeriesRole.OTHER, Reason.ROLE_UNSURE)


@settings(max_examples=50, deadline=None)
@given(
    tr=st.none() | st.floats(0, 30000),
    te=st.none() | st.floats(0, 1000),
    ti=st.none() | st.floats(0, 5000),
    kind=st.sampled_from([("ORIGINAL", "PRIMARY", "M"), ("DERIVED", "SECONDARY", "OTHER"), ("ORIGINAL",), ()]),
    name=st.sampled_from(["MRC", "HYDROPS", "", "PPI"]),
)
def test_every_series_gets_exactly_one_explained_decision(tr, te, ti, kind, name):
    rules = read_rules(RULES_FILE.read_text(encoding="utf-8"))
    scan = MRC.but(name=name, repetition_time_ms=tr, echo_time_ms=te, inversion_time_ms=ti, image_type=kind)
    decision = classify(header_of(scan), rules)
    assert decision.rule
    assert decision.reason
    assert decision.doubt is None or decision.role is SeriesRole.OTHER


SITE_RULE = """
[[rule]]
name = "our PPI"
role = "PPI"
when = { inversion_time_ms = { missing = true }, protocol_name = { pattern = "^ear_ppi_v[0-9]+$" } }
examples = [{ protocol_name = "ear_ppi_v3" }]
counterexamples = [{ protocol_name = "ear_pei_v3" }, { protocol_name = "ear_ppi_v3", inversion_time_ms = 2250.0 }]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('role = "PPI"', 'role = "PIP"', "role must be one of"),
        ("inversion_time_ms = { missing", "inversion_tiem_ms = { missing", "unknown field"),
        (
            "inversion_time_ms = { missing",
            "inversion_tiem_ms = { missing",
            r"unknown field \(did you mean `inversion_time_ms`\?\); known here: acquisition_3d, ",
        ),
        ("^ear_ppi_v[0-9]+$", "ear_(", "not a regular expression"),
        ('examples = [{ protocol_name = "ear_ppi_v3" }]', 'examples = [{ protocol_name = "x" }]', "does not match"),
        ('_v3", inversion_time_ms = 2250.0', '_v4"', "counterexample 2 matches"),
        ("counterexamples = [", "others = [", "unknown key 'others'"),
        ("missing = true", "missing = false", "missing must be true"),
        ("when = {", "when = 3 #", "expected a table"),
        ("[[rule]]", "[[rules]]", "unknown key 'rules'"),
        ("[[rule]]", "[[rules]]", r"unknown key 'rules' \(did you mean `rule`\?\); known here: names, rule"),
        ("[[rule]]", "[[rule]", "not readable as TOML"),
        ('name = "our PPI"', "", "needs a name"),
    ],
)
def test_a_rule_that_is_wrong_is_refused_by_name(old, new, message):
    assert old in SITE_RULE
    with pytest.raises(ConfigError, match=message):
        read_rules(SITE_RULE.replace(old, new, 1))


def test_the_first_matching_site_rule_wins():
    second = SITE_RULE.replace("our PPI", "later").replace('role = "PPI"', 'role = "PEI"')
    scan = PPI.but(inversion_time_ms=None).with_attributes(ScanningSequence=["SE", "IR"], ProtocolName="ear_ppi_v3")
    assert classify(header_of(scan), read_rules(SITE_RULE + second)).role is SeriesRole.PPI
    assert classify(header_of(scan), read_rules(second + SITE_RULE)).role is SeriesRole.PEI


HEADERS = {role: header_of(scan) for role, scan in PROTOCOL.items()}


@settings(max_examples=50, deadline=None)
@given(st.permutations(list(HEADERS.values())))
def test_roles_do_not_depend_on_the_order_of_arrival(headers):
    decisions = classify_study(headers, read_rules(RULES_FILE.read_text(encoding="utf-8")))
    assert {d.series_instance_uid: d.role for d in decisions} == {s.series_uid: r for r, s in PROTOCOL.items()}


def test_who_has_no_configuration_goes_by_the_shipped_rules_and_names():
    assert USUAL_RULES.read_bytes() == RULES_FILE.read_bytes()
    rules = series_rules(load_settings(None), from_file=False)
    assert rules == read_rules(RULES_FILE.read_text(encoding="utf-8"))
    assert classify(header_of(HYDROPS_MI2), rules).role is SeriesRole.HYDROPS_MI2
