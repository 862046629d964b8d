"""The configuration files as a form: what stands in its fields, and the files with what somebody entered.

Only what changed is touched, so comments, order and spelling of everything else stay as their author wrote them.
What a value must be is not decided here: texts go through the same checks as a file that is edited by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Whitespace

from dicom_node.web.configuration_desk import ConfigurationProblem, ConfigurationTexts


@dataclass(frozen=True, kw_only=True)
class FieldKind:
    """One field: its key within the row or file, its label, what is entered ("text", "whole", "decimal", "yes", "list",
    "toml"), and what stands in it when the file is silent. `only_for` is the row's `kind` that has use for it; "" is
    every one."""

    key: str
    label: str
    kind: str = "text"
    absent: str = ""
    hint: str = ""
    choices: tuple[str, ...] = ()
    only_for: str = ""


SCALARS: Final = (
    FieldKind(
        key="node.ae_title", label="AE title", absent="HYDROPS", hint="what senders call, and what we call ourselves"
    ),
    FieldKind(key="listener.enabled", label="Receive by C-STORE", kind="yes", absent="yes"),
    FieldKind(key="listener.host", label="Listen on", absent="127.0.0.1", hint="0.0.0.0 is every network"),
    FieldKind(key="listener.port", label="Port", kind="whole", absent="11112"),
    FieldKind(key="listener.max_associations", label="Associations at once", kind="whole", absent="10"),
    FieldKind(key="assembly.quiet_s", label="Complete after seconds of silence", kind="decimal", absent="30.0"),
    FieldKind(
        key="assembly.partner_wait_s", label="Wait for a missing series, seconds", kind="decimal", absent="1800.0"
    ),
    FieldKind(
        key="delivery.first_retry_s", label="First pause after a failed try, seconds", kind="decimal", absent="30.0"
    ),
    FieldKind(key="delivery.max_retry_s", label="Longest pause, seconds", kind="decimal", absent="600.0"),
    FieldKind(key="delivery.give_up_after_h", label="Give up after hours", kind="decimal", absent="72.0"),
)
PEER: Final = (
    FieldKind(key="ae_title", label="AE title"),
    FieldKind(key="networks", label="Networks", kind="list", absent="127.0.0.1/32", hint="10.1.2.0/24, 10.1.3.7/32"),
    FieldKind(key="certificate_sha256", label="TLS certificate (SHA-256)", hint="empty: any"),
)
DESTINATION: Final = (
    FieldKind(key="name", label="Name"),
    FieldKind(key="kind", label="Kind", choices=("dicom", "orthanc")),
    FieldKind(key="host", label="Host", hint="10.1.2.3", only_for="dicom"),
    FieldKind(key="port", label="Port", kind="whole", absent="0", hint="104", only_for="dicom"),
    FieldKind(key="called_ae", label="Its AE title", hint="PACS", only_for="dicom"),
    FieldKind(key="url", label="Address", hint="http://10.1.2.3:8042", only_for="orthanc"),
    FieldKind(key="username", label="User", only_for="orthanc"),
    FieldKind(key="timeout_s", label="Timeout, seconds", kind="decimal", absent="30.0"),
    FieldKind(key="tls", label="TLS", kind="yes", only_for="dicom"),
    FieldKind(key="done", label="A result is done when", absent="sent", choices=("sent", "committed")),
)
RULE: Final = (
    FieldKind(key="name", label="Name"),
    FieldKind(key="role", label="Role", choices=("MRC", "HYDROPS_MI2", "HYDROPS", "PPI", "PEI", "REAL_IR", "OTHER")),
    FieldKind(key="when", label="When", kind="toml", hint='{ protocol_name = { pattern = "^ear_ppi" } }'),
    FieldKind(key="examples", label="Examples", kind="toml", hint='[{ protocol_name = "ear_ppi_v3" }]'),
    FieldKind(key="counterexamples", label="Counterexamples", kind="toml", hint='[{ protocol_name = "ear_pei_v3" }]'),
)
ROWS: Final[Mapping[str, tuple[FieldKind, ...]]] = {"peers": PEER, "destinations": DESTINATION, "rules": RULE}
PLACES: Final = {"peers": "listener.allowed", "destinations": "destinations", "rules": "rule"}
"""Where the rows of each table stand in its file."""

MAX_ROWS: Final = 200


@dataclass(kw_only=True)
class Row:
    """One row: what is entered, and which entry of the file it was (None: a new one)."""

    values: dict[str, str]
    origin: int | None = None

    @property
    def title(self) -> str:
        """What the entry is called; "New" until it is."""
        return self.values.get("ae_title") or self.values.get("name") or "New"


@dataclass(kw_only=True)
class Sheet:
    """All fields as text, as they stand in the form."""

    scalars: dict[str, str] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)


class SheetError(Exception):
    """What was entered cannot be written into a file at all; every problem names its field."""

    def __init__(self, problems: Iterable[ConfigurationProblem]) -> None:
        super().__init__("; ".join(one.sentence for one in problems))
        self.problems = tuple(problems)


def read_sheet(texts: ConfigurationTexts) -> Sheet:
    """The files as a form.

    Raises
    ------
    SheetError
        If a file is no TOML; then only the raw files can be edited.
    """
    settings, rules = _parsed(texts.settings, "settings"), _parsed(texts.rules, "rules")
    scalars = {kind.key: _shown(kind, _at(settings, kind.key)) for kind in SCALARS}
    sheet = Sheet(scalars=scalars)
    for table, kinds in ROWS.items():
        document = rules if table == "rules" else settings
        entries = _at(document, PLACES[table])
        sheet.rows[table] = [
            Row(origin=number, values={kind.key: _shown(kind, entry.get(kind.key)) for kind in kinds})
            for number, entry in enumerate(entries if isinstance(entries, list) else [])
            if isinstance(entry, Mapping)
        ]
    return sheet


def write_sheet(texts: ConfigurationTexts, sheet: Sheet) -> ConfigurationTexts:
    """The files with what stands in the form.

    Raises
    ------
    SheetError
        If a file is no TOML, or a field holds no number where one is meant, or no TOML where that is meant.
    """
    before = read_sheet(texts)
    settings, rules = _parsed(texts.settings, "settings"), _parsed(texts.rules, "rules")
    problems: list[ConfigurationProblem] = []
    for kind in SCALARS:
        entered = sheet.scalars.get(kind.key, "")
        if entered != before.scalars[kind.key]:
            section, _, name = kind.key.partition(".")
            table = settings.setdefault(section, tomlkit.table())
            _set(table, name, kind, entered, kind.key, problems)
    for table_name, kinds in ROWS.items():
        document = rules if table_name == "rules" else settings
        _write_rows(document, table_name, kinds, sheet.rows[table_name], before.rows[table_name], problems)
    if problems:
        raise SheetError(problems)
    return ConfigurationTexts(settings=tomlkit.dumps(settings), rules=tomlkit.dumps(rules))


def _write_rows(
    document: Any,
    table: str,
    kinds: tuple[FieldKind, ...],
    rows: list[Row],
    before: list[Row],
    problems: list[ConfigurationProblem],
) -> None:
    """Change, remove and append entries of one list in its file; a row whose entry is gone by now is a new one."""
    rows = [Row(values=row.values) if row.origin is not None and row.origin >= len(before) else row for row in rows]
    if [(row.origin, row.values) for row in rows] == [(row.origin, row.values) for row in before]:
        return
    entries = _entries(document, PLACES[table])
    for number, row in enumerate(rows):
        entry = entries[row.origin] if row.origin is not None else _new_entry(entries)
        old = before[row.origin].values if row.origin is not None else _untouched(kinds)
        for kind in kinds:
            if row.values[kind.key] != old[kind.key]:
                where = f"{PLACES[table]}[{number}].{kind.key}"
                _set(entry, kind.key, kind, row.values[kind.key], where, problems)
        if row.origin is None:
            _append(entries, entry)
    kept = {row.origin for row in rows}
    for number in reversed(range(len(before))):
        if number not in kept:
            _remove(entries, number)


def _untouched(kinds: Iterable[FieldKind]) -> dict[str, str]:
    """What need not be written of a new entry; where somebody may call from is always written out."""
    return {kind.key: "" if kind.kind == "list" else kind.absent for kind in kinds}


def _entries(document: Any, place: str) -> Any:
    """The list that holds the entries; made where there is none."""
    *sections, name = place.split(".")
    for section in sections:
        document = document.setdefault(section, tomlkit.table())
    if name not in document:
        document[name] = tomlkit.array().multiline(True) if sections else tomlkit.aot()
    return document[name]


def _append(entries: Any, entry: Any) -> None:
    """Put an entry behind the last one; comments that stand there belong to what follows and stay in front of it."""
    if isinstance(entries, AoT) and len(entries):
        tail = _tail(entries[-1])
        entries[-1].add(tomlkit.nl())
        if tail and not isinstance(tail[0], Whitespace):
            entry.add(tomlkit.nl())
        for item in tail:
            entry.add(item)
    entries.append(entry)


def _remove(entries: Any, number: int) -> None:
    """Take an entry out, but not the comments behind it."""
    tail = _tail(entries[number]) if isinstance(entries, AoT) and number else []
    for item in tail:
        entries[number - 1].add(item)
    del entries[number]


def _tail(entry: Any) -> list[Any]:
    """Blank lines and comments behind the last key of a table, taken off it; tomlkit keeps them there."""
    body = entry.value.body
    taken: list[Any] = []
    while body and body[-1][0] is None:
        taken.insert(0, body.pop()[1])
    return taken


def _new_entry(entries: Any) -> Any:
    return tomlkit.table() if isinstance(entries, AoT) else tomlkit.inline_table()


def _set(table: Any, key: str, kind: FieldKind, entered: str, where: str, problems: list[ConfigurationProblem]) -> None:
    """Put one field into a table of the file; an emptied one is taken out."""
    if entered.strip() == "" and kind.kind in ("text", "list", "toml"):
        if key in table and kind.key not in ("name", "ae_title", "kind", "role"):
            del table[key]
        elif key not in table and not kind.absent:
            return
        else:
            table[key] = [] if kind.kind == "list" else ""
        return
    try:
        table[key] = _value(kind, entered)
    except ValueError as error:
        problems.append(ConfigurationProblem(key=where, sentence=f"{where}: {error}"))


def _value(kind: FieldKind, entered: str) -> Any:
    """What was entered as a value of TOML."""
    if kind.kind == "yes":
        return entered == "yes"
    if kind.kind == "list":
        return [part.strip() for part in entered.replace("\n", ",").split(",") if part.strip()]
    if kind.kind == "toml":
        return _fragment(entered)
    if kind.kind in ("whole", "decimal"):
        try:
            return int(entered) if kind.kind == "whole" else float(entered)
        except ValueError:
            expected = "a whole number" if kind.kind == "whole" else "a number"
            raise ValueError(f"expected {expected}, found {entered!r}") from None
    return entered


def _fragment(entered: str) -> Any:
    """A value written in TOML; nothing may follow it."""
    try:
        document = tomlkit.parse(f"value = {' '.join(entered.split())}")
    except TOMLKitError as error:
        raise ValueError(f"not readable as TOML: {error}") from None
    if list(document) != ["value"]:
        raise ValueError("expected one value and nothing behind it")
    return document["value"]


def _shown(kind: FieldKind, value: Any) -> str:
    """A value of the file as it stands in its field."""
    if value is None:
        return kind.absent
    if kind.kind == "yes":
        return "yes" if value is True else ""
    if kind.kind == "list" and isinstance(value, list):
        return ", ".join(str(one) for one in value)
    if kind.kind == "toml":
        return str(value.as_string() if hasattr(value, "as_string") else value).strip()
    return str(value)


def _at(document: Any, key: str) -> Any:
    for name in key.split("."):
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    return document


def _parsed(text: str, which: str) -> Any:
    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise SheetError([ConfigurationProblem(key=which, sentence=f"not readable as TOML: {error}")]) from None
