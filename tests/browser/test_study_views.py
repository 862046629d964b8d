"""What a person sees of a study in a real browser, in pixels: place, side, blink, surfaces, and without JavaScript."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import pytest
from chromium import Watched, chromium, needs_chromium, pixels, signed_in
from dashboard_parts import make_parts, serving
from numpy.typing import NDArray
from playwright.sync_api import Browser, Locator, expect
from viewed_study import MOVED_MM, oblique_slab, viewed_study

from dicom_node.ledger import StudyEvent
from dicom_node.views.images import image_file
from dicom_node.views.pack import build_view_pack
from dicom_node.views.shelf import ViewShelf
from dicom_node.web.parts import WebParts
from inference.anatomy import EarSide
from inference.findings import StudyFindings

pytestmark = [pytest.mark.browser, needs_chromium]

TOTAL_FLUID, ENDOLYMPH = (86, 180, 233), (230, 159, 0)
CROP_MM = 32.0
STORED = {"2.25.1": (False, False, False), "2.25.2": (True, False, True), "2.25.3": (False, True, False)}
"""Studies by the axes (k, j, i) that run the other way: as usual, from the other corner, left-handed."""

MIRRORED = "2.25.4"

FINGER_PX = 44
"""WCAG 2.2, 2.5.5: the least height of what a finger is to hit."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The dashboard with its studies, a browser, and a page in it on which somebody signed in."""

    browser: Browser
    url: str
    findings: dict[str, StudyFindings]
    watched: Watched


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("views")
    parts, shelf = make_parts(folder), ViewShelf(folder / "views")
    findings = {}
    for number, (uid, turned) in enumerate(STORED.items()):
        slab = oblique_slab(turned=turned)
        findings[uid] = viewed_study(slab)
        shelf.put(f"{number:064x}", build_view_pack(findings[uid], slab).files)
        computed(parts, uid, f"{number:064x}")
    shelf.put(f"{99:064x}", with_a_mirrored_image())
    computed(parts, MIRRORED, f"{99:064x}")
    with serving(parts) as dashboard, chromium() as browser, signed_in(browser, dashboard.url) as watched:
        yield Shown(browser=browser, url=dashboard.url, findings=findings, watched=watched)


def computed(parts: WebParts, uid: str, work_id: str) -> None:
    parts.ledger.arrived(uid, revision=1, at=1.0)
    parts.ledger.move(uid, StudyEvent.COMPLETED, at=2.0, work_id=work_id, work={})
    parts.ledger.move(uid, StudyEvent.STARTED, at=3.0)
    parts.ledger.move(uid, StudyEvent.COMPUTED, at=4.0, findings={})


def with_a_mirrored_image() -> dict[str, bytes]:
    """A pack in which the left ear's MRC says that it lies on the other side."""
    slab = oblique_slab()
    findings = viewed_study(slab)
    mrc = findings.ears[EarSide.LEFT].images.mrc
    mirrored = np.diag([-1.0, 1.0, 1.0, 1.0]) @ mrc.geometry.index_to_lps
    data = image_file(replace(mrc, geometry=replace(mrc.geometry, index_to_lps=mirrored)))
    files = dict(build_view_pack(findings, slab).files)
    manifest = json.loads(files["manifest.json"])
    listed = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "media_type": "application/gzip"}
    manifest["files"]["left_mrc.nii.gz"] = listed
    return files | {"left_mrc.nii.gz": data, "manifest.json": json.dumps(manifest).encode()}


@pytest.fixture(params=STORED, ids=["as usual", "from the other corner", "left-handed"])
def opened(shown, request) -> tuple[Watched, StudyFindings]:
    ready(shown.watched, request.param)
    return shown.watched, shown.findings[request.param]


def ready(watched: Watched, uid: str) -> None:
    watched.go(f"/studies/{uid}/views")
    watched.page.wait_for_selector('[data-views][data-state="ready"]')


def choose(watched: Watched, name: str, value: str) -> None:
    watched.page.locator(f'[name="{name}"][value="{value}"]').check(force=True)


def picture(watched: Watched, side: EarSide, plane: str = "axial") -> NDArray[np.uint8]:
    return pixels(watched.page.locator(f'[data-ear="{side}"] [data-plane="{plane}"]'))


def middle_mm(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(right, down) of the middle of some pixels, in millimeters from the middle of the picture."""
    assert mask.sum() > 30, "nothing of that color is to be seen"
    rows, columns = np.nonzero(mask)
    size = np.array(mask.shape[::-1])
    return (np.array([columns.mean(), rows.mean()]) + 0.5 - size / 2.0) * CROP_MM / size


def of_color(seen: NDArray[np.uint8], color: tuple[int, int, int]) -> NDArray[np.bool_]:
    close: NDArray[np.bool_] = (np.abs(seen.astype(int) - color) <= 6).all(axis=-1)
    return close


def bright(seen: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The light pixels away from the border, where letters stand."""
    rim = seen.shape[0] // 5
    inner = np.zeros(seen.shape[:2], dtype=bool)
    inner[rim:-rim, rim:-rim] = True
    return inner & (seen.min(axis=-1) > 150)


def expected_mm(findings: StudyFindings, side: EarSide, k: int, *, endolymph: bool) -> NDArray[np.float64]:
    """Where the truth of slice `k` has to be seen: left of the patient to the right, back of the patient down."""
    fluid = findings.ears[side].fluid
    mask = fluid.endolymph_mask if endolymph else fluid.total_fluid_mask
    own = mask.array.astype(bool)
    if not endolymph:  # endolymph is painted over total fluid
        own = own & ~fluid.endolymph_mask.array.astype(bool)
    index = np.argwhere(own[k])
    places = mask.geometry.to_lps(np.column_stack([np.full(len(index), k), index]))
    offset = places.mean(axis=0) - mask.geometry.to_lps([k, *((np.array(own.shape[1:]) - 1) / 2.0)])
    right, down = (mask.geometry.directions[:, axis] for axis in (2, 1))
    return np.array([offset @ right * np.sign(right[0]), offset @ down * np.sign(down[1])])


def is_orange(seen: NDArray[np.int64]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (seen[..., 0] > 120) & (seen[..., 2] < seen[..., 0] - 60)
    return found


def is_blue(seen: NDArray[np.int64]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (seen[..., 2] > 60) & (seen[..., 2] > seen[..., 0] + 25)
    return found


def slice_shown(watched: Watched, side: EarSide) -> int:
    canvas = watched.page.locator(f'[data-ear="{side}"] [data-plane="axial"]')
    return int(canvas.get_attribute("aria-valuenow") or "") - 1


def test_the_overlay_lies_where_the_truth_is_in_every_storage_order(opened):
    watched, findings = opened
    choose(watched, "overlay", "fill")
    for side in EarSide:
        seen = picture(watched, side)
        k = slice_shown(watched, side)
        for color, endolymph in ((ENDOLYMPH, True), (TOTAL_FLUID, False)):
            found = middle_mm(of_color(seen, color))
            assert np.abs(found - expected_mm(findings, side, k, endolymph=endolymph)).max() < 0.3
    watched.assert_quiet()


def test_the_image_lies_under_the_overlay_and_the_right_ear_is_on_the_viewers_left(opened):
    watched, _findings = opened
    for side in EarSide:
        choose(watched, "overlay", "fill")
        seen = picture(watched, side)
        fluid = middle_mm(of_color(seen, TOTAL_FLUID) | of_color(seen, ENDOLYMPH))
        choose(watched, "overlay", "none")
        assert np.abs(middle_mm(bright(picture(watched, side))) - fluid).max() < 0.3
        # Endolymph lies toward the ear's own side of its fluid.
        assert np.sign(middle_mm(of_color(seen, ENDOLYMPH))[0] - fluid[0]) == side.lps_sign
    right, left = (watched.page.locator(f'[data-ear="{side}"]').bounding_box() for side in ("right", "left"))
    assert right["x"] + right["width"] <= left["x"]


def test_blinking_moves_the_image_under_a_contour_that_stays(shown):
    with signed_in(shown.browser, shown.url, reduced_motion="reduce") as watched:
        ready(watched, "2.25.1")
        contours, places = [], []
        for image in ("hydrops", "before"):
            choose(watched, "image", image)
            choose(watched, "overlay", "contour")
            contours.append(middle_mm(of_color(picture(watched, EarSide.LEFT), TOTAL_FLUID)))
            choose(watched, "overlay", "none")
            places.append(middle_mm(bright(picture(watched, EarSide.LEFT))))
        assert np.allclose(contours[0], contours[1], atol=0.1)
        assert places[1][0] - places[0][0] == pytest.approx(MOVED_MM, abs=0.4)
        assert abs(places[1][1] - places[0][1]) < 0.5


def test_blinking_goes_by_itself_and_stops_on_request(shown):
    watched = shown.watched
    ready(watched, "2.25.1")
    page = watched.page
    page.keyboard.press("b")
    button = page.locator("[data-blink]")
    assert button.get_attribute("aria-pressed") == "true"
    for image in ("before", "hydrops", "before"):
        page.wait_for_selector(f'[name="image"][value="{image}"]:checked', state="attached")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    first = picture(watched, EarSide.RIGHT)
    page.wait_for_timeout(1_600)  # two changes' time
    assert np.array_equal(first, picture(watched, EarSide.RIGHT))


def test_who_asked_for_less_motion_changes_the_images_by_hand(shown):
    with signed_in(shown.browser, shown.url, reduced_motion="reduce") as watched:
        ready(watched, "2.25.1")
        button = watched.page.locator("[data-blink]")
        seen = []
        for _ in range(2):
            button.click()
            assert button.get_attribute("aria-pressed") == "false"
            seen.append(watched.page.locator('[name="image"]:checked').get_attribute("value"))
        assert seen == ["hydrops", "before"]


def test_the_surfaces_are_seen_and_turn_with_the_keys(shown):
    watched = shown.watched
    ready(watched, "2.25.1")
    surface = watched.page.locator('[data-ear="left"] .surface-frame')
    front = pixels(surface).astype(int)
    orange, blue = is_orange(front), is_blue(front)
    assert orange.sum() > 2_000
    assert blue.sum() > 5_000
    # Endolymph lies toward the patient's left: on the viewer's right from in front.
    assert np.nonzero(orange)[1].mean() > np.nonzero(blue | orange)[1].mean() + 3
    watched.page.locator('[data-ear="left"] [data-from="side"]').click()
    beside = pixels(surface).astype(int)
    # ... and to the front: on the viewer's left when the left ear is seen from the left.
    assert np.nonzero(is_orange(beside))[1].mean() < np.nonzero(is_orange(beside) | is_blue(beside))[1].mean() - 2
    watched.page.locator('[data-ear="left"] [data-surface]').press("ArrowLeft")
    assert not np.array_equal(beside, pixels(surface))
    watched.assert_quiet()


def test_wheel_and_keys_change_the_slice_and_the_page_says_so(shown):
    watched = shown.watched
    ready(watched, "2.25.1")
    canvas = watched.page.locator('[data-ear="right"] [data-plane="axial"]')
    begin = slice_shown(watched, EarSide.RIGHT)
    before = picture(watched, EarSide.RIGHT)
    canvas.press("ArrowUp")
    assert slice_shown(watched, EarSide.RIGHT) == begin + 1
    assert not np.array_equal(before, picture(watched, EarSide.RIGHT))
    canvas.hover()
    watched.page.mouse.wheel(0, -240)
    watched.page.locator(f'[data-ear="right"] [aria-valuenow="{begin + 1}"]').first.wait_for()
    assert "slice" in (canvas.get_attribute("aria-valuetext") or "")


def touched(shown: Shown) -> AbstractContextManager[Watched]:
    """A page on a device with nothing but a touch screen, and somebody signed in on it."""
    return signed_in(shown.browser, shown.url, has_touch=True, is_mobile=True)


def drawn(watched: Watched, side: EarSide) -> str:
    """The axial slice as it is drawn; a screenshot would give a touch screen its fine pointer back."""
    canvas = watched.page.locator(f'[data-ear="{side}"] [data-plane="axial"]')
    return str(canvas.evaluate("canvas => canvas.toDataURL()"))


def slider_of(watched: Watched, side: EarSide, plane: str = "axial") -> Locator:
    return watched.page.locator(f'[data-ear="{side}"] [data-slice="{plane}"]')


def test_a_finger_reaches_every_slice_while_both_ears_are_shown(shown):
    with touched(shown) as watched:
        ready(watched, "2.25.1")
        for side in EarSide:
            slider = slider_of(watched, side)
            box = slider.bounding_box()
            assert box["height"] >= FINGER_PX
            before, last = drawn(watched, side), int(slider.get_attribute("max") or "")
            slider.tap(position={"x": box["width"] - 4.0, "y": box["height"] / 2.0})
            assert slice_shown(watched, side) == last - 1
            assert drawn(watched, side) != before
            slider.tap(position={"x": 1.0, "y": box["height"] / 2.0})
            assert slice_shown(watched, side) == 0
        watched.assert_quiet()


def test_hints_at_keys_and_wheel_are_for_those_who_have_them(shown):
    ready(shown.watched, "2.25.1")
    assert shown.watched.page.get_by_text("wheel").is_visible()
    with touched(shown) as watched:
        ready(watched, "2.25.1")
        assert watched.page.locator("kbd:visible").count() == 0
        assert watched.page.get_by_text("wheel").is_hidden()
        assert watched.page.get_by_text("the slider below leads to other slices").is_visible()


def test_the_slider_goes_with_wheel_keys_and_crosshair_and_has_a_name(shown):
    watched = shown.watched
    ready(watched, "2.25.1")
    choose(watched, "ear", "right")
    canvas = watched.page.locator('[data-ear="right"] [data-plane="axial"]')
    slider = watched.page.get_by_role("slider", name="Slice, right ear, axial", exact=True)
    begin = slice_shown(watched, EarSide.RIGHT) + 1
    canvas.press("ArrowUp")
    assert slider.input_value() == str(begin + 1)
    slider.press("ArrowLeft")
    assert slice_shown(watched, EarSide.RIGHT) + 1 == begin
    assert slider.get_attribute("aria-valuetext") == f"slice {begin} of {slider.get_attribute('max')}"
    canvas.hover()
    watched.page.mouse.wheel(0, -240)
    expect(slider).to_have_value(str(begin - 1))
    other_planes = [slider_of(watched, EarSide.RIGHT, plane) for plane in ("coronal", "sagittal")]
    before = [one.input_value() for one in other_planes]
    canvas.click(position={"x": 40.0, "y": 40.0})
    assert all(one.input_value() != was for one, was in zip(other_planes, before, strict=True))
    watched.page.locator("[data-reset]").click()
    assert slider.input_value() == str(begin)


def test_one_ear_alone_shows_three_planes_of_the_same_place(shown):
    watched = shown.watched
    ready(watched, "2.25.2")
    choose(watched, "ear", "right")
    choose(watched, "overlay", "fill")
    assert watched.page.locator('[data-ear="left"]').is_hidden()
    for plane in ("axial", "coronal", "sagittal"):
        seen = picture(watched, EarSide.RIGHT, plane)
        assert of_color(seen, ENDOLYMPH).sum() > 30
        assert of_color(seen, TOTAL_FLUID).sum() > 30


def test_an_image_that_lies_elsewhere_than_stated_is_not_shown(shown):
    watched = shown.watched
    watched.go(f"/studies/{MIRRORED}/views")
    watched.page.wait_for_selector('[data-views][data-state="failed"]')
    message = watched.page.locator("[data-failure]").inner_text()
    assert "left_mrc.nii.gz: lies elsewhere in the patient than the node says; it is not shown" in message
    assert watched.page.locator("[data-interactive]").is_hidden()
    assert watched.page.locator("[data-stills] img").first.is_visible()


def test_without_javascript_the_still_pictures_and_the_numbers_are_there(shown):
    with signed_in(shown.browser, shown.url, java_script_enabled=False) as watched:
        watched.go("/studies/2.25.1/views")
        images = watched.page.locator("[data-stills] img")
        assert images.count() == 4
        for number in range(4):
            images.nth(number).scroll_into_view_if_needed()
            seen = pixels(images.nth(number))
            assert seen.max() > 200
            assert "EH ratio" in (images.nth(number).get_attribute("alt") or "")
        assert watched.page.locator("[data-interactive]").is_hidden()
        watched.assert_quiet()
