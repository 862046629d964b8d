"""The model: are the weights the described ones, and do they still measure an ear whose truth is known?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from dicom_node.cli.doctor.checkup import Line, Site, ok, problem, warning
from dicom_node.cli.wiring import make_segmenter
from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from inference.segmentation import FluidSegmenter

RATIO_OFF: Final = 0.12
"""Broken weights are off by more; a model's own error on one synthetic ear is about half of this."""

VOLUME_OFF: Final = 0.25
"""Part of the true volume."""


def check(site: Site) -> Iterator[Line]:
    """Load the configured model and ask it about one synthetic ear."""
    chosen = site.loaded.settings.processing.model
    try:
        segmenter = make_segmenter(site.loaded)
    except ConfigError as error:
        yield problem(str(error), "copy the model folder again, or set processing.model to another one")
        return
    identity = segmenter.identity
    yield ok(f"model {identity.name} {identity.version} ({chosen}), SHA-256 {identity.sha256[:12]}... as described")
    if not identity.learned:
        yield warning("the method without training is in use", 'set processing.model = "shipped" for the network')
    site.say("making a synthetic ear")
    yield _measured(segmenter)


def _measured(segmenter: FluidSegmenter) -> Line:
    """One ear measured, beside its truth."""
    from dicom_node.cli.doctor.synthetic_ear import ear_images, ear_study
    from inference.anatomy import EarSide

    images, truth = ear_images(), ear_study().truth.ears[EarSide.LEFT]
    began = time.perf_counter()
    (fluid,) = segmenter.segment([images])
    seconds = time.perf_counter() - began
    total_mm3 = float(fluid.total_fluid_fraction.array.sum()) * images.mrc.geometry.voxel_volume_mm3
    endolymph_mm3 = float(fluid.endolymph_fraction.array.sum()) * images.mrc.geometry.voxel_volume_mm3
    ratio = endolymph_mm3 / total_mm3 if total_mm3 else 0.0
    text = (
        f"a synthetic ear of {truth.total_fluid_mm3:.0f} mm3 and EH ratio {100 * truth.eh_ratio:.0f} % measures "
        f"{total_mm3:.0f} mm3 and {100 * ratio:.0f} % in {seconds:.1f} s"
    )
    off = abs(total_mm3 - truth.total_fluid_mm3) / truth.total_fluid_mm3
    if off > VOLUME_OFF or abs(ratio - truth.eh_ratio) > RATIO_OFF:
        return problem(
            text, "this model does not measure as it should: use the shipped one, or train again (docs/training.md)"
        )
    return ok(text)
