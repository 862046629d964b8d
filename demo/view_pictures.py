"""Pictures of the views of a study, of a patient's history and of drift, for docs/dashboard-views.md.

    python demo/view_pictures.py [--all] [--out docs/pictures] [--keep FOLDER]

A real node measures one synthetic study whose patient moved between the series. The numbers of the other studies are
invented and written into the node's database: nobody waits for two hundred measurements to see a plot. Needs Orthanc
and Chromium, and a minute or two.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from dashboard_pictures import PICTURES, SIZES, chromium, node, send, sign_in, wait_until
from local_node import LocalNode
from local_orthanc import LocalOrthanc
from PIL import Image

from dicom_node.database import open_database
from dicom_node.delivery.outbox import Outbox, OutboxObject, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, OutcomeKind
from dicom_node.drift import DAY_S
from dicom_node.encoding.phantom_study import phantom_datasets
from dicom_node.ledger import Ledger, StudyEvent, StudyState
from dicom_node.study_cards import EarResult, StudyCard, StudyCards
from inference.anatomy import EarSide
from inference.phantom import PhantomOptions, make_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCANNERS: Final = ("Siemens Vida, MR1", "Philips Ingenia, MR2")
OF_THE_DOCS: Final = {
    ("both", "desktop", "light"),
    ("both", "phone", "dark"),
    ("history", "desktop", "light"),
    ("drift", "desktop", "light"),
}

STUDIES: Final = 180
DAYS: Final = 88.0
CHANGED_AFTER: Final = 150
"""From this study on, the first scanner reads higher: somebody changed its protocol."""

EARLIER: Final = (
    ("20240112", 0.15, 0.22),
    ("20240705", 0.16, 0.31),
    ("20250120", 0.14, 0.44),
    ("20251003", 0.17, 0.39),
)
"""Examination date, and EH ratio of the right and of the left ear."""


def main() -> int:
    """Make every picture; prints where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PICTURES, help="where the pictures go (default: docs/pictures)")
    parser.add_argument("--keep", type=Path, help="keep the node's folder here, to look around")
    parser.add_argument("--all", action="store_true", help="every page in both sizes and themes, not only the docs'")
    arguments = parser.parse_args()
    folder: Path = arguments.keep or Path(tempfile.mkdtemp(prefix="hydrops-views-"))
    try:
        with LocalOrthanc(folder / "orthanc") as pacs, node(folder, pacs) as running:
            uid = measure(running, folder / "study")
            invent(running.state_dir, uid, now=time.time())
            for path in photograph(running, uid, arguments.out, every=arguments.all):
                print(path)
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder)
    return 0


def measure(running: LocalNode, folder: Path) -> str:
    """Send a study whose patient moved by 2.5 mm, and wait for its result; returns its UID."""
    options = PhantomOptions(
        seed=5,
        eh_ratio={EarSide.RIGHT: 0.2, EarSide.LEFT: 0.45},
        series=("MRC", "PPI", "PEI"),
        oblique_deg=(15.0, 0.0, 0.0),
        motion_mm=2.5,
        motion_deg=2.0,
    )
    at = datetime(2026, 2, 17, 13, 40)  # noqa: DTZ001 - a scanner's clock
    sent = send(running, folder, phantom_datasets(make_study(options), started_at=at), StudyState.COMPUTED)
    wait_until(running, sent.uid, sent.ends_as)
    return sent.uid


def invent(state_dir: Path, uid: str, *, now: float) -> None:
    """Earlier examinations of the same patient, and three months of two scanners."""
    engine = open_database(f"sqlite:///{state_dir / 'node.db'}")
    cards, ledger, outbox = StudyCards(engine), Ledger(engine), Outbox(state_dir / "outbox", engine)
    card = cards.get(uid)
    assert card is not None, "a measured study has its card"
    for number, (date, right, left) in enumerate(EARLIER):
        earlier = replace(card, study_instance_uid=f"2.25.50{number}", study_date=date)
        cards.put(earlier)
        ledger.arrived(earlier.study_instance_uid, revision=1, at=now - 401 * DAY_S)
        begin(ledger, earlier.study_instance_uid, f"{number:064x}", at=now - 400 * DAY_S)
        ledger.move(earlier.study_instance_uid, StudyEvent.COMPUTED, at=now - 400 * DAY_S + number, findings={})
        model = "hydrops-ear 0.9" if number < 2 else "hydrops-ear 1"
        cards.put_results(
            [
                result(earlier, f"{number:064x}", side, ratio, at=now - 400 * DAY_S + number, model=model)
                for side, ratio in (("right", right), ("left", left))
            ]
        )
    rng = random.Random(3)
    for number in range(STUDIES):
        finish(number, card, cards, ledger, outbox, rng, at=now - DAYS * DAY_S * (1.0 - number / STUDIES))
    engine.dispose()


def begin(ledger: Ledger, uid: str, work_id: str, *, at: float) -> None:
    """An invented study is complete and computed from here on."""
    ledger.move(uid, StudyEvent.COMPLETED, at=at - 20.0, work_id=work_id, work={})
    ledger.move(uid, StudyEvent.STARTED, at=at - 10.0)


def finish(
    number: int, patient: StudyCard, cards: StudyCards, ledger: Ledger, outbox: Outbox, rng: random.Random, *, at: float
) -> None:
    """One invented study: refused now and then, else measured and delivered."""
    uid, work_id, first = f"2.25.6{number:03d}", f"{1000 + number:064x}", number % 3 > 0
    card = replace(patient, study_instance_uid=uid, patient_key="", patient_id="", scanner=SCANNERS[0 if first else 1])
    cards.put(card)
    ledger.arrived(uid, revision=1, at=at - rng.uniform(40.0, 80.0))
    begin(ledger, uid, work_id, at=at)
    if rng.random() < 0.08:
        ledger.move(uid, StudyEvent.REFUSED, at=at, findings={}, reason="EAR_NOT_FOUND")
        return
    ledger.move(uid, StudyEvent.COMPUTED, at=at, findings={})
    usual = 0.30 if first and number >= CHANGED_AFTER else 0.19
    remarks = ("LOW_SIGNAL",) if rng.random() < 0.1 else ()
    cards.put_results(
        [
            result(card, work_id, side, min(0.9, max(0.02, rng.gauss(usual, 0.06))), at=at, quality=remarks)
            for side in ("right", "left")
        ]
    )
    stored = OutboxObject(
        kind="SEG", sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4", sop_instance_uid=f"{uid}.1",
        series_instance_uid=f"{uid}.2", data=b"invented",
    )  # fmt: skip
    outbox.queue(work_id, uid, outbox.keep([stored]), ["invented"], at=at)
    for delivery in outbox.deliveries(uid):
        delivered = DeliveryOutcome(kind=OutcomeKind.DELIVERED, detail="")
        outbox.record(delivery.delivery_id, delivered, at + rng.uniform(1.0, 8.0), RetryPolicy())


def result(
    card: StudyCard,
    work_id: str,
    side: str,
    ratio: float,
    *,
    at: float,
    model: str = "hydrops-ear 1",
    quality: tuple[str, ...] = (),
) -> EarResult:
    """One ear of an invented study."""
    return EarResult(
        study_instance_uid=card.study_instance_uid,
        work_id=work_id,
        side=side,
        ratio=ratio,
        low=max(0.0, ratio - 0.05),
        high=min(1.0, ratio + 0.05),
        total_fluid_mm3=190.0,
        endolymph_mm3=190.0 * ratio,
        quality=quality,
        model=model,
        scanner=card.scanner,
        study_date=card.study_date,
        computed_at=at,
        seconds=6.0,
    )


def photograph(running: LocalNode, uid: str, out: Path, *, every: bool) -> Iterator[Path]:
    """The pictures of the docs, or `every` page in both sizes and themes."""
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    address = f"http://127.0.0.1:{running.web_port}"
    pages = {
        "history": f"/studies/{uid}/history",
        "drift": f"/drift?{urlencode({'scanner': SCANNERS[0]})}",
        "both": f"/studies/{uid}/views",
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium())
        for size, theme in product(SIZES, ("light", "dark")):
            with page_of(browser, address, size, theme) as page:
                for name, path in pages.items():
                    if every or (name, size, theme) in OF_THE_DOCS:
                        page.goto(f"{address}{path}")
                        if name == "both":
                            page.wait_for_selector('[data-views][data-state="ready"]')
                        whole = every or size == "desktop"  # a phone's whole page is two meters of paper
                        if not whole:
                            page.locator('[data-ear="right"]').evaluate("ear => ear.scrollIntoView()")
                        yield saved(page.screenshot(full_page=whole), out / f"views-{name}-{size}-{theme}.png")
                if (size, theme) == ("desktop", "light"):
                    yield from states(page, out)
        browser.close()


def states(page: Page, out: Path) -> Iterator[Path]:
    """The left ear alone, HYDROPS before and after alignment under the same contour."""
    page.locator('[name="ear"][value="left"]').check(force=True)
    for name, image in (("before", "before"), ("after", "hydrops")):
        page.locator(f'[name="image"][value="{image}"]').check(force=True)
        panes = page.locator('[data-ear="left"] .ear-panes')
        yield saved(panes.screenshot(), out / f"views-left-{name}.png")


@contextmanager
def page_of(browser: Browser, address: str, size: str, theme: str) -> Iterator[Page]:
    """A signed-in page of this size and theme."""
    width, height = SIZES[size]
    scheme = "dark" if theme == "dark" else "light"
    with browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme) as context:
        page = context.new_page()
        sign_in(page, address)
        yield page


def saved(picture: bytes, target: Path) -> Path:
    """The picture with at most 200 colors: a third of the size, and nothing that a reader would miss."""
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(200).save(target, optimize=True)
    return target


if __name__ == "__main__":
    sys.exit(main())
