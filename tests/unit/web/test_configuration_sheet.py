"""The form writes what was entered and touches nothing else: comments, order and spelling stay."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.web.configuration_desk import ConfigurationTexts
from dicom_node.web.configuration_sheet import ROWS, Row, SheetError, read_sheet, write_sheet

SETTINGS = """\
# The ear clinic's node. Ask radiology IT before a change.
[node]
ae_title = "HYDROPS"   # as in the PACS

[listener]
port = 11112
# scanners
allowed = [{ ae_title = "MR_SKYRA", networks = ["10.1.2.0/24"] }]  # 3 T

[[destinations]]
name = "pacs"          # the archive
kind = "dicom"
host = "10.1.2.3"
port = 104
called_ae = "PACS"
tls_name = "pacs.example"

# Retries, as agreed with the archive's people
[delivery]
max_retry_s = 600.0
"""
RULES = """\
[[rule]]
name = "averages"
role = "OTHER"
when = { sequence_name = { pattern = "medic" } }
examples = [{ sequence_name = "medic" }]
counterexamples = [{ sequence_name = "spc" }]

# How people name the roles
[names]
MRC = "mrc"
"""
TEXTS = ConfigurationTexts(settings=SETTINGS, rules=RULES)


def new_row(table: str, **values: str) -> Row:
    return Row(values={kind.key: kind.absent for kind in ROWS[table]} | values)


def test_a_form_that_nobody_touched_writes_the_very_same_files() -> None:
    assert write_sheet(TEXTS, read_sheet(TEXTS)) == TEXTS


def test_one_changed_field_changes_one_line() -> None:
    sheet = read_sheet(TEXTS)
    sheet.scalars["listener.port"] = "104"
    sheet.rows["destinations"][0].values["host"] = "10.1.2.4"
    written = write_sheet(TEXTS, sheet)
    old, new = SETTINGS.splitlines(), written.settings.splitlines()
    assert [(a, b) for a, b in zip(old, new, strict=True) if a != b] == [
        ("port = 11112", "port = 104"),
        ('host = "10.1.2.3"', 'host = "10.1.2.4"'),
    ]
    assert written.rules == RULES


def test_senders_are_added_and_removed_in_the_notation_of_the_file() -> None:
    sheet = read_sheet(TEXTS)
    sheet.rows["peers"].append(new_row("peers", ae_title="MR_VIDA", networks="10.1.3.0/24, 10.1.4.7/32"))
    written = write_sheet(TEXTS, sheet)
    assert tomllib.loads(written.settings)["listener"]["allowed"] == [
        {"ae_title": "MR_SKYRA", "networks": ["10.1.2.0/24"]},
        {"ae_title": "MR_VIDA", "networks": ["10.1.3.0/24", "10.1.4.7/32"]},
    ]
    assert "# 3 T" in written.settings
    again = read_sheet(written)
    del again.rows["peers"][0]
    assert [one["ae_title"] for one in tomllib.loads(write_sheet(written, again).settings)["listener"]["allowed"]] == [
        "MR_VIDA"
    ]


def test_a_row_whose_entry_somebody_removed_meanwhile_is_a_new_one() -> None:
    sheet = read_sheet(TEXTS)
    sheet.rows["peers"].append(Row(values=new_row("peers", ae_title="MR_VIDA").values, origin=7))
    written = tomllib.loads(write_sheet(TEXTS, sheet).settings)["listener"]["allowed"]
    assert [one["ae_title"] for one in written] == ["MR_SKYRA", "MR_VIDA"]


def test_a_list_written_as_tables_stays_one() -> None:
    tables = ConfigurationTexts(settings='[[listener.allowed]]\nae_title = "A"\nnetworks = ["10.0.0.0/8"]\n', rules="")
    sheet = read_sheet(tables)
    sheet.rows["peers"].append(new_row("peers", ae_title="B", networks="10.0.0.0/8"))
    assert write_sheet(tables, sheet).settings.count("[[listener.allowed]]") == 2


def test_the_first_entries_of_an_empty_file_are_written() -> None:
    empty = ConfigurationTexts(settings="", rules="")
    sheet = read_sheet(empty)
    sheet.rows["peers"].append(new_row("peers", ae_title="A", networks="10.0.0.0/8"))
    sheet.rows["destinations"].append(new_row("destinations", name="pacs", kind="orthanc", url="http://h"))
    written = tomllib.loads(write_sheet(empty, sheet).settings)
    assert written["listener"]["allowed"] == [{"ae_title": "A", "networks": ["10.0.0.0/8"]}]
    assert written["destinations"] == [{"name": "pacs", "kind": "orthanc", "url": "http://h"}]


def test_comments_behind_a_list_stay_in_front_of_what_they_explain() -> None:
    sheet = read_sheet(TEXTS)
    sheet.rows["destinations"].append(new_row("destinations", name="viewer", kind="orthanc", url="http://h"))
    rule = {"name": "ours", "role": "PPI", "when": '{ protocol_name = { pattern = "^ear" } }'}
    examples = {"examples": '[{ protocol_name = "ear" }]', "counterexamples": '[{ protocol_name = "leg" }]'}
    sheet.rows["rules"].append(new_row("rules", **rule, **examples))
    written = write_sheet(TEXTS, sheet)
    assert "# Retries, as agreed with the archive's people\n[delivery]" in written.settings
    assert "# How people name the roles\n[names]" in written.rules
    assert tomllib.loads(written.rules)["rule"][1]["examples"] == [{"protocol_name": "ear"}]
    again = read_sheet(written)
    del again.rows["destinations"][1], again.rows["rules"][1]
    removed = write_sheet(written, again)
    assert "# Retries, as agreed with the archive's people\n[delivery]" in removed.settings
    assert "# How people name the roles\n[names]" in removed.rules
    assert tomllib.loads(removed.settings) == tomllib.loads(SETTINGS)


def test_keys_that_the_form_does_not_show_are_kept() -> None:
    sheet = read_sheet(TEXTS)
    sheet.rows["destinations"][0].values["timeout_s"] = "5"
    written = tomllib.loads(write_sheet(TEXTS, sheet).settings)["destinations"][0]
    assert written["tls_name"] == "pacs.example"
    assert written["timeout_s"] == 5.0


@pytest.mark.parametrize(
    ("table", "key", "entered", "words"),
    [
        ("destinations", "port", "one hundred", "expected a whole number"),
        ("destinations", "timeout_s", "", "expected a number"),
        ("rules", "when", "{ a = ", "not readable as TOML"),
        ("rules", "examples", "1\n[names]\nMRC = '.*'", "not readable as TOML"),
    ],
)
def test_what_cannot_be_written_is_told_beside_its_field(table: str, key: str, entered: str, words: str) -> None:
    sheet = read_sheet(TEXTS)
    sheet.rows[table][0].values[key] = entered
    with pytest.raises(SheetError) as refused:
        write_sheet(TEXTS, sheet)
    (problem,) = refused.value.problems
    assert problem.key == f"{ {'destinations': 'destinations', 'rules': 'rule'}[table] }[0].{key}"
    assert words in problem.sentence


def test_a_file_that_is_no_toml_cannot_be_shown_as_a_form() -> None:
    with pytest.raises(SheetError, match="not readable as TOML"):
        read_sheet(ConfigurationTexts(settings="[node\n", rules=""))


TEXT = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=40)


@given(title=TEXT, host=TEXT)
def test_whatever_is_entered_stays_a_value_and_becomes_nothing_else(title: str, host: str) -> None:
    sheet = read_sheet(TEXTS)
    sheet.rows["peers"].append(new_row("peers", ae_title=title, networks="10.0.0.0/8"))
    sheet.rows["destinations"][0].values["host"] = host
    written = tomllib.loads(write_sheet(TEXTS, sheet).settings)
    expected = tomllib.loads(SETTINGS)
    if title.strip():
        expected["listener"]["allowed"].append({"ae_title": title, "networks": ["10.0.0.0/8"]})
        assert written["listener"] == expected["listener"]
    if host.strip():
        expected["destinations"][0]["host"] = host
        assert written["destinations"] == expected["destinations"]
    assert written["node"] == expected["node"]
