"""Type for pages that carry names in any script: which fonts there are, and whether they can write a text.

DejaVu Sans comes with matplotlib and writes Latin, Greek, Cyrillic, Hebrew and Arabic. Chinese, Japanese and Korean
need a font of the system (Debian: fonts-droid-fallback, fonts-nanum). A text that no font can write in full is not
written at all: a row of empty boxes in a patient's name looks like a name.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

BASE_FAMILY: Final = "DejaVu Sans"

SYSTEM_FONTS: Final = (
    "DroidSansFallbackFull.ttf",
    "DroidSansFallback.ttf",
    "NanumGothic.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansJP-Regular.ttf",
    "NotoSansKR-Regular.ttf",
    "NotoSansSC-Regular.ttf",
    "ipagp.ttf",
    "wqy-microhei.ttc",
    "unifont.ttf",
)
"""Sans-serif fonts of the scripts that the base family lacks, under the names that Linux systems give the files."""

_SEARCHED: Final = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))

_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Typeface:
    family: str
    characters: frozenset[int]


def families_for(text: str) -> tuple[str, ...]:
    """The families to write `text` with: the base family alone if it can, which has a bold face; else all of them."""
    base, *others = _typefaces()
    if all(ord(char) in base.characters for char in text):
        return (base.family,)
    return (base.family, *(face.family for face in others))


def missing_characters(text: str) -> tuple[str, ...]:
    """The characters of `text` that no font here can draw; spaces and marks of direction have no shape to draw."""
    drawn = frozenset[int]().union(*(face.characters for face in _typefaces()))
    needed = (char for char in dict.fromkeys(text) if unicodedata.category(char) not in ("Cf", "Zs"))
    return tuple(char for char in needed if ord(char) not in drawn)


def first_writable(texts: Iterable[str]) -> str | None:
    """The first text that is not empty and can be written in full; None if there is none."""
    return next((text for text in texts if text and not missing_characters(text)), None)


def _typefaces() -> tuple[_Typeface, ...]:
    with _lock:
        return _loaded()


@cache
def _loaded() -> tuple[_Typeface, ...]:
    """Base family and whichever of the others this system has; registered with matplotlib once."""
    base = Path(font_manager.findfont(BASE_FAMILY))
    faces = [_typeface(base)]
    for path in _found():
        font_manager.fontManager.addfont(str(path))
        faces.append(_typeface(path))
    return tuple(faces)


def _typeface(path: Path) -> _Typeface:
    font = FT2Font(str(path))
    return _Typeface(family=font.family_name, characters=frozenset(font.get_charmap()))


def _found() -> list[Path]:
    """Files of `SYSTEM_FONTS` on this system, in the order wanted."""
    by_name = {path.name: path for folder in _SEARCHED for path in sorted(folder.rglob("*.tt[fc]"))}
    return [by_name[name] for name in SYSTEM_FONTS if name in by_name]
