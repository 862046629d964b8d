"""Edits of a configuration file that an operator regrets: what the node must say of each, and the edit."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

BASIS: Final = """[node]
ae_title = "HYDROPS"
[listener]
port = 11112
max_associations = 10
allowed = [{ ae_title = "SCANNER", networks = ["127.0.0.0/8"] }]
[delivery]
max_retry_s = 600.0
[[destinations]]
name = "pacs"
kind = "dicom"
host = "10.1.2.3"
port = 104
called_ae = "PACS"
"""

Edit = Callable[[str, Random], str]


def _replaced(old: str, *new: str) -> Edit:
    return lambda text, chance: text.replace(old, chance.choice(new))


MUTANTS: Final[tuple[tuple[tuple[str, ...], Edit], ...]] = (
    (("ae_title",), _replaced('"SCANNER"', '"A_TITLE_OF_17_CHR"', '""', '"back\\\\slash"', '"\\u00c4"', "7")),
    (("ae_title",), _replaced('ae_title = "HYDROPS"', 'ae_title = "LONGER_THAN_SIXTEEN"', "ae_title = 5")),
    (("networks",), _replaced('"127.0.0.0/8"', '"127.0.0.0/33"', '"scanner"', '"300.1.1.1"', '"::1/129"', "8")),
    (("networks",), _replaced('["127.0.0.0/8"]', "[]")),
    (("port",), _replaced("11112", "0", "65536", "-1", '"dicom"', "1.5", "true")),
    (("max_associations",), _replaced("= 10\n", "= 0\n", "= -4\n", '= "ten"\n', "= 1e3\n")),
    (("max_retry_s",), _replaced("600.0", "-1.0", "nan", "inf", '"soon"')),
    (("port",), _replaced("port = 104", "port = 0", "port = 70000", 'port = "104"')),
    (("called_ae",), _replaced('"PACS"', '"A_CALLED_AE_OF_22_CHARS"', '""')),
    (("kind",), _replaced('"dicom"', '"ftp"', '""')),
    (("name",), _replaced('name = "pacs"', 'name = "pa cs"', 'name = ""', 'name = "../x"')),
    (("host",), _replaced('host = "10.1.2.3"', 'host = ""', "host = 10")),
    (("prot", "unknown"), _replaced("port = 11112", "prot = 11112")),
    (("listner", "unknown"), _replaced("[listener]", "[listner]")),
    (("name", "pacs"), lambda text, _: text + text[text.index("[[destinations]]") :]),
    (("TOML", "line"), lambda text, chance: text[: text.index('"SCANNER"') + chance.randint(1, 6)]),
    (("TOML", "line"), lambda text, chance: text + chance.choice(("[[", "a = ", 'b = "', "= 3", "[x", "\x00"))),
)
"""(words of which one must be in what is told, the edit)."""
