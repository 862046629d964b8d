"""The route of the atlas papers to the labyrinth's fluid, with SimpleITK: what a node without a network would do.

    whole-head affine registration -> the ear's place -> deformable registration there -> the atlas's fluid, widened by
    0.5 mm -> of that, what Otsu's threshold calls bright

Published with ANTs, a template averaged from many heads, and symmetric diffeomorphisms; here with one synthetic head
of little noise as the template, and B-splines. Endolymph is what the older literature counts: fluid whose HYDROPS is
negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from SimpleITK import Version
from skimage.filters import threshold_otsu

from inference.anatomy import EarSide
from inference.geometry import FloatArray, Volume
from inference.phantom import PhantomStudy
from inference.resampling import to_sitk

ATLAS: Final = f"atlas route, SimpleITK {Version.VersionString()}"

BOX_MM: Final = 32.0
"""Around an ear: a labyrinth of 16 mm, and what the first registration is off."""

SPLINE_CELLS: Final = (4, 4, 4)
"""Of the coarser of two levels; the finer one bends every 4 mm, an ampulla and its canal."""

WIDENED_MM: Final = 0.5
SEED: Final = 20220602
BINS: Final = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Atlas:
    """A head whose ears are known: `mrc`, its total fluid fraction on the same grid, the ears' centers in LPS mm."""

    mrc: Volume
    total_fluid: Volume
    centers_mm: Mapping[EarSide, FloatArray]

    @classmethod
    def of(cls, study: PhantomStudy) -> Atlas:
        """A phantom as the template."""
        return cls(
            mrc=study.volumes["MRC"],
            total_fluid=study.truth.total_fluid_fraction,
            centers_mm={side: np.array(ear.center_lps_mm) for side, ear in study.truth.ears.items()},
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class AtlasEar:
    """One ear by the atlas: `total_fluid` and `endolymph` are masks on a crop of the patient's MRC grid."""

    center_mm: FloatArray
    total_fluid: Volume
    endolymph: Volume

    @property
    def eh_ratio(self) -> float:
        """Voxels of endolymph over voxels of fluid; NaN without fluid."""
        fluid = np.count_nonzero(self.total_fluid.array)
        return float(np.count_nonzero(self.endolymph.array) / fluid) if fluid else float("nan")


def atlas_ears(atlas: Atlas, mrc: Volume, hydrops: Volume, *, threads: int) -> dict[EarSide, AtlasEar]:
    """Both ears of a patient; `hydrops`, signed, must lie on the grid of `mrc` already."""
    to_atlas = _affine(atlas.mrc, mrc, threads)
    ears = {}
    for side, center in atlas.centers_mm.items():
        place = np.array(to_atlas.GetInverse().TransformPoint(center.tolist()))
        box, contrast = _around(mrc, place), _around(hydrops, place)
        fluid = _fluid(atlas, box, _deformed(atlas.mrc, box, to_atlas, threads))
        negative = fluid & (np.asarray(contrast.array) < 0.0)
        ears[side] = AtlasEar(
            center_mm=place,
            total_fluid=Volume(array=fluid, geometry=box.geometry),
            endolymph=Volume(array=negative, geometry=box.geometry),
        )
    return ears


def _affine(moving: Volume, fixed: Volume, threads: int) -> sitk.AffineTransform:
    """Points of the patient to points of the atlas, by the whole head; rigid first, or scales run away."""
    rigid = sitk.Euler3DTransform()
    rigid.SetCenter(fixed.geometry.center_lps_mm.tolist())
    method = _method(threads, 0.05, levels=((4, 2.0), (2, 1.0)))
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 0.01, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(rigid, True)
    method.Execute(to_sitk(fixed), to_sitk(moving))
    affine = sitk.AffineTransform(3)
    affine.SetCenter(rigid.GetCenter())
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    method = _method(threads, 0.05, levels=((4, 2.0), (2, 1.0)))
    method.SetOptimizerAsRegularStepGradientDescent(0.5, 0.004, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(affine, True)
    method.Execute(to_sitk(fixed), to_sitk(moving))
    return affine


def _deformed(moving: Volume, box: Volume, start: sitk.AffineTransform, threads: int) -> sitk.Transform:
    """Points of an ear's box to points of the atlas: rigid correction there, then B-splines."""
    fixed, whole = to_sitk(box), to_sitk(moving)
    nearer = sitk.Euler3DTransform()
    nearer.SetCenter(box.geometry.center_lps_mm.tolist())
    method = _method(threads, 0.3, levels=((2, 1.0), (1, 0.0)))
    method.SetOptimizerAsRegularStepGradientDescent(0.5, 0.004, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetMovingInitialTransform(start)
    method.SetInitialTransform(nearer, True)
    method.Execute(fixed, whole)
    so_far = sitk.CompositeTransform([start, nearer])
    splines = sitk.BSplineTransformInitializer(fixed, SPLINE_CELLS)
    method = _method(threads, 0.3, levels=((2, 1.0), (1, 0.0)))
    method.SetOptimizerAsLBFGS2(solutionAccuracy=1e-2, numberOfIterations=50, deltaConvergenceTolerance=0.01)
    method.SetMovingInitialTransform(so_far)
    method.SetInitialTransformAsBSpline(splines, True, [1, 2])
    method.Execute(fixed, whole)
    return sitk.CompositeTransform([start, nearer, splines])


def _method(threads: int, share: float, levels: tuple[tuple[int, float], ...]) -> sitk.ImageRegistrationMethod:
    """Mutual information on a share of the voxels, over `levels` of (shrink factor, smoothing in mm)."""
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(threads)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(share, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([factor for factor, _ in levels])
    method.SetSmoothingSigmasPerLevel([sigma for _, sigma in levels])
    return method


def _around(volume: Volume, center_mm: FloatArray) -> Volume:
    """The part of `volume` within half a box of a point."""
    size = np.ceil(BOX_MM / volume.geometry.spacing_mm).astype(int)
    start = np.rint(volume.geometry.to_index(center_mm)).astype(int) - size // 2
    return volume.crop(tuple(start.tolist()), tuple(size.tolist()))


def _fluid(atlas: Atlas, box: Volume, to_atlas: sitk.Transform) -> NDArray[np.bool_]:
    """The atlas's fluid as it lies in this ear, widened, and of that what is bright."""
    brought = sitk.Resample(to_sitk(atlas.total_fluid), to_sitk(box), to_atlas, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    mask = sitk.GetArrayFromImage(brought) >= 0.5
    if not mask.any():
        return mask
    wide = ndimage.distance_transform_edt(~mask, sampling=box.geometry.spacing_mm) <= WIDENED_MM
    values = np.asarray(box.array, dtype=np.float32)
    bright: NDArray[np.bool_] = wide & (values > threshold_otsu(values))
    return bright
