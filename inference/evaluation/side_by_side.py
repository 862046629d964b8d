"""Phantom, real ear and what a model makes of both, side by side: a page to look at before a model is believed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
import numpy as np

from inference.cases import EarCase
from inference.evaluation.pictures import Shown, labyrinth_in_space, side_by_side
from inference.evaluation.scores import EarScore, compare
from inference.evaluation.tables import Table
from inference.evaluation.text import NOTICE, number_text
from inference.findings import EarFluid, ModelIdentity
from inference.segmentation import FluidSegmenter


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """One ear of the page: what it is, its images and reference, what was found, and how both agree."""

    name: str
    case: EarCase
    fluid: EarFluid
    score: EarScore

    @property
    def shows_endolymph(self) -> bool:
        """False for an ear without contrast series: what a model says about its endolymph is a guess."""
        return bool(np.asarray(self.case.images.hydrops.array).any())


def compare_ears(ears: Sequence[tuple[str, EarCase]], segmenter: FluidSegmenter) -> list[Compared]:
    """Each named ear segmented and judged against its reference."""
    fluids = segmenter.segment([case.images for _, case in ears])
    return [
        Compared(name=name, case=case, fluid=fluid, score=compare(fluid, case))
        for (name, case), fluid in zip(ears, fluids, strict=True)
    ]


def page(ears: Sequence[Compared], model: ModelIdentity) -> str:
    """The HTML document, complete in itself."""
    shown = [Shown(case=one.case, fluid=one.fluid, caption=one.name) for one in ears]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("inference.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("side_by_side.html").render(
        model=model,
        notice=NOTICE,
        slices=_data_uri(side_by_side(shown)),
        spaces=[
            (one.name, _data_uri(labyrinth_in_space(one.fluid, one.name, endolymph=one.shows_endolymph)))
            for one in ears
        ],
        table=figures(ears),
    )


def figures(ears: Sequence[Compared]) -> Table:
    """What was found in each ear beside its reference; the total fluid only, which every ear has."""
    rows = []
    for one in ears:
        fluid = one.score.total_fluid
        assert fluid is not None  # compare always fills it
        rows.append(
            (
                one.name,
                number_text(fluid.dice, 3),
                number_text(fluid.hausdorff95_mm, 2),
                number_text(fluid.surface_distance_mm, 3),
                number_text(fluid.volume_mm3, 0),
                number_text(fluid.true_volume_mm3, 0),
            )
        )
    columns = ("ear", "Dice", "Hausdorff 95 %, mm", "mean distance, mm", "volume found, mm³", "reference, mm³")
    return Table(columns=columns, rows=tuple(rows))


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
