"""The labyrinth in three dimensions: as large as measured, mirrored between the ears, endolymph to be seen."""

from __future__ import annotations

import numpy as np
import pytest
from ball_ears import ball_ear
from known_ears import fluid_of, measured_ear
from mr_sources import oblique_grid

from dicom_node.summary.labyrinth_picture import STEP_MM, LabyrinthPicture, labyrinth_picture, viewing_axes
from inference.anatomy import EarSide

SLAB = oblique_grid(shape=(44, 130, 240), spacing_mm=(1.0, 0.5, 0.5), angles_deg=(12.0, -6.0, 4.0))


def picture(side: EarSide) -> LabyrinthPicture:
    fluid = measured_ear(SLAB, side).fluid
    assert fluid is not None
    return labyrinth_picture(fluid)


def test_axes_are_a_right_handed_view_from_outside_and_the_ears_mirror_each_other() -> None:
    for side in EarSide:
        right, up, toward = viewing_axes(side)
        np.testing.assert_allclose(np.cross(right, up), toward, atol=1e-12)
        assert toward[0] * side.lps_sign > 0  # from the ear's own side
        assert toward[1] < 0  # from in front
        assert up[2] > 0.9
    np.testing.assert_allclose(viewing_axes(EarSide.LEFT)[2] * [-1, 1, 1], viewing_axes(EarSide.RIGHT)[2])


def test_the_front_of_the_patient_is_inward_on_both_pictures() -> None:
    assert picture(EarSide.RIGHT).letters[:2] == ("PR", "AL")
    assert picture(EarSide.LEFT).letters[:2] == ("AR", "PL")
    assert picture(EarSide.LEFT).letters[2:] == ("H", "F")


def test_a_ball_covers_its_own_cross_section() -> None:
    ear = ball_ear()
    grid = ear.total_fluid.geometry
    seen = labyrinth_picture(
        fluid_of(EarSide.LEFT, grid, np.asarray(ear.total_fluid.array), np.asarray(ear.endolymph.array))
    )
    assert seen.total_fluid.covered.sum() * STEP_MM**2 == pytest.approx(np.pi * 4.0**2, rel=0.05)
    assert seen.endolymph.covered.sum() * STEP_MM**2 == pytest.approx(np.pi * 2.4**2, rel=0.07)


def test_endolymph_shines_through_the_fluid_and_nothing_lies_on_empty_ground() -> None:
    seen = picture(EarSide.LEFT)
    for background in (0.0, 1.0):
        painted = seen.painted(background)
        inner = seen.endolymph.covered > 0.99
        outer = (seen.total_fluid.covered > 0.99) & (seen.endolymph.covered == 0.0)
        empty = seen.total_fluid.covered + seen.endolymph.covered == 0.0
        red_over_blue = painted[..., 0] - painted[..., 2]
        assert red_over_blue[inner].mean() > 0.1
        assert red_over_blue[outer].mean() < -0.05
        assert np.all(painted[empty] == background)


def test_an_ear_without_endolymph_or_fluid_is_drawn_empty() -> None:
    grid = ball_ear().total_fluid.geometry
    nothing = np.zeros(grid.shape, np.float32)
    seen = labyrinth_picture(fluid_of(EarSide.RIGHT, grid, nothing, nothing))
    assert np.all(seen.painted(0.0) == 0.0)
