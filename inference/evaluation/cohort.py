"""The patients that the node is judged on: a fixed, versioned distribution of phantoms, each drawn from its seed.

Seeds from `FIRST_SEED` to 999,999 belong to evaluation; training, validation and calibration draw theirs above.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from inference.anatomy import EarSide
from inference.cases import EarCase, InputSet, cut
from inference.contrast import hydrops_from_mi2, hydrops_from_ppi_pei
from inference.findings import EarImages, EarROI
from inference.geometry import Volume, VolumeGeometry
from inference.phantom import ContrastState, PhantomOptions, PhantomStudy
from inference.phantom.labyrinth import Compartment, FluidPoints
from inference.phantom.scene import Scene
from inference.phantom.voxelization import filled_fractions
from inference.resampling import Interpolation, resample

VERSION: Final = "realistic-1"
"""Changes whenever a number below does: figures of two versions must not be compared."""

DESCRIPTION: Final = (
    "whole studies of both ears: EH ratio 0.06 to 0.5 per ear, perilymph enhancement normal (60 %), strong (20 %) or "
    "weak (20 %), fluid SNR 3 to 12 on PPI and 25 to 60 on MRC, acquired resolution 1 to 1.3 times coarser than the "
    "voxels, coil gain up to 20 % different between the sides, motion up to 3 mm and 3 degrees between series, slab "
    "tilted by up to 25 degrees; 0.5 x 0.5 x 1.0 mm, 162 x 192 x 104 mm"
)

EAR_BOX_MM: Final = (26.0, 32.0, 32.0)
"""Edges along k, j, i of the box in which an ear is shown and its truth kept: the size that the localizer cuts out."""

FIRST_SEED: Final = 900_000

CONTRASTS: Final = (ContrastState.NORMAL,) * 3 + (ContrastState.STRONG, ContrastState.WEAK)

ROLES: Final = {
    InputSet.PPI_PEI: ("MRC", "PPI", "PEI"),
    InputSet.HYDROPS: ("MRC", "HYDROPS"),
    InputSet.HYDROPS_MI2: ("MRC", "HYDROPS_MI2"),
    InputSet.REAL_IR: ("MRC", "REAL_IR"),
}
"""The series of each input set; one patient is scanned with all of them and measured once with each."""


def patient(seed: int, input_sets: Sequence[InputSet] = tuple(InputSet)) -> PhantomOptions:
    """One patient and scan of the distribution; same seed, same patient, whichever series are made."""
    rng = np.random.default_rng([seed, 20_241])
    left, right = rng.uniform(0.06, 0.5, 2).tolist()
    return PhantomOptions(
        seed=seed,
        eh_ratio={EarSide.LEFT: left, EarSide.RIGHT: right},
        contrast=CONTRASTS[int(rng.integers(len(CONTRASTS)))],
        oblique_deg=(float(rng.uniform(-25, 25)), float(rng.uniform(-10, 10)), float(rng.uniform(-10, 10))),
        contrast_snr=float(rng.uniform(3, 12)),
        mrc_snr=float(rng.uniform(25, 60)),
        resolution=float(rng.uniform(1.0, 1.3)),
        side_difference=float(rng.uniform(-0.2, 0.2)),
        motion_mm=float(rng.uniform(0, 3)),
        motion_deg=float(rng.uniform(0, 3)),
        series=tuple(dict.fromkeys(role for one in input_sets for role in ROLES[one])),
    )


def tags_of(options: PhantomOptions, side: EarSide, inputs: InputSet) -> dict[str, str | float]:
    """What is known about one ear of a phantom, for grouping results."""
    return {
        "case": f"phantom {options.seed}",
        "side": side.value,
        "input_set": inputs.value,
        "contrast": options.contrast.value,
        "seed": options.seed,
        "snr": round(options.contrast_snr, 3),
        "motion_mm": round(options.motion_mm, 3),
    }


def ear_case(study: PhantomStudy, side: EarSide, inputs: InputSet, *, patient: Scene | None = None) -> EarCase:
    """One ear of a phantom with its truth, its images aligned by the motion that the phantom knows.

    The box is centered on the true fluid, so a segmentation of it is judged without search and registration.
    `patient`, as `phantom.study.draw_patient` draws it from the study's options, also tells compartments apart.
    """
    mrc = study.volumes["MRC"]
    box = _box_around(mrc.geometry, study.truth.ears[side].center_lps_mm)
    own = cut(mrc, box)
    shown = {
        role: resample(
            _acquired(study, role),
            box,
            moving_to_fixed=study.truth.motion[role],
            interpolation=Interpolation.BSPLINE,
        )
        for role in ROLES[inputs][1:]
    }
    if inputs is InputSet.PPI_PEI:
        hydrops = hydrops_from_ppi_pei(shown["PPI"], shown["PEI"])
    else:
        hydrops = shown[inputs.value]
    return EarCase(
        images=EarImages(
            roi=EarROI(side=side, center_lps_mm=study.truth.ears[side].center_lps_mm, geometry=box, score=1.0),
            mrc=own,
            hydrops=hydrops,
            ppi=shown.get("PPI"),
            phase_sensitive=inputs is InputSet.REAL_IR,
            from_product=inputs is InputSet.HYDROPS_MI2,
        ),
        total_fluid=cut(study.truth.total_fluid_fraction, box),
        endolymph=cut(study.truth.endolymph_fraction, box),
        compartments=None if patient is None else compartments(patient.fluids[side], box),
        tags=tags_of(study.options, side, inputs),
    )


def _acquired(study: PhantomStudy, role: str) -> Volume:
    """A series in the place where it was acquired; of HYDROPS-Mi2 the HYDROPS that was multiplied."""
    volume = study.volumes[role]
    return hydrops_from_mi2(volume, study.volumes["MRC"]) if role == InputSet.HYDROPS_MI2 else volume


def compartments(fluid: FluidPoints, box: VolumeGeometry) -> Volume:
    """Uint8: the compartment that fills most of each voxel of `box`, 0 where there is no fluid."""
    weights = np.stack([fluid.compartment == one for one in Compartment]).astype(np.float32)
    filled = filled_fractions(fluid.lps_mm, weights, fluid.volume_mm3, box)
    label = np.where(filled.sum(axis=0) > 0.0, filled.argmax(axis=0) + 1, 0)
    return Volume(array=label.astype(np.uint8), geometry=box)


def _box_around(grid: VolumeGeometry, center_lps_mm: tuple[float, float, float]) -> VolumeGeometry:
    """Whole voxels of `grid`, perhaps beyond its border, that hold any labyrinth centered there at any obliquity."""
    half = np.rint(np.array(EAR_BOX_MM) / grid.spacing_mm / 2.0).astype(int)
    k, j, i = (np.rint(grid.to_index(center_lps_mm)).astype(int) - half).tolist()
    depth, height, width = (2 * half).tolist()
    return grid.crop((k, j, i), (depth, height, width))
