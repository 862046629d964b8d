"""TOML tables to frozen dataclasses, strictly: an unknown key or a wrong type is a `ConfigError` that names the key."""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from dicom_node.errors import ConfigError, meant_instead

T = TypeVar("T")


def read_toml(path: Path) -> Mapping[str, Any]:
    """The file's content, or a ConfigError that begins with the file."""
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; pass --config PATH or copy config/node.toml there") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as TOML: {error}") from None


def without_bad_values(kind: type[Any], raw: Mapping[str, Any], *, where: str, problems: list[str]) -> dict[str, Any]:
    """The part of a table that `build` accepts; what it does not accept is told in `problems` and left out."""
    hints = typing.get_type_hints(kind)
    good: dict[str, Any] = {}
    for key, value in raw.items():
        hint = hints.get(key)
        if isinstance(value, Mapping) and isinstance(hint, type) and is_dataclass(hint):
            good[key] = without_bad_values(hint, value, where=_dotted(where, key), problems=problems)
            continue
        try:
            _build_one(kind, key, value, where=where)
        except ConfigError as error:
            problems.append(str(error))
        else:
            good[key] = value
    return good


def _build_one(kind: type[Any], key: str, value: Any, *, where: str) -> Any:
    """The value of one key of a table, or a ConfigError naming the key."""
    known = sorted(f.name for f in fields(kind))
    if key not in known:
        hint = meant_instead(key, known)
        raise ConfigError(f"{_dotted(where, key)}: unknown key{hint}; known here: {', '.join(known)}")
    return _value(typing.get_type_hints(kind)[key], value, where=_dotted(where, key))


def build(kind: type[T], raw: Any, *, where: str) -> T:
    """An instance of the dataclass `kind` from a TOML table; `where` is the dotted key for messages."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where or 'file'}: expected a table, found {raw!r}")
    built = {key: _build_one(kind, key, value, where=where) for key, value in raw.items()}
    for f in fields(kind):  # type: ignore[arg-type]
        if f.name not in raw and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{_dotted(where, f.name)}: missing; it has no default")
    return kind(**built)


def _value(hint: Any, raw: Any, *, where: str) -> Any:
    """`raw` as the annotated type, or a ConfigError naming the key."""
    if is_dataclass(hint) and isinstance(hint, type):
        return build(hint, raw, where=where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(raw, list):
            raise ConfigError(f"{where}: expected a list, found {raw!r}")
        item = typing.get_args(hint)[0]
        return tuple(_value(item, one, where=f"{where}[{n}]") for n, one in enumerate(raw))
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
    if hint is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if not isinstance(raw, hint) or (isinstance(raw, bool) and hint is not bool):
        raise ConfigError(f"{where}: expected {hint.__name__}, found {raw!r}")
    return raw


def _dotted(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
