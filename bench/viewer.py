"""How long a radiologist waits: from the click on a study's link until its segments are on the screen, in OHIF.

    python bench/viewer.py [--rounds 3] [--picture FILE]

The link is clicked in a real headless Chromium without graphics card, on the machine that also runs Orthanc and the
node's viewer; all are started, and nobody has asked for the study yet. "first" is a browser that never opened OHIF.
"again" is the same browser, closed and started anew, at its third visit: it has OHIF's programs in its cache, and has
kept them compiled. The watch stops when a pane shows colored pixels, once for the main pane (the slices as they were
scanned) and once for the last of the three panes with segments; then the screen itself is looked at. The study is
synthetic, four series of 104 slices and their results. The goal is 5 s for the main pane. Any other load on the machine
counts against it: the first line tells. --picture keeps a picture of the last screen, which docs/viewer.md shows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from chromium import chromium_with_profile
from local_orthanc import LocalOrthanc
from ohif_viewer import OVERLAYS, Shown, viewer_of, wait_for_overlay, watch
from phantom_patients import images_of, process
from suite import Benchmark, Better, Found, Measurement, run

from dicom_node.web.viewer.links import viewer_link
from inference.anatomy import EarSide
from inference.phantom import PhantomOptions, make_study

GOAL_S: Final = 5.0
MAIN_PANE: Final = "hydrops-slices"
ROLES: Final = ("MRC", "PPI", "PEI", "HYDROPS_MI2")
WAIT_S: Final = 120.0
WIDTH: Final = 1600
HEIGHT: Final = 1000

CLICK: Final = """link => `<a href="${link}"
  onclick="console.log('clicked at', performance.timeOrigin + performance.now())">Open in OHIF</a>`"""

WATCH: Final = """
window.overlaySeen = {};  // pane -> ms since 1970
const draw = CanvasRenderingContext2D.prototype.drawImage;
CanvasRenderingContext2D.prototype.drawImage = function (...given) {
  draw.apply(this, given);  // OHIF draws a pane elsewhere and copies it to the screen's canvas
  const pane = this.canvas.closest?.('[data-viewport-uid]')?.dataset.viewportUid;
  if (!pane || overlaySeen[pane]) return;
  if (!window.services.segmentationService.getSegmentationRepresentations(pane).length) return;
  const { data } = this.getImageData(0, 0, this.canvas.width, this.canvas.height);
  let colored = 0;  // the images are gray: red and blue are equal
  for (let at = 0; at < data.length; at += 4) if (Math.abs(data[at] - data[at + 2]) > 60) colored++;
  if (colored > 20)  // seen with the browser's next frame
    requestAnimationFrame(() => (overlaySeen[pane] ??= performance.timeOrigin + performance.now()));
};
"""
"""Costs one reading of each pane; screenshots would hold up what is measured."""


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Seconds from the click to the segments: in the main pane, and in all three that show them."""

    main_pane_s: float
    all_panes_s: float


def put_study(orthanc: LocalOrthanc, folder: Path) -> str:
    """The processed study with its results in the PACS; its Study Instance UID."""
    ratios = {EarSide.RIGHT: 0.12, EarSide.LEFT: 0.38}
    options = PhantomOptions(seed=7, eh_ratio=ratios, series=ROLES, oblique_deg=(12.0, 0.0, 0.0), motion_mm=1.5)
    images = images_of(make_study(options), *ROLES)
    process(images, folder)
    for path in [*(folder / "study").iterdir(), *(folder / "result").glob("*.dcm")]:
        orthanc.session.post(f"{orthanc.url}/instances", data=path.read_bytes()).raise_for_status()
    return str(images[0].StudyInstanceUID)


def click(shown: Shown, link: str) -> Waits:
    """Click on the link, on a page of its own, and wait until every pane shows segments, on the screen too."""
    page = shown.page
    page.add_init_script(WATCH)
    page.set_content(page.evaluate(CLICK, link))
    with page.expect_console_message(lambda said: said.text.startswith("clicked at")) as told:
        page.click("a", no_wait_after=True)
    clicked_ms = float(told.value.text.split()[-1])
    page.wait_for_url(link, wait_until="commit")
    page.wait_for_function(
        "panes => panes.every(pane => window.overlaySeen[pane])", arg=list(OVERLAYS), timeout=WAIT_S * 1000, polling=100
    )
    seen_ms: dict[str, float] = page.evaluate("window.overlaySeen")
    wait_for_overlay(shown)
    return Waits(
        main_pane_s=(seen_ms[MAIN_PANE] - clicked_ms) / 1000,
        all_panes_s=(max(seen_ms[pane] for pane in OVERLAYS) - clicked_ms) / 1000,
    )


def visit(profile: Path, link: str, picture: Path | None = None) -> Waits:
    """One visit in a browser that is started for it and closed behind it."""
    with chromium_with_profile(profile, width=WIDTH, height=HEIGHT) as context:
        shown = watch(context.pages[0])
        waits = click(shown, link)
        if picture is not None:
            shown.page.wait_for_timeout(1500)
            shown.page.screenshot(path=picture)
        return waits


def visits(rounds: int, picture: Path | None) -> tuple[list[Waits], list[Waits]]:
    """Each round's waits at the first visit and at the third."""
    first, again = [], []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-viewer-")))
        orthanc = stack.enter_context(LocalOrthanc(plugins=["OrthancDicomWeb"]))
        study = put_study(orthanc, folder)
        link = viewer_link(stack.enter_context(viewer_of(orthanc)), "127.0.0.1", study)
        for number in range(rounds):
            profile = folder / f"profile-{number}"
            first.append(visit(profile, link))
            visit(profile, link)
            again.append(visit(profile, link, picture if number == rounds - 1 else None))
            told = [f"{one.main_pane_s:.1f} s (all panes {one.all_panes_s:.1f} s)" for one in (first[-1], again[-1])]
            print(f"  {number + 1}/{rounds}: first {told[0]}, again {told[1]}", flush=True)
    return first, again


def measured(name: str, waits: Sequence[Waits]) -> Iterator[Measurement]:
    """The wait for the main pane, which has the goal, and for all panes."""
    main, everything = tuple(one.main_pane_s for one in waits), tuple(one.all_panes_s for one in waits)
    yield Measurement(what=f"{name}: main pane", unit="s", better=Better.LOWER, values=main, goal=GOAL_S)
    yield Measurement(what=f"{name}: all panes", unit="s", better=Better.LOWER, values=everything)


def measure(asked: argparse.Namespace) -> Found:
    """All visits of all browsers."""
    first, again = visits(asked.rounds, asked.picture)
    details = {"first": [asdict(one) for one in first], "again": [asdict(one) for one in again]}
    return Found(measurements=(*measured("first visit", first), *measured("third visit", again)), details=details)


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--rounds", type=int, default=3, help="new browsers, three visits each (default %(default)s)")
    parser.add_argument("--picture", type=Path, help="also keep a picture of the last screen here")


BENCHMARK: Final = Benchmark(
    name="viewer",
    question="How long does a radiologist wait from the click on a link until the segments are on the screen?",
    measure=measure,
    add_options=options,
    quick=("--rounds", "1"),
)

if __name__ == "__main__":
    run(BENCHMARK)
