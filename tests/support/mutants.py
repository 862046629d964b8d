"""Images damaged as a hostile or broken sender would: by element, by length, by nesting, by character set, by byte.

A mutant is made from its seed alone, so a failure is repeated by its number. Structure-aware damage comes first,
because random bytes alone hardly get past the first length field.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

import pydicom
from pydicom.dataset import Dataset

EXPLICIT_LE, IMPLICIT_LE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
LONG_VRS: Final = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
PIXEL_DATA: Final = (0x7FE0, 0x0010)
ITEM, ITEM_END, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"

NUMBERS: Final = (
    *(b"NaN", b"inf", b"-inf", b"1e400", b"-1e-400", b"-", b"", b"abc", b"1\\2\\3", b"0x10", b"1,5", b" " * 16),
)
UIDS: Final = (
    *(b"../../../etc/passwd", b"/etc/passwd", b"%2e%2e", b"1.2.3\0", b"1.2\n.3", b"; rm -rf /", b"$(id)", b"1" * 65),
    *(b"1.02.3", b"", b"2.25.", b".1.2", b"1..2", "1.２.3".encode()),
)
TEXTS: Final = (
    *(b"<script>alert(1)</script>", b"=cmd|' /C calc'!A0", b"{{7*7}}", b"\x1b$B\x1b(B", b"\x1b$)C\xb1\xe8"),
    *(b"A" * 65536, b"a\\b\\c\\d", b"\0\0\0", b"%s%n%x", b"^^^^^^=====", "山田^太郎".encode(), b"\xff\xfe\xfd"),
)
CHARACTER_SETS: Final = (
    *(b"ISO_IR 192", b"ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"ISO 2022 IR 87\\ISO 2022 IR 149", b"KLINGON", b""),
    *(b"GB18030", b"\\" * 200),
)
DATES: Final = (b"99999999", b"00000000", b"2026-01-01", b"20261332", b"20240230")
INTEGERS: Final = (
    *(struct.pack("<H", value) for value in (0, 1, 7, 8, 255, 32768, 65535)),
    *(b"", b"\1", b"\1\0\2\0"),
)


@dataclass(frozen=True, kw_only=True)
class Element:
    """One element as it stands in the stream; `said_length` is what its header claims, None for the truth."""

    tag: tuple[int, int]
    vr: bytes
    value: bytes
    said_length: int | None = None

    def encoded(self, *, implicit: bool) -> bytes:
        """Header and value, little endian."""
        length = len(self.value) if self.said_length is None else self.said_length
        head = struct.pack("<HH", *self.tag)
        if implicit:
            return head + struct.pack("<I", length & 0xFFFFFFFF) + self.value
        if self.vr in LONG_VRS:
            return head + self.vr + struct.pack("<HI", 0, length & 0xFFFFFFFF) + self.value
        return head + self.vr + struct.pack("<H", length & 0xFFFF) + self.value


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A damaged data set (without File Meta Information), the encoding it claims, and what was done to it."""

    seed: int
    dataset: bytes
    transfer_syntax_uid: str
    damage: tuple[str, ...]


@dataclass(kw_only=True)
class _Patient:
    """A data set under the knife."""

    elements: list[Element]
    chance: random.Random
    transfer_syntax_uid: str = EXPLICIT_LE
    implicit: bool = False
    tail: list[Callable[[bytes], bytes]] = field(default_factory=list)

    def pick(self) -> int:
        """Any element; the identifying and the decisive ones come up as often as all others together."""
        decisive = [n for n, one in enumerate(self.elements) if one.tag in _DECISIVE]
        if decisive and self.chance.random() < 0.5:
            return self.chance.choice(decisive)
        return self.chance.randrange(len(self.elements))

    def change(self, n: int, **changes: object) -> None:
        """Replace fields of one element."""
        old = self.elements[n]
        fields = {"tag": old.tag, "vr": old.vr, "value": old.value, "said_length": old.said_length, **changes}
        self.elements[n] = Element(**fields)  # type: ignore[arg-type]


_DECISIVE: Final = {
    *((0x0008, 0x0005), (0x0008, 0x0008), (0x0008, 0x0016), (0x0008, 0x0018), (0x0010, 0x0010), (0x0010, 0x0020)),
    *((0x0018, 0x0080), (0x0018, 0x0081), (0x0018, 0x0082), (0x0020, 0x000D), (0x0020, 0x000E), (0x0020, 0x0013)),
    *((0x0020, 0x0032), (0x0020, 0x0037), (0x0020, 0x0052), (0x0028, 0x0002), (0x0028, 0x0004), (0x0028, 0x0008)),
    *((0x0028, 0x0010), (0x0028, 0x0011), (0x0028, 0x0030), (0x0028, 0x0100), (0x0028, 0x0101), (0x0028, 0x0102)),
    *((0x0028, 0x0103), (0x0028, 0x1052), (0x0028, 0x1053), (0x5200, 0x9229), (0x5200, 0x9230), PIXEL_DATA),
}


def mutant(seed: int, originals: Sequence[bytes]) -> Mutant:
    """One of `originals` (explicit VR little endian data sets) with one to three damages, all drawn from `seed`."""
    chance = random.Random(seed)
    patient = _Patient(elements=split(chance.choice(originals)), chance=chance)
    done = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        damage = chance.choice(_DAMAGES)
        damage(patient)
        done.append(damage.__name__.strip("_"))
    stream = b"".join(one.encoded(implicit=patient.implicit) for one in patient.elements)
    for last in patient.tail:
        stream = last(stream)
    return Mutant(seed=seed, dataset=stream, transfer_syntax_uid=patient.transfer_syntax_uid, damage=tuple(done))


def split(dataset: bytes) -> list[Element]:
    """The top-level elements of a lawful explicit VR little endian data set without undefined lengths."""
    elements, at = [], 0
    while at < len(dataset):
        tag, vr = struct.unpack_from("<HH", dataset, at), dataset[at + 4 : at + 6]
        head, form = (12, "<I") if vr in LONG_VRS else (8, "<H")
        (length,) = struct.unpack_from(form, dataset, at + head - struct.calcsize(form))
        elements.append(Element(tag=tag, vr=vr, value=dataset[at + head : at + head + length]))
        at += head + length
    return elements


def plain_bytes(dataset: Dataset) -> bytes:
    """A data set as explicit VR little endian bytes without File Meta Information."""
    stream = BytesIO()
    pydicom.dcmwrite(stream, Dataset(dataset), implicit_vr=False, little_endian=True, force_encoding=True)
    return stream.getvalue()


def _nasty_value(p: _Patient) -> None:
    n = p.pick()
    by_vr = {
        **dict.fromkeys((b"DS", b"IS"), NUMBERS),
        b"UI": UIDS,
        **dict.fromkeys((b"DA", b"TM", b"DT"), DATES),
        **dict.fromkeys((b"US", b"SS"), INTEGERS),
    }
    known = CHARACTER_SETS if p.elements[n].tag == (0x0008, 0x0005) else by_vr.get(p.elements[n].vr, TEXTS)
    value = p.chance.choice(known)
    p.change(
        n, value=value + b"\0" * (len(value) % 2) if p.elements[n].vr == b"UI" else value + b" " * (len(value) % 2)
    )


def _missing(p: _Patient) -> None:
    del p.elements[p.pick()]


def _twice(p: _Patient) -> None:
    n = p.pick()
    p.elements.insert(p.chance.randrange(len(p.elements) + 1), p.elements[n])


def _disordered(p: _Patient) -> None:
    p.chance.shuffle(p.elements)


def _other_vr(p: _Patient) -> None:
    vrs = (b"UN", b"SQ", b"DS", b"US", b"OB", b"UI", b"LO", b"FD", b"AT", b"ZZ", b"\0\0", b"UT")
    p.change(p.pick(), vr=p.chance.choice(vrs))


def _lying_length(p: _Patient) -> None:
    n = p.pick()
    true = len(p.elements[n].value)
    lies = (0, 1, max(true - 1, 0), true + 1, true + 2, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFF0, 0x7FFFFFFF, true * 1000)
    p.change(n, said_length=p.chance.choice(lies))


def _odd_length(p: _Patient) -> None:
    n = p.pick()
    p.change(n, value=p.elements[n].value + b"x")


def _nested(p: _Patient) -> None:
    depth = p.chance.choice((1, 3, 30, 64, 300, 3000))
    opening = struct.pack("<HH", 0x0008, 0x1140) + b"SQ\0\0\xff\xff\xff\xff" + ITEM + b"\xff\xff\xff\xff"
    closing = (ITEM_END + bytes(4) + SEQUENCE_END + bytes(4)) if p.chance.random() < 0.7 else b""
    blob = opening * depth + closing * depth
    # Behind a header of its own the nest would be a value; it is put in as it stands.
    place = p.chance.randrange(1, len(p.elements) + 1)
    p.tail.append(lambda stream: _spliced(stream, p, place, blob))


def _spliced(stream: bytes, p: _Patient, place: int, blob: bytes) -> bytes:
    at = sum(len(one.encoded(implicit=p.implicit)) for one in p.elements[:place])
    return stream[:at] + blob + stream[at:]


def _foreign(p: _Patient) -> None:
    tags = ((0x0009, 0x0010), (0x2005, 0x100D), (0x0000, 0x0900), (0x0002, 0x0010), (0xFFFE, 0xE000), (0xFFFF, 0xFFFF))
    vr = p.chance.choice((b"UN", b"OB", b"LO", b"SQ"))
    value = p.chance.randbytes(p.chance.choice((0, 2, 8, 1024)))
    p.elements.insert(p.chance.randrange(len(p.elements)), Element(tag=p.chance.choice(tags), vr=vr, value=value))


def _pixels(p: _Patient) -> None:
    for n, one in enumerate(p.elements):
        if one.tag == PIXEL_DATA:
            size = p.chance.choice((0, 2, len(one.value) // 2, len(one.value) - 2, len(one.value) * 2))
            p.change(n, value=(one.value * 2)[: max(size, 0)])


def _encapsulated(p: _Patient) -> None:
    """Fragments where native pixels are announced, or a compressed syntax over what is no stream."""
    syntaxes = ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90")
    p.transfer_syntax_uid = p.chance.choice((*syntaxes, EXPLICIT_LE))
    starts = (b"\xff\xd8\xff\xc3", b"\xff\xd8\xff\xf7", b"\xff\x4f\xff\x51", b"\1\0\0\0\x40\0\0\0", b"")
    body = p.chance.choice(starts) + p.chance.randbytes(p.chance.choice((0, 10, 200)))
    body += b"\0" * (len(body) % 2)
    said = p.chance.choice((len(body), len(body), len(body) + 2, 0xFFFFFFFE, 0))
    value = ITEM + bytes(4) + ITEM + struct.pack("<I", said) + body + SEQUENCE_END + bytes(4)
    for n, one in enumerate(p.elements):
        if one.tag == PIXEL_DATA:
            p.change(n, vr=b"OB", value=value, said_length=0xFFFFFFFF)


def _claimed_implicit(p: _Patient) -> None:
    p.transfer_syntax_uid = IMPLICIT_LE


def _truly_implicit(p: _Patient) -> None:
    p.implicit, p.transfer_syntax_uid = True, IMPLICIT_LE


def _big_endian_claim(p: _Patient) -> None:
    p.transfer_syntax_uid = "1.2.840.10008.1.2.2"


def _truncated(p: _Patient) -> None:
    share = p.chance.random()
    p.tail.append(lambda stream: stream[: int(len(stream) * share)])


def _flipped(p: _Patient) -> None:
    places, seed = p.chance.choice((1, 4, 32)), p.chance.random()

    def flip(stream: bytes) -> bytes:
        chance, damaged = random.Random(seed), bytearray(stream)
        for _ in range(places if damaged else 0):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        return bytes(damaged)

    p.tail.append(flip)


def _garbage_inside(p: _Patient) -> None:
    garbage, share = p.chance.randbytes(p.chance.choice((1, 2, 7, 64))), p.chance.random()
    p.tail.append(lambda stream: stream[: int(len(stream) * share)] + garbage + stream[int(len(stream) * share) :])


def _garbage_after(p: _Patient) -> None:
    garbage = p.chance.randbytes(p.chance.choice((1, 4, 8, 100)))
    p.tail.append(lambda stream: stream + garbage)


_DAMAGES: Final = (
    *(_nasty_value, _nasty_value, _nasty_value, _missing, _twice, _disordered, _other_vr, _lying_length, _odd_length),
    *(_nested, _foreign, _pixels, _encapsulated, _claimed_implicit, _truly_implicit, _big_endian_claim, _truncated),
    *(_flipped, _garbage_inside, _garbage_after),
)
