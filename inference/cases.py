"""An ear with its truth: what segmentation is trained on and judged by.

Read from files by the shell (`dicom_node.labeled_cases`, `labeled_studies`); phantoms make them without any file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np

from inference.findings import EarImages
from inference.geometry import Volume, VolumeGeometry

Tags = Mapping[str, str | float]

COMPARTMENTS: Final = ("cochlea", "vestibule", "canals")
"""What a compartment label names: 1 is the first, 0 is unknown."""

CERTAIN_SIDE_MM: Final = 15.0
"""A labyrinth's distance from the middle of the coordinates that tells its side; a head lies off center by less."""


class InputSet(StrEnum):
    """What shows endolymph beside the MRC; the names that model descriptions and reports use."""

    PPI_PEI = "PPI_PEI"
    HYDROPS = "HYDROPS"
    HYDROPS_MI2 = "HYDROPS_MI2"
    REAL_IR = "REAL_IR"

    @property
    def file_names(self) -> tuple[str, ...]:
        """The files of a case, without suffix, that make this set; the MRC belongs to every set."""
        return tuple(self.value.lower().split("_")) if self is InputSet.PPI_PEI else (self.value.lower(),)


class CaseError(ValueError):
    """A case that cannot be used; the message names the file, what was expected and what was found."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EarCase:
    """One ear with its truth.

    Parameters
    ----------
    images
        What a segmenter sees.
    total_fluid, endolymph
        Float32, part of each voxel 0..1, endolymph <= total fluid. They lie on the lattice of `images.mrc`, though
        perhaps on another part of it: truth outside the images counts as well.
    compartments
        Uint8 on the truth's grid, which of `COMPARTMENTS` the fluid of each voxel belongs to; None if nobody knows.
    tags
        What is known about the ear: `case` names it, `side`, `input_set`; `severity`, `snr`, `domain` group results.

    Raises
    ------
    CaseError
        If the truths do not share one grid, leave 0..1, endolymph exceeds total fluid, or a compartment is unknown.
    """

    images: EarImages
    total_fluid: Volume
    endolymph: Volume
    compartments: Volume | None = None
    tags: Tags = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.total_fluid.geometry.same_grid(self.endolymph.geometry):
            raise CaseError(
                f"total fluid and endolymph must share one grid, found shapes {self.total_fluid.geometry.shape} "
                f"and {self.endolymph.geometry.shape} or different places"
            )
        total, endolymph = np.asarray(self.total_fluid.array), np.asarray(self.endolymph.array)
        if not (np.isfinite(total).all() and total.min() >= 0.0 and total.max() <= 1.0):
            raise CaseError("total fluid must be a part of each voxel, 0..1")
        if not (np.isfinite(endolymph).all() and (endolymph >= 0.0).all() and (endolymph <= total).all()):
            raise CaseError("endolymph must lie between 0 and the total fluid in every voxel")
        if self.compartments is None:
            return
        if not self.compartments.geometry.same_grid(self.total_fluid.geometry):
            raise CaseError(f"compartments must share the truth's grid, found shape {self.compartments.geometry.shape}")
        if not np.isin(self.compartments.array, range(len(COMPARTMENTS) + 1)).all():
            raise CaseError(f"compartments must be 0 to {len(COMPARTMENTS)} ({', '.join(COMPARTMENTS)})")


def cut(volume: Volume, box: VolumeGeometry) -> Volume:
    """The part of `volume` that `box`, another box of the same lattice, covers; zero where it reaches outside.

    Raises
    ------
    CaseError
        If the voxels of both do not coincide.
    """
    start = volume.geometry.to_index(box.to_lps((0, 0, 0)))
    k, j, i = (int(n) for n in np.rint(start))
    part = volume.crop((k, j, i), box.shape)
    if not part.geometry.same_grid(box, tolerance_mm=0.01):
        raise CaseError(
            f"expected one lattice of voxels, found spacing {volume.geometry.spacing_mm.tolist()} against "
            f"{box.spacing_mm.tolist()} mm, offset {start.round(3).tolist()} voxels"
        )
    return Volume(array=part.array, geometry=box)
