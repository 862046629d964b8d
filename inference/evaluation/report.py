"""The evaluation as one HTML file: loads nothing from elsewhere, light and dark, every number from the record."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import jinja2

from inference.evaluation import charts, tables
from inference.evaluation.record import Evaluation
from inference.evaluation.text import NOTICE, input_set_text

CHARTS: Final = (
    (
        charts.ratio_scatter,
        "Found against true EH ratio",
        "One point per ear with its stated 95 % interval; on the line the node is right.",
    ),
    (
        charts.bland_altman,
        "Bland-Altman",
        "Difference against mean; the solid line is the bias, the dashed ones the 95 % limits of agreement.",
    ),
    (
        charts.errors_by_group,
        "Errors by severity and noise",
        "Boxes: quartiles, whiskers: 5th to 95th percentile of the ears that got a number.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as a data URI, in both themes or in one for both."""

    title: str
    caption: str
    light: str
    dark: str


def report(evaluation: Evaluation, pictures: Mapping[str, tuple[str, bytes]]) -> str:
    """The HTML document.

    Parameters
    ----------
    evaluation
        The record.
    pictures
        By title, caption and PNG of each further picture.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("inference.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = [
        Picture(
            title=title,
            caption=caption,
            light=_data_uri("image/svg+xml", draw(evaluation, charts.LIGHT).encode()),
            dark=_data_uri("image/svg+xml", draw(evaluation, charts.DARK).encode()),
        )
        for draw, title, caption in CHARTS
    ]
    shown = [
        Picture(title=title, caption=caption, light=uri, dark=uri)
        for title, (caption, png) in pictures.items()
        if (uri := _data_uri("image/png", png))
    ]
    return environment.get_template("report.html").render(
        evaluation=evaluation,
        notice=NOTICE,
        targets=tables.target_table(evaluation),
        overall=tables.overall_table(evaluation),
        groups=[(input_set_text(section.input_set), tables.section_tables(section)) for section in evaluation.sections],
        refusals=tables.refusal_table(evaluation),
        tests=tables.test_table(evaluation),
        ears=tables.ear_table(evaluation),
        charts=drawn,
        pictures=shown,
    )


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
