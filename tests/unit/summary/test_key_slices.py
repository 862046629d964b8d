"""Key slices: the same anatomy in the same place, however the slab is turned or stored."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from known_ears import MODEL, measured_ear
from mr_sources import oblique_grid

from dicom_node.encoding.measurements import study_measurements
from dicom_node.summary.key_slices import KeySlice, key_slices
from inference.anatomy import EarSide
from inference.findings import EarFindings, LevelRatio, StudyFindings
from inference.geometry import VolumeGeometry

SLAB = oblique_grid(shape=(44, 130, 240), spacing_mm=(1.0, 0.5, 0.5), angles_deg=(12.0, -6.0, 4.0))


def turned(grid: VolumeGeometry, *axes: int) -> VolumeGeometry:
    """The same slab with some array axes running the other way."""
    affine = grid.index_to_lps.copy()
    for axis in axes:
        affine[:3, 3] = affine[:3, 3] + affine[:3, axis] * (grid.shape[axis] - 1)
        affine[:3, axis] *= -1.0
    return VolumeGeometry(shape=grid.shape, index_to_lps=affine, frame_of_reference_uid=grid.frame_of_reference_uid)


@cache
def ear_of(grid: VolumeGeometry, side: EarSide) -> EarFindings:
    return measured_ear(grid, side)


def shown(grid: VolumeGeometry, side: EarSide) -> tuple[KeySlice, ...]:
    return slices_of(ear_of(grid, side))


def slices_of(ear: EarFindings) -> tuple[KeySlice, ...]:
    findings = StudyFindings(ears={ear.side: ear}, alignments={}, model=MODEL)
    return key_slices(ear, study_measurements(findings).ear(ear.side))


@pytest.mark.parametrize("axes", [(0,), (2,), (0, 1, 2)])
def test_a_slab_stored_the_other_way_round_gives_the_same_pictures(axes: tuple[int, ...]) -> None:
    for side in EarSide:
        for one, other in zip(shown(SLAB, side), shown(turned(SLAB, *axes), side), strict=True):
            assert one.letters == other.letters
            assert one.total_fluid.shape == other.total_fluid.shape
            together = 2.0 * (one.total_fluid & _near(other.total_fluid, one.total_fluid)).sum()
            assert together / (one.total_fluid.sum() + other.total_fluid.sum()) > 0.9


def _near(mask: np.ndarray, to: np.ndarray) -> np.ndarray:
    """The mask moved by at most two pixels to lie on the other one: a crop may begin a pixel earlier."""
    moved = [np.roll(mask, (j, i), axis=(0, 1)) for j in range(-2, 3) for i in range(-2, 3)]
    return max(moved, key=lambda one: int((one & to).sum()))


def test_the_patients_right_is_on_the_viewers_left() -> None:
    for side in EarSide:
        for one in shown(SLAB, side):
            left, right, top, bottom = one.letters
            assert (left[0], right[0], top[0], bottom[0]) == ("R", "L", "A", "P")


def test_the_cochlea_lies_in_front_and_toward_the_midline_on_both_ears() -> None:
    """At the vestibule's level the front of the labyrinth is cochlea: no ear is mirrored."""
    for side, toward_midline in ((EarSide.RIGHT, 1.0), (EarSide.LEFT, -1.0)):
        fluid = shown(SLAB, side)[0].total_fluid
        rows, columns = np.nonzero(fluid)
        in_front = rows < np.quantile(rows, 0.3)
        assert (columns[in_front].mean() - columns.mean()) * toward_midline > 1.0


def test_each_level_is_shown_on_its_own_slice_with_its_name() -> None:
    ear = ear_of(SLAB, EarSide.LEFT)
    vestibule, cochlea = slices_of(ear)
    assert vestibule.title == f"Vestibule level, MRC slice {(ear.levels[0].slice_index or 0) + 1}"
    assert cochlea.title == f"Cochlea level, MRC slice {(ear.levels[1].slice_index or 0) + 1}"


def test_a_level_that_cannot_be_told_is_not_named_over_another_slice() -> None:
    ear = ear_of(SLAB, EarSide.LEFT)
    unknown = replace(ear, levels=(ear.levels[0], LevelRatio(part="cochlea", reason="it is filled")))
    titles = [one.title for one in slices_of(unknown)]
    assert titles[0].startswith("Vestibule level")
    assert titles[1] == "Another slice with much fluid"
    none = [one.title for one in slices_of(replace(ear, levels=()))]
    assert none == ["Slice with much fluid", "Another slice with much fluid"]


def test_an_ear_without_images_has_no_slices() -> None:
    assert slices_of(replace(ear_of(SLAB, EarSide.LEFT), images=None)) == ()


def test_endolymph_is_dark_and_perilymph_bright_on_hydrops_mi2() -> None:
    for one in shown(SLAB, EarSide.LEFT):
        perilymph = one.total_fluid & ~one.endolymph
        assert np.median(one.mi2[one.endolymph]) < 0.5 < np.median(one.mi2[perilymph])
        assert np.median(one.mi2[~one.total_fluid]) == pytest.approx(0.5, abs=0.05)
