"""Pictures and the page of ears side by side, of a ball-shaped ear: complete, and without guesses."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from inference.anatomy import EarSide
from inference.cases import EarCase
from inference.evaluation import pictures
from inference.evaluation.pictures import Shown, labyrinth_in_space, overlays
from inference.evaluation.scores import compare
from inference.evaluation.side_by_side import Compared, figures, page
from inference.findings import EarFluid, EarImages, EarROI, ModelIdentity
from inference.geometry import Volume, VolumeGeometry
from inference.segmentation import fluid_from_fractions


def grid() -> VolumeGeometry:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[::-1] * (1.0, 0.5, 0.5)
    affine[:3, 3] = (30.0, 0.0, -12.0)
    return VolumeGeometry(shape=(20, 48, 48), index_to_lps=affine, frame_of_reference_uid="1.2.3")


def ball(radius_mm: float) -> Volume:
    geometry = grid()
    index = np.moveaxis(np.indices(geometry.shape), 0, -1)
    distance = np.linalg.norm(geometry.to_lps(index) - geometry.center_lps_mm, axis=-1)
    return Volume(array=(distance <= radius_mm).astype(np.float32), geometry=geometry)


@pytest.fixture(scope="module")
def ear() -> tuple[EarCase, EarFluid]:
    x, y, z = grid().center_lps_mm.tolist()
    total, endolymph = ball(5.0), ball(2.5)
    images = EarImages(
        roi=EarROI(side=EarSide.LEFT, center_lps_mm=(x, y, z), geometry=grid(), score=1.0),
        mrc=Volume(array=900.0 * total.array, geometry=grid()),
        hydrops=Volume(array=50.0 * total.array - 90.0 * endolymph.array, geometry=grid()),
    )
    case = EarCase(images=images, total_fluid=total, endolymph=endolymph)
    return case, fluid_from_fractions(images, np.asarray(total.array), np.asarray(endolymph.array))


def amber_share(png: bytes) -> float:
    """Part of the picture that has the hue of endolymph, lit or in shade."""
    rgb = imread(io.BytesIO(png))[..., :3]
    return float(((rgb[..., 0] > 0.3) & (rgb[..., 2] < 0.3 * rgb[..., 0]) & (rgb[..., 1] > 0.4 * rgb[..., 0])).mean())


def test_endolymph_is_drawn_in_space_only_where_it_was_seen(ear: tuple[EarCase, EarFluid]) -> None:
    _, fluid = ear
    assert amber_share(labyrinth_in_space(fluid, "with")) > 0.005
    assert amber_share(labyrinth_in_space(fluid, "without", endolymph=False)) == 0.0


def test_an_ear_without_fluid_is_an_empty_picture_and_no_error(ear: tuple[EarCase, EarFluid]) -> None:
    case, fluid = ear
    nothing = np.zeros(grid().shape, dtype=np.float32)
    empty = fluid_from_fractions(case.images, nothing, nothing)
    assert amber_share(labyrinth_in_space(empty, "empty")) == 0.0
    assert overlays([Shown(case=case, fluid=empty, caption="empty")]).startswith(b"\x89PNG")
    assert overlays([Shown(case=case, fluid=fluid, caption="found")]) != overlays(
        [Shown(case=case, fluid=empty, caption="found")]
    )


def test_the_surface_lies_where_the_fluid_ends() -> None:
    triangles = pictures._surface(ball(5.0))
    assert triangles is not None
    radius = np.linalg.norm(triangles.reshape(-1, 3) - grid().center_lps_mm, axis=1)
    assert np.abs(radius - 5.0).max() < 0.8


def test_the_page_is_complete_in_itself_and_prints_the_scores(ear: tuple[EarCase, EarFluid]) -> None:
    case, fluid = ear
    hydrops = replace(case.images.hydrops, array=np.zeros(grid().shape, dtype=np.float32))
    alone = replace(case, images=replace(case.images, hydrops=hydrops))
    shown = [
        Compared(name=name, case=one, fluid=fluid, score=compare(fluid, one))
        for name, one in (("whole", case), ("MRC alone", alone))
    ]
    assert [one.shows_endolymph for one in shown] == [True, False]
    document = page(shown, ModelIdentity(name="ear", version="7", sha256="ab" * 32))
    assert document.count("data:image/png;base64,") == 3
    assert "http" not in document
    assert "Research use only" in document
    for row in figures(shown).rows:
        assert row[1] == "1.000"
        assert all(cell in document for cell in row)
