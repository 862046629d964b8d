"""The card index on a real SQLite file and, where it is installed, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from desk_parts import DeskParts, hydrops_study
from local_postgresql import programs, running_postgresql
from mr_sources import oblique_grid, study_findings
from pydicom.dataset import Dataset
from sqlalchemy import Engine, text

from dicom_node.database import open_database
from dicom_node.ledger import Ledger, StudyEvent, StudyState
from dicom_node.study_cards import (
    MAX_CHARACTERS,
    EarResult,
    StudyCard,
    StudyCards,
    WorkEars,
    card_of,
    ear_results,
    patient_key,
)

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "{{7*7}}${7*7}",
    "=cmd|'/c calc'!A1",
    "line\r\n2026-11-22 ERROR forged",
    "abc\u202edcba",
    "Robert'); DROP TABLE study_card;--",
    "nul\x00byte \ud800 lone surrogate",
    "A" * 100_000,
    "\x1b[2J\x1b[31mred",
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        opened = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    else:
        if programs() is None:
            pytest.skip("PostgreSQL is not installed")
        opened = open_database(request.getfixturevalue("server"))
        with opened.begin() as connection:
            connection.execute(text("TRUNCATE study_card, ear_result, ledger_studies, ledger_events"))
    yield opened
    opened.dispose()


def header(**values: str) -> Dataset:
    """A header that says these values and nothing else."""
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def as_read(source: Dataset) -> Dataset:
    """The header as it comes from a file: bytes that nobody has decoded yet."""
    buffer = pydicom.filebase.DicomBytesIO()
    pydicom.dcmwrite(buffer, source, implicit_vr=False, little_endian=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer, force=True)


def card(uid: str = "1.2.3", **values: str) -> StudyCard:
    return card_of(uid, header(**values))


def result(**values: object) -> EarResult:
    given = {
        "study_instance_uid": "1.2.3", "work_id": "w1", "side": "right", "ratio": 0.2713, "low": 0.22, "high": 0.33,
        "total_fluid_mm3": 183.4, "endolymph_mm3": 49.7, "quality": ("MOTION",), "model": "ear 1.0", "scanner": "A",
        "study_date": "20260101", "computed_at": 100.0, "seconds": 9.5,
    }  # fmt: skip
    return EarResult(**(given | values))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_stored_as_one_line_of_plain_text_and_found_again(engine: Engine, name: str) -> None:
    cards, ledger = StudyCards(engine), Ledger(engine)
    source = Dataset()
    source.add_new("PatientID", "LO", "P1")
    source.PatientName = name
    source.StudyDescription = name
    made = card_of("1.2.3", source)
    ledger.arrived("1.2.3", revision=1, at=1.0)
    cards.put(made)
    assert cards.get("1.2.3") == made
    assert len(made.patient_name) <= MAX_CHARACTERS
    assert not any(ord(char) < 32 or char in "\u202e\u2028" for char in made.patient_name + made.description)
    assert [one.study_instance_uid for one in cards.search(made.description[:40])] == ["1.2.3"]


def test_names_are_decoded_from_the_character_set_of_the_header() -> None:
    source = header(SpecificCharacterSet="\\ISO 2022 IR 87", PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")
    assert card_of("1", as_read(source)).patient_name == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert card_of("1", as_read(source)).written_name == "山田 太郎 (Yamada, Tarou)"


def test_bytes_in_no_declared_character_set_are_shown_and_never_raise() -> None:
    source = Dataset()
    source.add_new("PatientName", "UN", b"M\xfcller^J\xf6rg")
    assert card_of("1", source).patient_name == "M[FC]ller^J[F6]rg"


def test_a_header_without_anything_gives_an_empty_card_without_a_history(engine: Engine) -> None:
    cards = StudyCards(engine)
    cards.put(card("1"))
    cards.put(card("2"))
    assert (card("1").patient_key, card("1").written_name) == ("", "")
    assert cards.of_patient("") == []


def test_a_patient_is_id_issuer_and_birth_date_and_not_the_spelling_of_the_name() -> None:
    key = patient_key("P1", "HOSPITAL", "19600101")
    assert card(PatientID="P1", IssuerOfPatientID="HOSPITAL", PatientBirthDate="19600101").patient_key == key
    married = card(PatientID="P1", IssuerOfPatientID="HOSPITAL", PatientBirthDate="19600101", PatientName="Other")
    assert married.patient_key == key
    assert (
        len({key, patient_key("P1", "", "19600101"), patient_key("P1", "HOSPITAL", ""), patient_key("P", "1", "")}) == 4
    )


def test_a_patients_studies_come_oldest_first(engine: Engine) -> None:
    cards = StudyCards(engine)
    for uid, date in (("1.1", "20260301"), ("1.2", "20250301"), ("1.3", "20240301")):
        cards.put(card(uid, PatientID="P1", StudyDate=date))
    cards.put(card("1.4", PatientID="P2", StudyDate="20230301"))
    assert [one.study_instance_uid for one in cards.of_patient(patient_key("P1", "", ""))] == ["1.3", "1.2", "1.1"]


def test_a_later_card_of_the_same_study_replaces_the_earlier_one(engine: Engine) -> None:
    cards = StudyCards(engine)
    cards.put(card(PatientName="Wrong^Name"))
    cards.put(card(PatientName="Right^Name"))
    kept = cards.get("1.2.3")
    assert kept is not None
    assert kept.patient_name == "Right^Name"


def test_a_search_joins_words_states_and_pages(engine: Engine) -> None:
    cards, ledger = StudyCards(engine), Ledger(engine)
    for number in range(5):
        uid = f"1.2.{number}"
        ledger.arrived(uid, revision=1, at=float(number))
        cards.put(card(uid, PatientName="MÜLLER^Jörg", PatientID=f"ID_{number}", StudyDate="20260102"))
    ledger.arrived("1.9.9", revision=1, at=9.0)
    ledger.move("1.2.3", StudyEvent.FAILED, at=20.0, reason="INTERNAL")
    assert [one.study_instance_uid for one in cards.search("jörg müller", limit=2)] == ["1.2.3", "1.2.4"]
    assert [one.study_instance_uid for one in cards.search("müller", limit=2, offset=2)] == ["1.2.2", "1.2.1"]
    assert [one.study_instance_uid for one in cards.search("id_2 2026-01-02")] == ["1.2.2"]
    assert [one.reason for one in cards.search(state=StudyState.FAILED)] == ["INTERNAL"]
    assert [one.card for one in cards.search("1.9.9")] == [None]
    assert (sum(cards.counts("müller").values()), sum(cards.counts().values())) == (5, 6)
    assert cards.counts()[StudyState.WAITING] == 5
    assert cards.search("_________") == cards.search("%") == []


def test_results_come_back_as_they_were_put_and_the_first_of_a_work_stays(engine: Engine) -> None:
    cards = StudyCards(engine)
    left = result(side="left", ratio=None, low=None, high=None, total_fluid_mm3=None, endolymph_mm3=None, quality=())
    cards.put_results([result(), left])
    cards.put_results([result(ratio=0.9)])
    assert cards.results_of_studies(["1.2.3", "none"]) == [result(), left]


def test_the_ears_of_a_work_are_its_ratios_and_remarks(engine: Engine) -> None:
    cards = StudyCards(engine)
    cards.put_results([result(work_id="a", computed_at=10.0)])
    unmeasured = result(work_id="b", side="left", ratio=None, low=None, high=None, computed_at=20.0, quality=("DARK",))
    cards.put_results([result(work_id="b", ratio=0.2, computed_at=20.0, scanner="B", quality=()), unmeasured])
    cards.put_results([result(work_id="c", ratio=0.3, computed_at=30.0, quality=())])
    with engine.connect() as connection:
        found = cards.ears_of(["b", "c", "d"], within=connection)
    assert found == {
        "b": WorkEars(scanner="B", ratios=[0.2], is_flagged=True),
        "c": WorkEars(scanner=result().scanner, ratios=[0.3], is_flagged=False),
    }


def test_scanners_are_told_of_the_studies_that_are_asked_for(engine: Engine) -> None:
    cards = StudyCards(engine)
    cards.put(card("1.2.3", StationName="MR1"))
    cards.put(card("1.2.4", StationName="MR2"))
    with engine.connect() as connection:
        found = cards.scanners(["1.9.1", "1.2.3"], within=connection)
    assert {uid: "MR1" in scanner for uid, scanner in found.items()} == {"1.2.3": True}


def test_what_the_index_keeps_of_findings_is_their_numbers_and_codes() -> None:
    findings = study_findings(oblique_grid())
    kept = ear_results("work", card(StudyDate="20260102"), findings, at=5.0)
    for one, ear in zip(kept, findings.ears.values(), strict=True):
        assert ear.ratio is not None
        assert (one.side, one.ratio, one.endolymph_mm3) == (ear.side, ear.ratio.value, ear.ratio.endolymph_mm3)
        assert set(one.quality) >= {flag.code for flag in ear.quality}


def test_an_examined_study_has_its_card_even_if_it_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = DeskParts(tmp_path)
    images = hydrops_study()
    for one in images:
        one.PatientName = "Secret^Person"
        one.PatientID = "SECRET-1"
    caplog.set_level("DEBUG")
    parts.receive(images)
    parts.work_off()
    (listed,) = parts.cards.search("secret")
    assert listed.state is StudyState.REFUSED
    assert listed.card is not None
    assert listed.card.written_name == "Secret, Person"
    assert "secret" not in caplog.text.casefold()
    with parts.engine.connect() as connection:
        assert parts.cards.ears_of([listed.work_id], within=connection) == {}
