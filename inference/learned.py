"""The segmenter that learned: a network's fractions on each ear's own grid, with the interval it was calibrated to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from inference.cases import InputSet
from inference.ear_grid import INPUTS, SHAPE, SPACING_MM, channels, ear_grid, scaled
from inference.findings import EarFluid, EarImages, ModelIdentity
from inference.geometry import Volume, VolumeGeometry
from inference.graphics_card import Answer, GraphicsCard, Turn, alone
from inference.model_store import LoadedModel, ModelError
from inference.networks.folding import folded
from inference.networks.pair import PAIR_INPUTS, PairNetwork
from inference.resampling import Interpolation, resample
from inference.segmentation import fluid_from_fractions
from inference.two_looks import mean_of_looks, seen_twice

FloatImage = NDArray[np.float32]

RECENTER_MM: Final = 1.5
"""An ear whose fluid lies farther from the middle of the network's grid is looked at once more, centered."""

PART_FRACTION: Final = 0.3
"""Fluid fraction that belongs to a part of the labyrinth; fainter voxels only surround one."""

GAP_MM: Final = 2.0
"""Farthest part from the largest one (a canal interrupted by noise); beyond lie sulci and air cells."""

RIM_MM: Final = 1.1
"""Partial volume reaches this far from a part."""

NEGLIGIBLE: Final = 0.01
"""Smaller fractions are rounding: over a whole box they would add up to a canal."""

WIDEST: Final = 0.5
"""Half width of an interval that says nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkSegmenter:
    """A `FluidSegmenter` around a model folder's network.

    All ears of a study go through the network at once, each of them twice (`two_looks`), in float32 on the processor.

    Parameters
    ----------
    model
        What to ask.
    card
        A device that is asked first, in half precision (`inference.graphics_card`); None asks the processor alone.
    turn
        Held while the card is asked, where other processes ask it as well.
    tell
        Gets a sentence each time the processor has to step in for the card.

    Raises
    ------
    ModelError
        If the model expects other images or another grid than `inference.ear_grid` makes.
    """

    model: LoadedModel
    card: torch.device | None = None
    turn: Turn = alone
    tell: Callable[[str], None] = lambda _sentence: None

    def __post_init__(self) -> None:
        told = self.model.description
        found = (tuple(told.inputs), tuple(told.spacing_mm), tuple(told.shape))
        if found[0] not in (INPUTS, PAIR_INPUTS) or found[1:] != (SPACING_MM, SHAPE):
            raise ModelError(
                f"model {told.name} {told.version} expects (inputs, spacing mm, shape) {found}, "
                f"the node makes {(INPUTS, SPACING_MM, SHAPE)}; choose a model trained by `hydrops-node train`"
            )

    @cached_property
    def _network(self) -> Callable[[Tensor], Answer]:
        """What answers (logits, log_sd) to the node's channels, endolymph as a share; made once for all studies."""
        network = folded(self.model.network)
        if tuple(self.model.description.inputs) == PAIR_INPUTS:
            network = PairNetwork(network, shares=True).eval()
        return network if self.card is None else GraphicsCard(network, self.card, tell=self.tell, turn=self.turn)

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is."""
        return self.model.identity

    def segment(self, ears: Sequence[EarImages]) -> list[EarFluid]:
        """Fluid of each ear, in the order given, on each ear's own grid."""
        grids = [ear_grid(ear.roi.side, ear.mrc.geometry, ear.roi.center_lps_mm) for ear in ears]
        answers = self._ask(ears, grids)
        moved = {
            n: centered for n, answer in enumerate(answers) if (centered := _recentered(ears[n], answer)) is not None
        }
        again = self._ask([ears[n] for n in moved], list(moved.values()))
        for n, answer in zip(moved, again, strict=True):
            answers[n] = answer
        return [self._fluid(ear, answer) for ear, answer in zip(ears, answers, strict=True)]

    def _ask(self, ears: Sequence[EarImages], grids: Sequence[VolumeGeometry]) -> list[_Answer]:
        if not ears:
            return []
        images = scaled(torch.stack([channels(ear, grid) for ear, grid in zip(ears, grids, strict=True)]))
        with torch.inference_mode():
            logits, log_sd = self._network(seen_twice(images).contiguous(memory_format=torch.channels_last_3d))
        total, share = torch.sigmoid(mean_of_looks(logits)).unbind(dim=1)
        ratio_sd = torch.stack(log_sd.chunk(2)).mean(dim=0).exp()
        return [_answer(grid, total[n], total[n] * share[n], float(ratio_sd[n])) for n, grid in enumerate(grids)]

    def _fluid(self, ear: EarImages, answer: _Answer) -> EarFluid:
        total, endolymph = (
            np.clip(resample(amount, ear.roi.geometry, interpolation=Interpolation.LINEAR).array, 0.0, 1.0)
            for amount in (answer.total, answer.endolymph)
        )
        return fluid_from_fractions(ear, total, endolymph, ratio_half_width=self._half_width(ear, answer))

    def _half_width(self, ear: EarImages, answer: _Answer) -> float | None:
        """Of the ratio's 95 % interval; None for an input set that the model was not calibrated on."""
        inputs = input_set(ear)
        scale = self.model.description.interval_scales.get(inputs)
        if scale is None:
            return None
        return min(WIDEST, scale * answer.ratio_sd)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Answer:
    """What the network said of one ear, on the network's grid."""

    total: Volume
    endolymph: Volume
    ratio_sd: float


def input_set(ear: EarImages) -> InputSet:
    """Which contrast series the ear was seen with."""
    if ear.phase_sensitive:
        return InputSet.REAL_IR
    if ear.ppi is not None:
        return InputSet.PPI_PEI
    return InputSet.HYDROPS_MI2 if ear.from_product else InputSet.HYDROPS


def _answer(grid: VolumeGeometry, total: Tensor, endolymph: Tensor, ratio_sd: float) -> _Answer:
    fluid: FloatImage = total.numpy()
    kept = fluid * labyrinth_in(fluid, grid.spacing_mm)
    return _Answer(
        total=Volume(array=kept, geometry=grid),
        endolymph=Volume(array=np.minimum(endolymph.numpy(), kept), geometry=grid),
        ratio_sd=ratio_sd,
    )


def labyrinth_in(fluid: FloatImage, spacing_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The largest part and those near it, with their partial volume.

    Distances are reckoned in the box of all fluid alone, a quarter of the grid: what decides them lies inside.
    """
    box = ndimage.find_objects((fluid >= NEGLIGIBLE).astype(np.int8))
    inside = np.zeros(fluid.shape, bool)
    if box:
        inside[box[0]] = _near_the_largest(fluid[box[0]], spacing_mm)
    return inside


def _near_the_largest(fluid: FloatImage, spacing_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    parts, count = ndimage.label(fluid >= PART_FRACTION, np.ones((3, 3, 3)))
    if count == 0:
        return np.zeros(fluid.shape, bool)
    numbers = np.arange(1, count + 1)
    main = parts == numbers[int(np.argmax(ndimage.sum_labels(fluid, parts, numbers)))]
    near = main
    if count > 1:
        gap = ndimage.distance_transform_edt(~main, sampling=spacing_mm)
        near = np.isin(parts, numbers[ndimage.minimum(gap, parts, numbers) <= GAP_MM])
    rim = ndimage.distance_transform_edt(~near, sampling=spacing_mm) <= RIM_MM
    inside: NDArray[np.bool_] = rim & (fluid >= NEGLIGIBLE)
    return inside


def _recentered(ear: EarImages, answer: _Answer) -> VolumeGeometry | None:
    """The grid around the fluid that was found, or None if the present one is centered well enough."""
    amount = np.asarray(answer.total.array, dtype=np.float64)
    if amount.sum() == 0.0:
        return None
    grid = answer.total.geometry
    center = grid.to_lps(ndimage.center_of_mass(amount))
    off_mm = float(np.linalg.norm(center - grid.to_lps(np.array(SHAPE) // 2)))
    return ear_grid(ear.roi.side, ear.mrc.geometry, center) if off_mm > RECENTER_MM else None
