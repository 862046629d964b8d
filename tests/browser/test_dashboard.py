"""The dashboard in a real browser: hostile names, keyboard, contrast, small screens, live steps, without JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from chromium import PATIENCE_MS, Watched, chromium, needs_chromium, signed_in
from dashboard_parts import Dashboard, make_parts, serving
from hostile_text import HOSTILE, MARK, plant_hostile, refused_of, study_of
from planted_studies import NOW, plant, plant_objects, work_of
from playwright.sync_api import Browser, Page, expect

from dicom_node.ledger import StudyEvent, StudyState
from dicom_node.web.progress import STEPS

pytestmark = [pytest.mark.browser, needs_chromium]

MEASURED, REFUSED = "2.25.1", "2.25.2"
HISTORY = f"/studies/{MEASURED}/history"
PAGES = (
    "/studies",
    f"/studies/{MEASURED}",
    HISTORY,
    f"/studies/{REFUSED}",
    f"/studies/{MEASURED}/actions/replay",
    "/sign-in",
)

CONTRAST_AA = 4.5
"""WCAG 2.2, 1.4.3: of text against what is behind it."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The dashboard and a browser; `ada`, the admin, has signed in on its page."""

    dashboard: Dashboard
    browser: Browser
    ada: Watched

    @property
    def page(self) -> Page:
        return self.ada.page


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    parts = make_parts(tmp_path_factory.mktemp("node"))
    plant_hostile(parts)
    detail = "expected MRC with PPI and PEI, HYDROPS, HYDROPS_MI2 or REAL_IR; found only MRC"
    plant(parts, uid=REFUSED, state=StudyState.REFUSED, reason="PARTNER_MISSING", detail=detail, at=NOW + 1)
    plant(parts, uid=MEASURED, at=NOW + 2)
    plant_objects(parts, study_of(0))
    with serving(parts) as dashboard, chromium() as browser, signed_in(browser, dashboard.url, "ada") as ada:
        yield Shown(dashboard=dashboard, browser=browser, ada=ada)


# --- Hostile names ----------------------------------------------------------------------------------------------------


def test_no_script_of_a_sender_runs_on_any_page(shown: Shown) -> None:
    with signed_in(shown.browser, shown.dashboard.url, "ada") as watched:
        page, dialogs = watched.page, []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.add_init_script(f"window.ran = 0; window.{MARK} = () => {{ window.ran += 1; }};")
        for address in [
            "/studies",
            "/drift",
            *(f"/studies/{study_of(n)}" for n in range(len(HOSTILE))),
            f"/studies/{refused_of(0)}",
        ]:
            watched.go(address)
            for field in page.locator("input:visible, textarea:visible").all()[:3]:
                field.focus()
            assert page.evaluate("window.ran") == 0, address
            assert MARK not in page.url
        assert dialogs == []
        watched.assert_quiet()


def test_a_planted_script_would_be_seen_by_these_tests(shown: Shown) -> None:
    with shown.browser.new_context() as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.add_init_script(f"window.ran = 0; window.{MARK} = () => {{ window.ran += 1; }};")
        page.goto("about:blank")
        page.set_content("".join(HOSTILE))
        page.wait_for_function("window.ran > 0")
        assert page.evaluate("window.ran") > 0


# --- Looks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", PAGES)
def test_every_text_stands_out_from_what_is_behind_it(shown: Shown, address: str, scheme: str) -> None:
    shown.page.emulate_media(color_scheme=scheme)
    shown.ada.go(address)
    assert shown.page.evaluate(FAINT_TEXTS, CONTRAST_AA) == []
    shown.ada.assert_quiet()


FAINT_TEXTS = """least => {
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map(x => x / 255).map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, n) => sum + x * [0.2126, 0.7152, 0.0722][n], 0);
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = numbers(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, canvas, .visually-hidden, .skip-link")) continue;
    const [a, b] = [light(numbers(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least) faint.push(`${element.textContent.trim().slice(0, 40)} (${element.className}): ${ratio}`);
  }
  return faint;
}"""


def ground(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_light_and_dark_follow_the_system_until_a_person_chooses(shown: Shown) -> None:
    with signed_in(shown.browser, shown.dashboard.url, "vera", color_scheme="light") as watched:
        page = watched.page
        light = ground(page)
        page.emulate_media(color_scheme="dark")
        dark = ground(page)
        assert light != dark
        body = page.locator("body")
        page.get_by_role("button", name="light").click()
        expect(body).to_have_css("background-color", light)
        watched.go(f"/studies/{MEASURED}")
        expect(body).to_have_css("background-color", light)
        page.get_by_role("button", name="auto").click()
        expect(body).to_have_css("background-color", dark)
        watched.assert_quiet()


@pytest.mark.parametrize("address", PAGES)
def test_nothing_is_wider_than_a_phone(shown: Shown, address: str) -> None:
    before = shown.page.viewport_size
    assert before is not None
    shown.page.set_viewport_size({"width": 390, "height": 844})
    shown.ada.go(address)
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 390
    shown.page.set_viewport_size(before)


def test_the_numbers_of_a_history_are_whole_and_named_on_a_phone(shown: Shown) -> None:
    before = shown.page.viewport_size
    assert before is not None
    shown.page.set_viewport_size({"width": 390, "height": 844})
    shown.ada.go(HISTORY)
    frame = shown.page.locator(".table-frame")
    assert frame.evaluate("frame => frame.scrollWidth <= frame.clientWidth")
    cells = frame.locator("tbody tr").first.locator("td")
    said = cells.evaluate_all("cells => cells.map(cell => getComputedStyle(cell, '::before').content)")
    names = [one.strip('" ') for one in said]
    assert names == frame.locator("thead th").all_inner_texts()[1:]
    assert shown.page.get_by_role("columnheader").count() == len(names) + 1  # a screen reader still finds a table
    shown.page.set_viewport_size(before)


# --- Keyboard and screen reader ---------------------------------------------------------------------------------------


def focused(page: Page) -> str:
    return str(page.evaluate("(document.activeElement.textContent || document.activeElement.name || '').trim()"))


def test_the_keyboard_alone_leads_to_a_study_and_through_a_search(shown: Shown) -> None:
    with signed_in(shown.browser, shown.dashboard.url, "vera") as watched:
        page = watched.page
        watched.go("/studies")
        page.keyboard.press("Tab")
        assert focused(page) == "Skip to content"
        assert page.locator(".skip-link").bounding_box()["y"] >= 0, "the link shows itself when it has the focus"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == "text"
        page.keyboard.type("Curie")
        page.keyboard.press("Enter")
        page.wait_for_url("**/studies?search=*")
        seen = []
        page.locator("main").focus()
        while "Curie, Marie" not in seen and len(seen) < 20:
            page.keyboard.press("Tab")
            seen.append(focused(page))
            assert outlined(page), seen[-1]
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/studies/{MEASURED}")


def outlined(page: Page) -> bool:
    """Whether the focus can be seen: an outline on the element, or on what stands for it."""
    return bool(
        page.evaluate(
            "['', '::after'].some(part => parseFloat(getComputedStyle(document.activeElement, part).outlineWidth) >= 2)"
        )
    )


@pytest.mark.parametrize("address", PAGES)
def test_a_screen_reader_finds_landmarks_labels_and_captions(shown: Shown, address: str) -> None:
    shown.ada.go(address)
    page = shown.page
    assert page.locator("html[lang=en] main").count() == 1
    assert page.locator("h1").count() == 1
    for control in page.locator("input:not([type=hidden]), select, textarea, button").all():
        named = control.evaluate("e => !!(e.labels && e.labels.length) || !!e.ariaLabel || !!e.textContent.trim()")
        assert named, control.evaluate("e => e.outerHTML")
    for table in page.locator("table").all():
        assert table.locator("caption").count() == 1
        assert table.locator("th[scope=col]").count() >= 2
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("svg:not([aria-hidden=true]):not([aria-label]):not([aria-labelledby])").count() == 0


# --- Live -------------------------------------------------------------------------------------------------------------


def test_steps_move_while_one_looks_and_the_result_comes_by_itself(shown: Shown) -> None:
    parts, uid = shown.dashboard.parts, "2.25.7"
    plant(parts, uid=uid, state=StudyState.COMPUTING)
    record = parts.ledger.get(uid)
    assert record is not None
    shown.ada.go(f"/studies/{uid}")
    for step in ("find ears", "segment fluid"):
        parts.ledger.step(uid, step, work=record.work, at=NOW)
        expect(shown.page.locator(".step-now")).to_have_text(STEPS[step])
    reasons = {"reason": "REG_POOR", "detail": "similarity 0.1, needed 0.3", "findings": {}}
    parts.ledger.move(uid, StudyEvent.REFUSED, at=NOW, work_id=work_of(uid), **reasons)
    expect(shown.page.locator(".state-why")).to_contain_text("the patient probably moved")
    shown.ada.assert_quiet()


def test_everything_that_matters_works_without_javascript(shown: Shown) -> None:
    with signed_in(shown.browser, shown.dashboard.url, "ada", java_script_enabled=False) as watched:
        page = watched.page
        page.get_by_label("Search by patient name").fill("Curie")
        page.get_by_role("button", name="Search").click()
        page.get_by_role("link", name="Curie, Marie").first.click()
        expect(page.locator("h1")).to_have_text("Curie, Marie")
        page.get_by_label("Comment").fill("seen without scripts")
        page.get_by_role("button", name="Accept").click()
        expect(page.locator("#reviews")).to_contain_text("seen without scripts")
        page.get_by_role("link", name="Examine again").click()
        page.get_by_role("button", name="Examine again").click()
        expect(page.get_by_role("status").first).to_contain_text("It was asked for")
        page.get_by_role("button", name="dark").click()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("h1")).to_have_text("Sign in")
