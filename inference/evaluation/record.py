"""The record of an evaluation: every ear's score and what they amount to. Report, figures and model card show only it.

`evaluate` makes it, `to_json` and `from_json` keep it. Schema version 1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError

from inference.evaluation.scores import EarScore
from inference.evaluation.summary import Section, section
from inference.findings import ModelIdentity

SCHEMA_VERSION: Final = 1


class EvaluationError(ValueError):
    """A file that is no evaluation of this version; the message says what was expected and found."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What was evaluated. `kind` is "phantoms" or "cases", `name` the distribution's version or the folder's name."""

    kind: str
    name: str
    description: str
    studies: int
    first_seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that an evaluation found out; `created` is ISO 8601, `command` makes it again."""

    schema_version: int = SCHEMA_VERSION
    created: str
    command: str
    node_version: str
    model: ModelIdentity
    source: Source
    sections: tuple[Section, ...]
    scores: tuple[EarScore, ...]

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise EvaluationError(f"schema_version: expected {SCHEMA_VERSION}, found {self.schema_version}")


def evaluate(
    scores: Sequence[EarScore],
    *,
    model: ModelIdentity,
    source: Source,
    created: str,
    command: str,
    node_version: str,
) -> Evaluation:
    """The record of these scores, one section per input set in the order of their appearance."""
    sets = dict.fromkeys(str(score.tags.get("input_set", "unknown")) for score in scores)
    return Evaluation(
        created=created,
        command=command,
        node_version=node_version,
        model=model,
        source=source,
        sections=tuple(
            section(name, [one for one in scores if str(one.tags.get("input_set", "unknown")) == name]) for name in sets
        ),
        scores=tuple(scores),
    )


_ADAPTER: Final = TypeAdapter(Evaluation)


def to_json(evaluation: Evaluation) -> str:
    """The record as indented JSON; NaN and infinity cannot occur."""
    return json.dumps(_ADAPTER.dump_python(evaluation, mode="json"), indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> Evaluation:
    """The record that `to_json` wrote.

    Raises
    ------
    EvaluationError
        If the text is no JSON, lacks a key, has one too many, or a value of another type.
    """
    try:
        document = json.loads(text)
        evaluation = _ADAPTER.validate_python(document)
    except json.JSONDecodeError as error:
        raise EvaluationError(f"expected an evaluation's JSON, found {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EvaluationError(f"{where or 'document'}: {first['msg']}, found {first['input']!r:.80}") from None
    if _ADAPTER.dump_python(evaluation, mode="json") != document:
        raise EvaluationError("the document holds keys that an evaluation of this version does not have")
    return evaluation
