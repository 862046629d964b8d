"""UIDs that follow from the inputs: the same images, model and settings give the same UIDs, on any day and machine.

So a retry, a restart or a replay of the whole queue never adds a second series to the PACS.
All UIDs are 2.25.<128 bit> (PS3.5 B.2), the 128 bits of a version 5 UUID.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from inference.anatomy import EarSide, FluidSpace

NAMESPACE: Final = uuid.UUID("6d0a4c1e-6f58-5b0b-9a3d-3f2b6c7e9d14")
"""Drawn once for this project. Changing it would give every old study a second set of results."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class ResultKind(StrEnum):
    """What a derived UID names. The values are part of every UID: never change one."""

    SEGMENTATION_SERIES = "segmentation series"
    SEGMENTATION = "segmentation"
    REPORT_SERIES = "report series"
    REPORT = "report"
    NOT_COMPUTED_SERIES = "not-computed series"
    NOT_COMPUTED_REPORT = "not-computed report"
    SUMMARY_SERIES = "summary series"
    SUMMARY = "summary"
    NOT_COMPUTED_SUMMARY_SERIES = "not-computed summary series"
    NOT_COMPUTED_SUMMARY = "not-computed summary"
    DOCUMENT_SERIES = "summary document series"
    DOCUMENT = "summary document"
    NOT_COMPUTED_DOCUMENT_SERIES = "not-computed summary document series"
    NOT_COMPUTED_DOCUMENT = "not-computed summary document"
    DIMENSION_ORGANIZATION = "dimension organization"
    TRACKING = "tracking"


@dataclass(frozen=True, kw_only=True)
class InputKey:
    """Everything a result depends on.

    Parameters
    ----------
    instances
        (SOP Instance UID, SHA-256 of the received bytes) of every input image; kept sorted and distinct.
    model_sha256
        Digest of the model's weights or constants; empty if the study was refused before a model was chosen.
    settings_digest
        Digest of the settings (and node version) that can change a result.

    Raises
    ------
    ValueError
        If there is no instance, or a SHA-256 is not 64 lower-case hexadecimal digits.
    """

    instances: tuple[tuple[str, str], ...]
    model_sha256: str
    settings_digest: str

    def __post_init__(self) -> None:
        if not self.instances:
            raise ValueError("an input key needs at least one instance")
        for uid, sha256 in self.instances:
            if not _SHA256.fullmatch(sha256):
                raise ValueError(f"SHA-256 of {uid} is not 64 lower-case hexadecimal digits: {sha256!r}")
        object.__setattr__(self, "instances", tuple(sorted(set(self.instances))))

    @property
    def digest(self) -> str:
        """SHA-256 over all parts as 64 hexadecimal digits; the order in which instances were given plays no role."""
        lines = [f"{uid} {sha256}" for uid, sha256 in self.instances]
        lines += [f"model {self.model_sha256}", f"settings {self.settings_digest}"]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def input_key(instances: Iterable[tuple[str, str]], *, model_sha256: str = "", settings_digest: str = "") -> InputKey:
    """The key of these (SOP Instance UID, SHA-256) pairs, in any order."""
    return InputKey(instances=tuple(instances), model_sha256=model_sha256, settings_digest=settings_digest)


def derived_uid(*parts: str) -> str:
    """A 2.25 UID of at most 44 characters that depends on `parts` and nothing else."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(31).join(parts)).int}"


def result_uid(kind: ResultKind, key: InputKey, *details: str) -> str:
    """The UID of one result object or series; `details` tell objects of one kind and key apart."""
    return derived_uid(kind.value, key.digest, *details)


def tracking_id(side: EarSide, space: FluidSpace | None = None) -> str:
    """The readable name under which SEG and SR track one structure, or (without `space`) one whole ear."""
    part = "inner ear" if space is None else space.value.replace("_", " ")
    return f"{side.value.capitalize()} {part}"


def tracking_uid(key: InputKey, side: EarSide, space: FluidSpace | None = None, *details: str) -> str:
    """The UID that goes with `tracking_id`: the same in the SEG and the SR of one result."""
    return result_uid(ResultKind.TRACKING, key, tracking_id(side, space), *details)


def device_uid(serial_number: str) -> str:
    """The observer's UID: one per installation, whatever model it runs (the model is named beside every number)."""
    return derived_uid("device", serial_number)
