"""Person names as people write them."""

from __future__ import annotations

import pytest

from dicom_node.encoding.person_names import written_name


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("Doe^Jane^A.^Dr.^MSc", "Doe, Dr. Jane A. MSc"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "山田 太郎 (Yamada, Tarou)"),
        ("Hong^Gildong=洪^吉洞=홍^길동", "洪 吉洞 (Hong, Gildong)"),
        ("==やまだ^たろう", "やまだ たろう"),
        ("ONLYFAMILY", "ONLYFAMILY"),
        ("^Given", "Given"),
        ("", ""),
        ("=====", ""),
        ("a^b^c^d^e^f^g", "a, d b c e"),
    ],
)
def test_a_name_is_written_with_its_scripts_and_without_its_delimiters(value: str, written: str) -> None:
    assert written_name(value) == written
