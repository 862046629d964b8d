"""How long a radiologist waits: from the click on a study's link until the segments are on the screen, in OHIF.

    python bench/viewer.py [--rounds 5] [--json FILE] [--picture FILE]

The link is clicked in a real headless Chromium, which draws without a graphics card, on the machine that also runs
Orthanc and the node's viewer. "first" is a browser that never opened OHIF; "again" is the same browser later the same
day, with OHIF's files in its cache, as at a reading place. The study is synthetic, four series of 104 slices and their
results. The goal is 5 s. --picture keeps a picture of the last screen, which docs/viewer.md shows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from chromium import chromium
from local_orthanc import LocalOrthanc
from machine import machine, machine_line
from ohif_viewer import Shown, viewer_of, wait_for_overlay, watched
from phantom_patients import images_of, process

from dicom_node.web.viewer.links import viewer_link
from inference.anatomy import EarSide
from inference.phantom import PhantomOptions, make_study

GOAL_S = 5.0
ROLES = ("MRC", "PPI", "PEI", "HYDROPS_MI2")


def put_study(orthanc: LocalOrthanc, folder: Path) -> str:
    """The processed study with its results in the PACS; its Study Instance UID."""
    ratios = {EarSide.RIGHT: 0.12, EarSide.LEFT: 0.38}
    options = PhantomOptions(seed=7, eh_ratio=ratios, series=ROLES, oblique_deg=(12.0, 0.0, 0.0), motion_mm=1.5)
    images = images_of(make_study(options), *ROLES)
    process(images, folder)
    for path in [*(folder / "study").iterdir(), *(folder / "result").glob("*.dcm")]:
        orthanc.session.post(f"{orthanc.url}/instances", data=path.read_bytes()).raise_for_status()
    return str(images[0].StudyInstanceUID)


def click(shown: Shown, link: str) -> float:
    """Seconds from a click on the link, on a page of its own, until the overlay is in every pane."""
    shown.page.goto("about:blank")
    shown.page.set_content(f'<a href="{link}">Open in OHIF</a>')
    began = time.perf_counter()
    shown.page.click("a", no_wait_after=True)
    wait_for_overlay(shown)
    return time.perf_counter() - began


def measure(rounds: int, picture: Path | None) -> tuple[list[float], list[float]]:
    """Seconds of each round in a browser that never opened OHIF, and again in the same one."""
    first, again = [], []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-viewer-")))
        orthanc = stack.enter_context(LocalOrthanc(plugins=["OrthancDicomWeb"]))
        study = put_study(orthanc, folder)
        link = viewer_link(stack.enter_context(viewer_of(orthanc)), "127.0.0.1", study)
        for number in range(rounds):
            # A browser of its own each time: Chromium keeps compiled scripts between the sessions of one process.
            with chromium() as browser, watched(browser) as shown:
                first.append(click(shown, link))
                again.append(click(shown, link))
                print(f"  {number + 1}/{rounds}: first {first[-1]:.1f} s, again {again[-1]:.1f} s", flush=True)
                if picture is not None and number == rounds - 1:
                    shown.page.wait_for_timeout(1500)
                    shown.page.screenshot(path=picture)
    return first, again


def report(name: str, values: Sequence[float]) -> str:
    """One line with median and range, and whether the goal is met."""
    middle = statistics.median(values)
    verdict = "met" if middle <= GOAL_S else "not met"
    return f"{name:6} {middle:6.1f} s  ({min(values):.1f} to {max(values):.1f})  goal {GOAL_S:.0f} s {verdict}"


def main() -> None:
    """Measure, print, and write JSON or a picture when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="browsers (default %(default)s)")
    parser.add_argument("--json", type=Path, help="also write all values here")
    parser.add_argument("--picture", type=Path, help="also keep a picture of the last screen here")
    asked = parser.parse_args()
    print(machine_line(), flush=True)
    first, again = measure(asked.rounds, asked.picture)
    print(report("first", first))
    print(report("again", again))
    if asked.json:
        content = {"machine": machine(), "first_s": first, "again_s": again}
        asked.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
