"""Orthanc's own configuration file: values that lose images, let strangers in or slow everything down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dicom_node.cli.doctor.checkup import Level, Line, ok, problem

_COMMENT: Final = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
"""A string (kept) or a comment in either style; Orthanc reads both."""

LONGEST_STABLE_AGE_S: Final = 60
"""Orthanc's default. Only then does the node learn from Orthanc how many images a series has."""

WELL_KNOWN: Final = {"orthanc", "admin", "password", "demo", "alicePassword", "bobPassword"}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`is_bad` judges the value of `key`, `default` being Orthanc's own where the file leaves it out."""

    key: str
    default: Any
    is_bad: Callable[[Any], bool]
    level: Level
    because: str
    next_step: str


def _rule(key: str, default: Any, good: Any, because: str, level: Level = Level.WARNING) -> Rule:
    return Rule(
        key=key,
        default=default,
        is_bad=lambda value: value != good,
        level=level,
        because=because,
        next_step=f"set {key} to {json.dumps(good)}",
    )


RULES: Final = (
    _rule("ExecuteLuaEnabled", False, False, "whoever reaches its HTTP port runs scripts on it", Level.PROBLEM),
    _rule("RestApiWriteToFileSystemEnabled", False, False, "HTTP requests may write files on it", Level.PROBLEM),
    _rule("DicomCheckCalledAet", False, True, "it takes images that were meant for another AE title"),
    _rule("DicomAlwaysAllowStore", True, False, "it takes images of every AE"),
    _rule("DicomAlwaysAllowEcho", True, False, "it answers every AE"),
    _rule("DicomCheckModalityHost", False, True, "an AE title alone opens it, from any address"),
    _rule("OverwriteInstances", False, False, "a second image under one UID replaces the first, unseen"),
    _rule("LimitFindResults", 0, 0, "the comparison with what it holds ends at that many series"),
    _rule("HttpCompressionEnabled", True, False, "it zips pixels: 104 images took 1.8 s instead of 0.07 s"),
    _rule("WebDavEnabled", True, False, "it offers its images as a network drive as well"),
    _rule("StoreMD5ForAttachments", True, True, "nobody can tell whether an image was damaged on its disk"),
    _rule("SynchronousCMove", True, True, "it says that a transfer is done before it is"),
    _rule("SynchronousZipStream", True, True, "a download starts only when its whole archive was packed on disk"),
    _rule("DeidentifyLogs", True, True, "its log names patients"),
    Rule(
        key="StableAge",
        default=60,
        is_bad=lambda value: not 0 < value <= LONGEST_STABLE_AGE_S,
        level=Level.WARNING,
        because="it says that many seconds late how many images a series has",
        next_step="set StableAge to 5; the node keeps a quiet time of its own",
    ),
)


def judge_file(path: Path) -> Iterator[Line]:
    """Every bad value of one configuration file, or one line that there is none."""
    try:
        config = read_orthanc_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        yield problem(f"{path} cannot be read: {error.strerror}", "give the path of the file that Orthanc starts with")
        return
    except ValueError as error:
        yield problem(f"{path} is no JSON: {error}", "Orthanc reads the same file; look at the line that is named")
        return
    found = list(judge(config))
    yield from found
    if not found:
        yield ok(f"{path} holds none of the settings that are known to lose images or to let strangers in")


def judge(config: Mapping[str, Any]) -> Iterator[Line]:
    """One line for each value that is not good."""
    for rule in RULES:
        value = config.get(rule.key, rule.default)
        if rule.is_bad(value):
            said = "" if rule.key in config else " (its default)"
            text = f"Orthanc's {rule.key} is {json.dumps(value)}{said}: {rule.because}"
            yield Line(level=rule.level, text=text, next_step=rule.next_step)
    yield from _who_gets_in(config)


def _who_gets_in(config: Mapping[str, Any]) -> Iterator[Line]:
    users = config.get("RegisteredUsers", {})
    remote = config.get("RemoteAccessAllowed", False)
    # Where the file leaves AuthenticationEnabled out, Orthanc takes the value of RemoteAccessAllowed.
    if remote and not (config.get("AuthenticationEnabled", remote) and users):
        yield problem(
            "Orthanc allows remote access without a user of its own (RemoteAccessAllowed, AuthenticationEnabled)",
            "set AuthenticationEnabled to true and RegisteredUsers to users with long passwords",
        )
    for name, password in users.items():
        if password in WELL_KNOWN or password == name:
            yield problem(f"Orthanc's user {name!r} has a well-known password", "change it in RegisteredUsers")


def read_orthanc_json(text: str) -> Mapping[str, Any]:
    """JSON with comments, as Orthanc reads it.

    Raises
    ------
    ValueError
        If what is left without the comments is no JSON object.
    """
    config = json.loads(_COMMENT.sub(lambda found: found[1] or "", text))
    if not isinstance(config, dict):
        raise ValueError("expected one JSON object")
    return config
