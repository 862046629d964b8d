"""Site rules: what a department knows about its own series, checked against its own examples when they are read.

Rules come second, after physics and before names; a rule can choose only among the roles that physics leaves open.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dicom_node.assembly.headers import SeriesHeader, SeriesRole
from dicom_node.errors import ConfigError, meant_instead

NUMBER_FIELDS: Final = frozenset(
    {"repetition_time_ms", "echo_time_ms", "inversion_time_ms", "magnetic_field_t", "series_number"}
)
TEXT_FIELDS: Final = frozenset(
    {"series_description", "protocol_name", "sequence_name", "manufacturer", "model_name", "body_part"}
)
SET_FIELDS: Final = frozenset({"image_type", "scanning_sequence"})
FLAG_FIELDS: Final = frozenset({"acquisition_3d"})
FIELDS: Final = NUMBER_FIELDS | TEXT_FIELDS | SET_FIELDS | FLAG_FIELDS

Facts = Mapping[str, Any]
"""Header fields by name; a field that is not there, None, '' or () is unknown."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A test of one header field. An unknown value fulfills only `missing`; absence is a normal answer, not an error.

    `low` and `high` bound a number (inclusive), `pattern` searches a text ignoring case, `all_of` and `none_of` name
    values of a list, `equals` compares a flag.
    """

    field: str
    low: float | None = None
    high: float | None = None
    pattern: re.Pattern[str] | None = None
    all_of: frozenset[str] = frozenset()
    none_of: frozenset[str] = frozenset()
    equals: bool | None = None
    missing: bool = False

    def fulfilled(self, facts: Facts) -> bool:
        """True if the field of `facts` is known and passes."""
        value: Any = facts.get(self.field)
        if value is None or value in ("", ()):
            return self.missing
        if self.missing:
            return False
        if self.field in NUMBER_FIELDS:
            return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)
        if self.pattern is not None:
            return self.pattern.search(value) is not None
        if self.field in SET_FIELDS:
            return self.all_of <= set(value) and not self.none_of & set(value)
        return bool(value == self.equals)


@dataclass(frozen=True, kw_only=True)
class SiteRule:
    """Series that fulfill all conditions have this role."""

    name: str
    role: SeriesRole
    conditions: tuple[Condition, ...]
    examples: tuple[Facts, ...]
    counterexamples: tuple[Facts, ...]

    def matches(self, facts: Facts) -> bool:
        """True if every condition is fulfilled."""
        return all(condition.fulfilled(facts) for condition in self.conditions)


@dataclass(frozen=True, kw_only=True)
class SeriesRules:
    """Site rules in the order of the file (the first that matches wins), and how people name each role."""

    rules: tuple[SiteRule, ...] = ()
    names: tuple[tuple[SeriesRole, re.Pattern[str]], ...] = ()

    def named_role(self, header: SeriesHeader) -> SeriesRole | None:
        """The role that description, protocol or sequence name read like; the first text that reads like any wins."""
        for text in (header.series_description, header.protocol_name, header.sequence_name):
            for role, pattern in self.names:
                if pattern.search(text):
                    return role
        return None


def facts_of(header: SeriesHeader) -> Facts:
    """The fields of a header that rules may look at."""
    return {field: getattr(header, field) for field in FIELDS}


def read_rules(text: str) -> SeriesRules:
    """Rules from the text of `config/series_rules.toml`.

    Raises
    ------
    ConfigError
        If the text is no TOML, a key or role is unknown, a pattern does not compile, or a rule contradicts its own
        examples; the message begins with the rule's name.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"series rules: not readable as TOML: {error}") from None
    _only(raw, {"rule", "names"}, where="series rules")
    rules = tuple(_rule(table) for table in _tables(raw.get("rule", []), where="rule"))
    names = tuple(
        (_role(role, where="names"), _pattern(pattern, where=f"names.{role}"))
        for role, pattern in _table(raw.get("names", {}), where="names").items()
    )
    if len({rule.name for rule in rules}) != len(rules):
        raise ConfigError("rule: two rules have the same name")
    return SeriesRules(rules=rules, names=names)


def _rule(table: Mapping[str, Any]) -> SiteRule:
    name = table.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"rule: every rule needs a name, found {name!r}")
    _only(table, {"name", "role", "when", "examples", "counterexamples"}, where=name)
    rule = SiteRule(
        name=name,
        role=_role(table.get("role"), where=name),
        conditions=tuple(_condition(field, test, where=name) for field, test in _when(table, where=name).items()),
        examples=tuple(_facts(facts, where=name) for facts in _tables(table.get("examples", []), where=name)),
        counterexamples=tuple(
            _facts(facts, where=name) for facts in _tables(table.get("counterexamples", []), where=name)
        ),
    )
    if not rule.examples or not rule.counterexamples:
        raise ConfigError(f"{name}: needs at least one entry in examples and one in counterexamples")
    for number, facts in enumerate(rule.examples, start=1):
        if not rule.matches(facts):
            raise ConfigError(f"{name}: example {number} does not match its own rule")
    for number, facts in enumerate(rule.counterexamples, start=1):
        if rule.matches(facts):
            raise ConfigError(f"{name}: counterexample {number} matches the rule")
    return rule


def _when(table: Mapping[str, Any], *, where: str) -> Mapping[str, Any]:
    when = _table(table.get("when"), where=f"{where}.when")
    if not when:
        raise ConfigError(f"{where}.when: a rule without conditions would match every series")
    return when


def _condition(field: str, test: Any, *, where: str) -> Condition:
    where = f"{where}.when.{field}"
    if field not in FIELDS:
        raise ConfigError(
            f"{where}: unknown field{meant_instead(field, FIELDS)}; known here: {', '.join(sorted(FIELDS))}"
        )
    if field in FLAG_FIELDS and isinstance(test, bool):
        return Condition(field=field, equals=test)
    table = _table(test, where=where)
    allowed = {"missing"} | (
        {"min", "max"} if field in NUMBER_FIELDS else {"pattern"} if field in TEXT_FIELDS else {"all_of", "none_of"}
    )
    _only(table, allowed, where=where)
    if not table or (table.get("missing") is not None and (len(table) > 1 or table["missing"] is not True)):
        raise ConfigError(f"{where}: expected {' or '.join(sorted(allowed))}; missing must be true and alone")
    for key in {"min", "max"} & set(table):
        if isinstance(table[key], bool) or not isinstance(table[key], int | float):
            raise ConfigError(f"{where}.{key}: expected a number, found {table[key]!r}")
    return Condition(
        field=field,
        low=table.get("min"),
        high=table.get("max"),
        pattern=_pattern(table["pattern"], where=where) if "pattern" in table else None,
        all_of=_values(table.get("all_of", []), where=where),
        none_of=_values(table.get("none_of", []), where=where),
        missing="missing" in table,
    )


def _facts(facts: Mapping[str, Any], *, where: str) -> Facts:
    _only(facts, set(FIELDS), where=f"{where}: example")
    for field, value in facts.items():
        kind = (
            (int, float)
            if field in NUMBER_FIELDS
            else (str,)
            if field in TEXT_FIELDS
            else (bool,)
            if field in FLAG_FIELDS
            else (list,)
        )
        if not isinstance(value, kind):
            raise ConfigError(f"{where}: example: {field} has the wrong type: {value!r}")
    return {field: tuple(value) if isinstance(value, list) else value for field, value in facts.items()}


def _role(value: Any, *, where: str) -> SeriesRole:
    try:
        return SeriesRole(value)
    except ValueError:
        raise ConfigError(f"{where}: role must be one of {', '.join(SeriesRole)}, found {value!r}") from None


def _pattern(value: Any, *, where: str) -> re.Pattern[str]:
    if not isinstance(value, str):
        raise ConfigError(f"{where}: expected a regular expression, found {value!r}")
    try:
        return re.compile(value, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(f"{where}: not a regular expression: {error}") from None


def _values(value: Any, *, where: str) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ConfigError(f"{where}: expected a list of texts, found {value!r}")
    return frozenset(entry.upper() for entry in value)


def _tables(value: Any, *, where: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: expected a list of tables, found {value!r}")
    return [_table(entry, where=where) for entry in value]


def _table(value: Any, *, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a table, found {value!r}")
    return value


def _only(table: Mapping[str, Any], known: set[str], *, where: str) -> None:
    for key in table:
        if key not in known:
            hint = meant_instead(key, known)
            raise ConfigError(f"{where}: unknown key {key!r}{hint}; known here: {', '.join(sorted(known))}")
