"""When a changed key takes effect in a node that runs: at once, with the next study, or with the next start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from enum import StrEnum
from typing import Final

from dicom_node.settings.sections import Settings


class Effect(StrEnum):
    """AT_ONCE: from now on. WORKER: the worker starts anew, between two studies. RESTART: not before.

    Whatever is not AT_ONCE or WORKER belongs to something that is opened once: a port, a folder, a database.
    """

    AT_ONCE = "at once"
    WORKER = "between two studies"
    RESTART = "after a restart"


_AT_ONCE: Final = frozenset(
    {"listener.allowed", "retention.inputs_days", "retention.results_days", "retention.audit_days"}
)
_WORKER_SECTIONS: Final = frozenset({"assembly", "processing", "results", "destinations", "delivery"})


def effect_of(key: str) -> Effect:
    """When a change of `key` ("listener.port", "destinations") takes effect."""
    if key in _AT_ONCE:
        return Effect.AT_ONCE
    return Effect.WORKER if key.partition(".")[0] in _WORKER_SECTIONS else Effect.RESTART


def changed_keys(old: Settings, new: Settings) -> Iterator[str]:
    """Every key whose value differs, as "section.key"; lists are compared as a whole."""
    for section in fields(Settings):
        before, after = getattr(old, section.name), getattr(new, section.name)
        if isinstance(before, tuple):
            if before != after:
                yield section.name
            continue
        for one in fields(before):
            if getattr(before, one.name) != getattr(after, one.name):
                yield f"{section.name}.{one.name}"
