"""A computed study as NIfTI files on the grid of its MRC: what 3D Slicer, ITK-SNAP and scripts open.

The files are at once a labeled case (`labeled_cases`): corrected by a reader, they train and judge a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from dicom_node.assembly.headers import SeriesRole
from dicom_node.encoding.nifti import nifti_bytes
from dicom_node.pipeline import Volumes, hydrops_on, read_contrast
from dicom_node.views.pack import label_map
from inference.anatomy import FluidSpace
from inference.findings import EarFindings, StudyFindings
from inference.geometry import Volume, VolumeGeometry

DESCRIPTION: Final = "Hydrops Node, research use only"


def result_images(volumes: Volumes, findings: StudyFindings) -> dict[str, bytes]:
    """Files by name.

    mrc            the cisternography, as it came
    hydrops        the contrast, signed (perilymph > 0, endolymph < 0), aligned and resampled onto the MRC; computed
                   from PPI and PEI where those are there. `real_ir` if that is what was scanned
    labels         uint8: 1 right perilymph, 2 right endolymph, 3 left perilymph, 4 left endolymph, as in the SEG
    total_fluid    float32, the part of each voxel that is labyrinth fluid, 0..1; volumes are sums of these
    endolymph      the same for endolymph

    Parameters
    ----------
    volumes
        The series that the findings were made from.
    """
    mrc = volumes[SeriesRole.MRC]
    ears = [ear for ear in findings.ears.values() if ear.fluid is not None]
    contrast = read_contrast(volumes, [ear.fluid.roi for ear in ears if ear.fluid is not None])
    aligned = {SeriesRole(role): alignment for role, alignment in findings.alignments.items()}
    name = "real_ir" if SeriesRole.REAL_IR in contrast else "hydrops"
    images = {
        "mrc": _small(mrc),
        name: hydrops_on(mrc, contrast, aligned),
        "labels": label_map(findings, mrc.geometry),
        "total_fluid": _fractions(ears, FluidSpace.TOTAL_FLUID_SPACE, mrc.geometry),
        "endolymph": _fractions(ears, FluidSpace.ENDOLYMPH, mrc.geometry),
    }
    return {f"{name}.nii.gz": nifti_bytes(image, description=DESCRIPTION) for name, image in images.items()}


def _small(image: Volume) -> Volume:
    """Whole numbers that fit as int16, as scanners store them: half the size, nothing lost."""
    array = np.asarray(image.array)
    whole = array.astype(np.int16) if np.abs(array).max() <= np.iinfo(np.int16).max else array
    return Volume(array=whole, geometry=image.geometry) if np.array_equal(whole, array) else image


def _fractions(ears: Iterable[EarFindings], space: FluidSpace, grid: VolumeGeometry) -> Volume:
    """Both ears' fractions on the whole grid; the boxes lie centimeters apart."""
    whole = np.zeros(grid.shape, dtype=np.float32)
    for ear in ears:
        if ear.fluid is None:
            continue
        by_space: Mapping[FluidSpace, Volume] = {
            FluidSpace.TOTAL_FLUID_SPACE: ear.fluid.total_fluid_fraction,
            FluidSpace.ENDOLYMPH: ear.fluid.endolymph_fraction,
        }
        part = by_space[space]
        k, j, i = (int(n) for n in np.rint(grid.to_index(part.geometry.to_lps((0, 0, 0)))))
        depth, height, width = part.array.shape
        whole[k : k + depth, j : j + height, i : i + width] = part.array
    return Volume(array=whole, geometry=grid)
