"""Pictures of the dashboard with synthetic studies, for docs/dashboard.md.

    python demo/dashboard_pictures.py [--out docs/pictures] [--keep FOLDER]

Starts a real Orthanc as the PACS and a real node, sends it synthetic studies that end in every way a study can end
(measured, repeated, refused, another examination, incomplete, being measured), signs in with the system's Chromium and
photographs what docs/dashboard.md shows, or with --every all pages at desktop and phone size, in light and in dark.
Needs Orthanc and Chromium, and minutes.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from local_node import LocalNode
from local_orthanc import LocalOrthanc
from pydicom.dataset import Dataset

from dicom_node.accounts.roles import Role
from dicom_node.accounts.users import Users
from dicom_node.database import open_database
from dicom_node.encoding.phantom_study import phantom_datasets
from dicom_node.ledger import StudyState
from inference.anatomy import EarSide
from inference.phantom import PhantomOptions, make_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES: Final = Path(__file__).resolve().parent.parent / "docs" / "pictures"
SIZES: Final = {"desktop": (1280, 900), "phone": (390, 844)}
THEMES: Final = ("light", "dark")
PASSWORD: Final = "only for pictures"  # noqa: S105 - of a node that lives for these minutes
SEEN: Final = ("MRC", "PPI", "PEI")
WAIT_S: Final = 600.0

PAGES: Final = ("measuring", "list", "study", "refused", "confirm")
DOCUMENTED: Final = (
    ("measuring", "desktop", "light"),
    ("list", "desktop", "light"),
    ("list", "phone", "dark"),
    ("study", "desktop", "light"),
    ("study", "phone", "dark"),
    ("refused", "desktop", "light"),
)
"""What docs/dashboard.md shows: page, size and theme."""

EVERY: Final = tuple((page, size, theme) for page in PAGES for theme in THEMES for size in SIZES)

TALLEST_PX: Final = 2000
"""Longer pages are cut; a picture in a document is looked at, not scrolled."""


@dataclass(frozen=True, kw_only=True)
class SentStudy:
    """A synthetic study that was sent, and the state that it should reach."""

    uid: str
    ends_as: StudyState


def main() -> int:
    """Make every picture; prints where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PICTURES, help="where the pictures go (default: docs/pictures)")
    parser.add_argument("--every", action="store_true", help="all pages, sizes and themes, not only what docs/ shows")
    parser.add_argument("--keep", type=Path, help="keep the node's folder here, to look around")
    arguments = parser.parse_args()
    folder: Path = arguments.keep or Path(tempfile.mkdtemp(prefix="hydrops-pictures-"))
    try:
        with LocalOrthanc(folder / "orthanc") as pacs, node(folder, pacs) as running:
            studies = fill(running, folder / "studies")
            for path in photograph(running, studies, arguments.out, EVERY if arguments.every else DOCUMENTED):
                print(path)
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder)
    return 0


@contextmanager
def node(folder: Path, pacs: LocalOrthanc) -> Iterator[LocalNode]:
    """A node with one user that waits 2 s for images and 5 s for a missing series."""
    hurried = {"assembly": "quiet_s = 2.0\npartner_wait_s = 5.0"}
    with LocalNode(folder / "node", orthanc=pacs, entrance="dicom", overrides=hurried) as running:
        engine = open_database(f"sqlite:///{running.state_dir / 'node.db'}")
        Users(engine).add("ada", Role.ADMIN, PASSWORD, at=time.time())
        engine.dispose()
        yield running


def fill(running: LocalNode, folder: Path) -> dict[str, SentStudy]:
    """Send studies until each has reached its end, and one more that is being measured."""
    first = images(21, right=0.11, left=0.24, at=datetime(2025, 3, 4, 14, 5))  # noqa: DTZ001 - a scanner's clock
    second = images(21, right=0.12, left=0.41, at=datetime(2026, 2, 17, 13, 40))  # noqa: DTZ001
    lacking = images(33, right=0.2, left=0.2, at=datetime(2026, 2, 18, 9, 15), series=("MRC", "PPI"))  # noqa: DTZ001
    localizers = images(34, right=0.2, left=0.2, at=datetime(2026, 2, 18, 9, 55), series=("MRC",))  # noqa: DTZ001
    sent = {
        "earlier": send(running, folder / "1", first, StudyState.COMPUTED),
        "repeat": send(running, folder / "2", second, StudyState.COMPUTED),
        "refused": send(running, folder / "3", lacking, StudyState.REFUSED),
        "other": send(running, folder / "4", as_localizer(localizers), StudyState.NOT_OURS),
    }
    for study in sent.values():
        wait_until(running, study.uid, study.ends_as)
    late = images(35, right=0.15, left=0.3, at=datetime(2026, 2, 18, 10, 20))  # noqa: DTZ001
    sent["measuring"] = send(running, folder / "5", late, StudyState.COMPUTING)
    wait_until(running, sent["measuring"].uid, StudyState.COMPUTING)
    return sent


def images(seed: int, *, right: float, left: float, at: datetime, series: Sequence[str] = SEEN) -> list[Dataset]:
    """A synthetic patient's examination; equal seeds are the same patient."""
    ratios = {EarSide.RIGHT: right, EarSide.LEFT: left}
    study = make_study(PhantomOptions(seed=seed, eh_ratio=ratios, series=tuple(series), oblique_deg=(12.0, 0.0, 0.0)))
    return phantom_datasets(study, started_at=at)


def as_localizer(datasets: Sequence[Dataset]) -> list[Dataset]:
    """The same images, said to be a localizer: nothing that this node measures."""
    for one in datasets:
        one.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        one.MRAcquisitionType = "2D"
        one.StudyDescription = "Knee"
    return list(datasets)


def send(running: LocalNode, folder: Path, datasets: Sequence[Dataset], ends_as: StudyState) -> SentStudy:
    """Send a study to the node, as a scanner would."""
    folder.mkdir(parents=True)
    for number, one in enumerate(datasets):
        one.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
    command = [sys.executable, "-m", "dicom_node.cli", "send", str(folder), "--calling", "SCANNER"]
    subprocess.run([*command, "--to", f"HYDROPS@127.0.0.1:{running.dicom_port}"], check=True, capture_output=True)
    return SentStudy(uid=str(datasets[0].StudyInstanceUID), ends_as=ends_as)


def wait_until(running: LocalNode, uid: str, state: StudyState) -> None:
    """Return when the study is in this state.

    Raises
    ------
    RuntimeError
        If it is not after ten minutes; says what it is instead.
    """
    deadline = time.monotonic() + WAIT_S
    ledger = running.ledger
    while True:
        record = ledger.get(uid)
        if record is not None and record.state is state:
            return
        if time.monotonic() > deadline:
            found = "unknown" if record is None else f"{record.state} {record.reason} {record.detail}"
            raise RuntimeError(f"study {uid}: expected {state}, found {found}")
        time.sleep(0.3)


def photograph(
    running: LocalNode, studies: dict[str, SentStudy], out: Path, wanted: Sequence[tuple[str, str, str]]
) -> Iterator[Path]:
    """These pages, sizes and themes."""
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    address = f"http://127.0.0.1:{running.web_port}"
    repeat = f"/studies/{studies['repeat'].uid}"
    pages = {
        "measuring": f"/studies/{studies['measuring'].uid}",
        "list": "/studies",
        "study": repeat,
        "refused": f"/studies/{studies['refused'].uid}",
        "confirm": f"{repeat}/actions/replay",
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium())
        for name, size, theme in wanted:
            target = out / f"dashboard-{name}-{size}-{theme}.png"
            shoot(browser, address, pages[name], target, theme=theme, size=size)
            yield target
        browser.close()


def shoot(browser: Browser, address: str, path: str, target: Path, *, theme: str, size: str) -> None:
    """One page as a signed-in person sees it."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if theme == "dark" else "light"
    )
    page = context.new_page()
    sign_in(page, address)
    page.goto(f"{address}{path}")
    page.wait_for_timeout(1500)  # pictures of the ears are drawn after the page is there
    tall = min(TALLEST_PX, int(page.evaluate("document.documentElement.scrollHeight")))
    page.screenshot(path=str(target), full_page=True, clip={"x": 0, "y": 0, "width": width, "height": tall})
    context.close()


def sign_in(page: Page, address: str) -> None:
    """Fill in the form."""
    page.goto(f"{address}/sign-in")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{address}/studies")


def chromium() -> str:
    """The system's Chromium.

    Raises
    ------
    SystemExit
        If there is none; says what to install.
    """
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise SystemExit("Chromium is not installed; on Debian: apt-get install chromium")
    return found


if __name__ == "__main__":
    sys.exit(main())
