import pytest
from mr_sources import classic_series, oblique_grid

from dicom_node.encoding.patient_module import inherit_lossiness, inherit_modules
from dicom_node.errors import Reason, RejectedStudy

GRID = oblique_grid(shape=(1, 8, 8))


def header(**values):
    return classic_series(GRID, **values)[0]


KOREAN = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"
JAPANESE = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
HALF_WIDTH = b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J"
EQUALS_INSIDE_KANJI = b"Shu^Ju=\x1b$B=(\x1b(B^\x1b$B==\x1b(B"
SUPPLEMENTARY_KANJI = b"A^B=\x1b$(D\x22\x2f\x1b(B^\x1b$BB@O:\x1b(B"


@pytest.mark.parametrize(
    ("character_set", "raw", "expected"),
    [
        (["", "ISO 2022 IR 149"], KOREAN, "Hong^Gildong=洪^吉洞=홍^길동"),
        (["", "ISO 2022 IR 87"], JAPANESE, "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], HALF_WIDTH, "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎"),
        (["", "ISO 2022 IR 87"], EQUALS_INSIDE_KANJI, "Shu^Ju=秀^十"),
        (["", "ISO 2022 IR 87", "ISO 2022 IR 159"], SUPPLEMENTARY_KANJI, "A^B=˘^太郎"),
        (["ISO_IR 192"], "Wang^XiaoDong=王^小东".encode(), "Wang^XiaoDong=王^小东"),
        (["GB18030"], "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
        (["ISO_IR 100"], "Müller^Jürgen".encode("latin-1"), "Müller^Jürgen"),
    ],
    ids=["korean", "japanese", "half-width", "= inside a kanji", "IR 159", "utf-8", "gb18030", "latin-1"],
)
def test_a_name_in_any_declared_character_set_arrives_as_utf8(character_set, raw, expected):
    clean = inherit_modules(header(SpecificCharacterSet=character_set, PatientName=raw))
    assert str(clean.dataset.PatientName) == expected
    assert clean.dataset.SpecificCharacterSet == "ISO_IR 192"
    assert clean.remarks == ()


@pytest.mark.parametrize(
    ("character_set", "raw", "expected"),
    [
        (["ISO 2022 IR 6", "ISO 2022 IR 149"], "홍^길동".encode("euc_kr"), "홍^길동"),
        (["ISO_IR 999"], "홍^길동".encode(), "홍^길동"),
        ([""], "홍^길동".encode(), "홍^길동"),
        ([""], "길".encode("euc_kr"), "[B1][E6]"),
    ],
    ids=["escapes forgotten", "unknown set", "undeclared utf-8", "undeclared euc-kr"],
)
def test_bytes_outside_the_declared_character_set_are_kept_and_remarked(character_set, raw, expected):
    clean = inherit_modules(header(SpecificCharacterSet=character_set, PatientName=raw))
    assert str(clean.dataset.PatientName) == expected
    assert len(clean.remarks) == 1
    assert "PatientName" in clean.remarks[0]
    assert expected not in clean.remarks[0]


def test_reading_the_name_first_does_not_spoil_it():
    source = header(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=EQUALS_INSIDE_KANJI)
    str(source.PatientName)
    assert str(inherit_modules(source).dataset.PatientName) == "Shu^Ju=秀^十"


def test_missing_type_2_attributes_become_empty_ones():
    names = ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "ReferringPhysicianName")
    clean = inherit_modules(header(drop=names)).dataset
    assert all(name in clean and not clean.get(name) for name in names)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientSex", b"X "),
        ("StudyDate", b"2026-01-01"),
        ("StudyDate", b"20260231"),
        ("StudyTime", b"25:00 "),
        ("PatientBirthDate", b"unknown "),
        ("StudyID", b"a study id of more than sixteen characters"),
        ("PatientAge", b"45  "),
    ],
)
def test_an_illegal_optional_value_is_left_empty_with_a_remark_that_does_not_quote_it(keyword, value):
    clean = inherit_modules(header(**{keyword: value}))
    assert not clean.dataset.get(keyword)
    assert len(clean.remarks) == 1
    assert keyword in clean.remarks[0]
    assert value.decode().strip() not in clean.remarks[0]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientID", b"7" * 80), ("PatientName", b"A" * 4096), ("IssuerOfPatientID", b"B" * 66)],
)
def test_an_identity_that_does_not_fit_its_attribute_is_refused_not_shortened(keyword, value):
    with pytest.raises(RejectedStudy) as rejected:
        inherit_modules(header(**{keyword: value}))
    assert rejected.value.refusal.reason is Reason.TAG_INVALID
    assert keyword in rejected.value.refusal.detail
    assert value.decode()[:10] not in rejected.value.refusal.detail


def test_a_de_identified_study_stays_de_identified():
    clean = inherit_modules(header(PatientIdentityRemoved="YES", PatientID="ANON-1")).dataset
    assert (clean.PatientIdentityRemoved, clean.PatientID) == ("YES", "ANON-1")
    assert clean.DeidentificationMethod


def test_a_source_is_never_changed():
    source = header(SpecificCharacterSet=["", "ISO 2022 IR 149"], PatientName=KOREAN, drop=("PatientSex",))
    inherit_modules(source)
    assert list(source.SpecificCharacterSet) == ["", "ISO 2022 IR 149"]
    assert "PatientSex" not in source


def test_once_lossy_always_lossy():
    clean = inherit_modules(header()).dataset
    inherit_lossiness(clean, [header(), header(LossyImageCompression="01", LossyImageCompressionRatio="10")])
    assert (clean.LossyImageCompression, clean.LossyImageCompressionRatio) == ("01", 10)


def test_an_illegal_study_uid_is_refused():
    with pytest.raises(RejectedStudy, match="StudyInstanceUID"):
        inherit_modules(header(StudyInstanceUID=b"../../etc/passwd"))
