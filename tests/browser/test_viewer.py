"""What a radiologist sees in OHIF: the right colors on the right fluid, in every plane, and the report's numbers.

One synthetic patient with a nearly normal right and a hydropic left ear, in an oblique slab; and the same patient as a
scanner writes it that runs columns and slices from the other end. Judged by the pixels of the screen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from chromium import chromium, needs_chromium
from local_orthanc import LocalOrthanc, OrthancMissing
from numpy.typing import NDArray
from ohif_viewer import LABELMAP, OVERLAYS, Pane, Shown, open_study, under_new_names, viewer_of
from phantom_patients import copies, images_of, process, read_segments, scanned_from_the_other_end

from dicom_node.web.viewer.installation import is_installed, viewer_folder
from inference.anatomy import EarSide, FluidSpace
from inference.phantom import PhantomOptions, PhantomStudy, make_study

pytestmark = [
    pytest.mark.browser,
    pytest.mark.orthanc,
    needs_chromium,
    pytest.mark.skipif(not is_installed(viewer_folder()), reason="no OHIF here; `hydrops-node install-viewer`"),
]

ROLES = ("MRC", "PPI", "PEI")
SLICES = 104

NEAR_MM = 1.5
"""Half a slice, and half a pixel of the image either way."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One study on the screen: its findings, its written SEG, and the truth."""

    shown: Shown
    address: str
    findings: dict[str, Any]
    seg: Path
    patient: PhantomStudy

    def truth_mm(self, side: EarSide) -> NDArray[np.float64]:
        """(n, 3) LPS positions of one ear's fluid, as it was drawn."""
        fraction = self.patient.truth.total_fluid_fraction
        points = fraction.geometry.to_lps(np.argwhere(fraction.array >= 0.5))
        return points[np.sign(points[:, 0]) == side.lps_sign]


@pytest.fixture(scope="module")
def patient() -> PhantomStudy:
    ratios = {EarSide.RIGHT: 0.12, EarSide.LEFT: 0.38}
    return make_study(PhantomOptions(seed=7, eh_ratio=ratios, series=ROLES, oblique_deg=(12.0, -8.0, 5.0)))


@pytest.fixture(scope="module", params=["oblique", "reversed"])
def case(
    request: pytest.FixtureRequest, patient: PhantomStudy, served: Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    """One study, processed by the node, put into the PACS and opened."""
    images = under_new_names(copies(images_of(patient, *ROLES)), request.param)
    if request.param == "reversed":
        each_series = [images[start : start + SLICES] for start in range(0, len(images), SLICES)]
        images = [one for series in each_series for one in scanned_from_the_other_end(series)]
    folder: Path = tmp_path_factory.mktemp(request.param)
    answer = process(images, folder)
    assert answer.exit_status == 0
    for path in [*(folder / "study").iterdir(), *(folder / "result").glob("*.dcm")]:
        served.orthanc.session.post(f"{served.orthanc.url}/instances", data=path.read_bytes()).raise_for_status()
    with open_study(served.browser, served.address, str(images[0].StudyInstanceUID)) as shown:
        yield Case(
            shown=shown,
            address=served.address,
            findings=dict(answer.findings),
            seg=folder / "result" / "seg.dcm",
            patient=patient,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """One Orthanc, one viewer and one browser for everything here."""

    orthanc: LocalOrthanc
    address: str
    browser: Any


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    try:
        pacs = LocalOrthanc(plugins=["OrthancDicomWeb"])
    except OrthancMissing as missing:
        pytest.skip(str(missing))
    with ExitStack() as stack:
        orthanc = stack.enter_context(pacs)
        address = stack.enter_context(viewer_of(orthanc))
        yield Served(orthanc=orthanc, address=address, browser=stack.enter_context(chromium()))


def near(points: NDArray[np.float64], others: NDArray[np.float64], reach: float) -> float:
    """The part of `points` that has one of `others` within `reach`."""
    distances = np.sqrt(((points[:, None] - others[None]) ** 2).sum(axis=2)).min(axis=1)
    return float((distances <= reach).mean())


def in_plane(pane: Pane, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) rows and columns of the points that the pane's plane cuts, half a voxel of 1 mm either way."""
    rows_columns, distance = pane.project(points_mm)
    return rows_columns[np.abs(distance) <= 0.75]


@pytest.mark.parametrize("viewport", OVERLAYS)
def test_each_ears_colors_lie_on_that_ears_fluid(case: Case, viewport: str) -> None:
    pane = case.shown.pane(viewport)
    sides = [side for side in EarSide if len(pane.colored(side, FluidSpace.TOTAL_FLUID_SPACE)) > 20]
    assert sides == ([EarSide.RIGHT] if viewport == "hydrops-sagittal" else list(EarSide))
    for side in sides:
        truth = in_plane(pane, case.truth_mm(side))
        for space in FluidSpace:
            colored = pane.colored(side, space)  # the small endolymph of the right ear need not meet every plane
            assert not len(colored) or near(colored, truth, NEAR_MM / pane.mm_per_pixel) > 0.9, f"{side} {space}"
        drawn = np.concatenate([pane.colored(side, space) for space in FluidSpace])
        assert near(truth, drawn, NEAR_MM / pane.mm_per_pixel) > 0.8, f"{side}: fluid without overlay"


def test_the_overlay_lies_on_what_is_bright_in_the_images_themselves(case: Case) -> None:
    pane = case.shown.pane("hydrops-report")  # the image as stored, without the overlay
    for side in EarSide:
        inside = np.rint(in_plane(pane, case.truth_mm(side))).astype(int)
        if not len(inside):
            continue  # the pane shows the slice of one ear; the other may lie higher
        fluid = pane.image[inside[:, 0], inside[:, 1]].max(axis=1)
        rows, columns = np.mgrid[-25:26, -25:26].reshape(2, -1) + inside.mean(axis=0).astype(int)[:, None]
        around = pane.image[rows.clip(0, pane.image.shape[0] - 1), columns.clip(0, pane.image.shape[1] - 1)].max(axis=1)
        assert np.median(fluid) > 3 * np.median(around), side


def test_the_right_ears_color_is_on_the_side_that_is_marked_r(case: Case, request: pytest.FixtureRequest) -> None:
    pane = case.shown.pane("hydrops-slices")
    left_marker = case.shown.page.locator(".left-mid .orientation-marker-value").first.inner_text().strip()
    reversed_scan = "reversed" in request.node.name
    assert left_marker[0] == ("L" if reversed_scan else "R")
    right = pane.colored(EarSide.RIGHT, FluidSpace.TOTAL_FLUID_SPACE)[:, 1].mean()
    left = pane.colored(EarSide.LEFT, FluidSpace.TOTAL_FLUID_SPACE)[:, 1].mean()
    assert (right > left) if reversed_scan else (right < left)


def test_the_hydropic_ear_shows_more_endolymph(case: Case) -> None:
    pane = case.shown.pane("hydrops-coronal")
    right, left = (len(pane.colored(side, FluidSpace.ENDOLYMPH)) for side in (EarSide.RIGHT, EarSide.LEFT))
    assert left > 1.5 * right > 0


def test_the_browser_holds_every_voxel_of_the_segmentation(case: Case) -> None:
    written = {
        f"{side.value.capitalize()} {space.value.replace('_', ' ')}": len(segment.points_lps_mm)
        for (side, space), segment in read_segments(case.seg).items()
    }
    assert len(written) == 4
    # OHIF keeps the total fluid space and the endolymph in two layers, so overlapping voxels count in both.
    assert case.shown.page.evaluate(LABELMAP) == written


def test_segments_are_named_and_the_reports_values_stand_on_the_image(case: Case) -> None:
    text = case.shown.text()
    for name in ("Right total fluid space", "Left total fluid space", "Right endolymph", "Left endolymph"):
        assert name in text
    for side in ("right", "left"):
        ratio = case.findings["ears"][side]["eh_ratio"]
        low, high = (f"{100 * ratio[name]:.1f}" for name in ("low", "high"))
        assert f"{side.capitalize()} EH {100 * ratio['value']:.1f} % ({low} to {high})" in text
    right = case.findings["ears"]["right"]
    assert f"Right ear, EH ratio: {100 * right['eh_ratio']['value']:.1f} %" in text
    assert f"Total fluid: {right['total_fluid_mm3']:.1f} mm3" in text
    assert "Research use only" in text


def test_the_reports_outline_and_text_are_drawn_around_the_right_ear(case: Case) -> None:
    pane = case.shown.pane("hydrops-report")
    green = (pane.image[..., 1] > 180) & (pane.image[..., [0, 2]].max(axis=2) < 90)
    drawn = np.argwhere(green).astype(float)
    truth = in_plane(pane, case.truth_mm(EarSide.RIGHT))
    reach = NEAR_MM / pane.mm_per_pixel
    outline = drawn[[near(one[None], truth, 2 * reach) > 0 for one in drawn]]
    assert len(outline) > 50
    assert near(truth, outline, 4 * reach) > 0.8
    assert len(drawn) - len(outline) > 200  # the text beside it


def test_nothing_went_wrong_and_no_other_host_was_asked(case: Case) -> None:
    assert case.shown.errors == []
    assert case.shown.hosts - {""} == {urlsplit(case.address).netloc}
