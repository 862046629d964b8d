"""The model card: what a model was made from, how well it measures, what it was never shown. Made, never typed.

Every figure is read from an evaluation's record, everything about the training from the model's own description.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from inference.evaluation import tables
from inference.evaluation.record import Evaluation, EvaluationError
from inference.evaluation.tables import TARGETS, Table
from inference.evaluation.text import NOTICE, input_set_text, number_text
from inference.model_description import ModelDescription

WHAT_IT_DOES: Final = (
    "From an MR cisternogram and one contrast set of an inner ear it makes the part of every voxel that is "
    "labyrinthine fluid and the part that is endolymph; volumes, EH ratio and segments follow from these."
)

NEVER_SHOWN: Final = (
    "a patient, a scanner, or a contour drawn by a reader: training and figures rest on synthetic ears alone",
    "schwannomas, otosclerosis, malformations, surgery, implants, blood or leaking contrast agent in the labyrinth",
    "motion during an acquisition, flow, susceptibility and dental artifacts",
    "two-dimensional sequences, slices thicker than 1 mm, field strengths other than 3 T",
    "3D-FLAIR and other sequences on which endolymph and bone are both dark",
)
"""What the phantom cannot draw. Whoever teaches it one of these removes the line here."""

LIMITS: Final = (
    "A ratio is that of the whole labyrinth by volume. It is no grade, and ratios of other methods (one slice, the "
    "vestibule alone, generous contours) differ from it several fold.",
    "Volumes are anatomical, about 150 to 250 mm³ per ear; manual contours that take in every touched voxel give up to "
    "twice as much.",
    "The stated 95 % intervals were calibrated on phantoms. Nothing is known about their coverage in patients. In ears "
    "of a real anatomy with endolymph and contrast from elsewhere the error was up to three times that of "
    "phantoms, and the intervals held fewer than 95 %; endolymph in specks finer than the voxels is hardly seen "
    "(docs/evaluation.md, last section).",
    "HYDROPS shows less than PPI and PEI, from which it is subtracted. HYDROPS-Mi2 is as good as its HYDROPS if it "
    "was made with the very cisternogram of the study; otherwise motion between the two cannot be corrected.",
)


def model_card(evaluation: Evaluation, description: ModelDescription | None) -> str:
    """The card as Markdown.

    Parameters
    ----------
    evaluation
        The record that every figure is read from.
    description
        The evaluated model's own; None for the threshold method, which nobody trained.

    Raises
    ------
    EvaluationError
        If the evaluation is of another model than the description.
    """
    if description is not None and description.identity.sha256 != evaluation.model.sha256:
        raise EvaluationError(
            f"the evaluation is of model {evaluation.model.sha256[:12]}, the description of "
            f"{description.identity.sha256[:12]}; evaluate this model again"
        )
    model = evaluation.model
    parts = [
        f"# Model card: {model.name} {model.version}",
        "<!-- Made by `hydrops-node evaluate --model-card`; edit inference/evaluation/model_card.py instead. -->",
        f"**{NOTICE}**",
        f"## What it does\n\n{WHAT_IT_DOES}",
        _model(evaluation, description),
        _source(evaluation),
        f"### Against the targets\n\n{_markdown(tables.target_table(evaluation))}\n\n{_missed(evaluation)}",
        f"### All metrics\n\n{_markdown(tables.overall_table(evaluation))}",
        *_groups(evaluation),
        f"## What it was never shown\n\n{_list(NEVER_SHOWN)}",
        f"## Known limits\n\n{_list(LIMITS)}",
        f"## Use\n\n{description.intended_use if description else NOTICE}",
    ]
    return "\n\n".join(parts) + "\n"


def _model(evaluation: Evaluation, description: ModelDescription | None) -> str:
    digest = f"SHA-256 `{evaluation.model.sha256}`"
    if description is None:
        return f"## Data and training\n\nNone: a rule with constants from physics and anatomy. {digest}."
    rows = [
        ("network", description.network),
        ("options", _text(description.network_options)),
        ("input channels", ", ".join(description.inputs)),
        ("grid", f"{' x '.join(map(str, description.shape))} voxels of "
                 f"{' x '.join(f'{size:g}' for size in description.spacing_mm)} mm (k, j, i)"),
        ("weights", f"SHA-256 `{description.weights_sha256}`"),
        ("interval scales", _text(description.interval_scales)),
        *((f"training: {key}", _text(value)) for key, value in description.training.items()),
    ]  # fmt: skip
    table = Table(columns=("", "value"), rows=tuple(rows))
    return f"## Data and training\n\nIdentity: {digest}.\n\n{_markdown(table)}"


def _source(evaluation: Evaluation) -> str:
    source, first = evaluation.source, evaluation.source.first_seed
    seeds = "" if first is None else f" Seeds {first} to {first + source.studies - 1}."
    way = "Ears were given with their place and already aligned; search and registration were not judged."
    if source.kind == "phantoms":
        way = "Whole studies went through the node's own pipeline, with ear search, registration and gates."
    return (
        f"## Figures\n\nMeasured on {source.studies} {source.kind}, `{source.name}`: {source.description}.{seeds} "
        f"{way} Made {evaluation.created} with node {evaluation.node_version} by\n\n    {evaluation.command}"
    )


def _missed(evaluation: Evaluation) -> str:
    """One plain sentence per target that is not reached."""
    missed = [
        f"**Not reached** with {input_set_text(section.input_set)}: {target.name}, "
        f"{number_text(value, target.digits)} instead of {number_text(target.floor, target.digits)}."
        for section in evaluation.sections
        for target in TARGETS
        if target.verdict(value := target.value(section.overall)) == "missed"
    ]
    return _list(missed) if missed else "Every floor is reached."


def _groups(evaluation: Evaluation) -> list[str]:
    return [
        f"### {input_set_text(section.input_set)}: {title[0].lower()}{title[1:]}\n\n{_markdown(table)}"
        for section in evaluation.sections
        for title, table in tables.section_tables(section)
    ]


def _markdown(table: Table) -> str:
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _text(value: object) -> str:
    if isinstance(value, str | int | float):
        return str(value)
    return f"`{json.dumps(dict(value) if isinstance(value, Mapping) else value, ensure_ascii=False)}`"
