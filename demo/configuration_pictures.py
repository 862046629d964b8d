"""Pictures of the configuration pages, for docs/configuration.md.

    python demo/configuration_pictures.py [--out docs/pictures] [--every]

Starts a node that receives, sends it one synthetic study with DCMTK, signs in with the system's Chromium, and
photographs the forms, what is wrong with an entry, and what would come of a new rule; with --every at desktop and phone
size, in light and in dark. The node's temporary folder is shown as the one of an installed node.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import requests
from local_node import LocalNode

from dicom_node.accounts.roles import Role
from dicom_node.accounts.users import Users
from dicom_node.database import open_database
from dicom_node.encoding.phantom_study import phantom_datasets
from inference.phantom import PhantomOptions, make_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES: Final = Path(__file__).resolve().parent.parent / "docs" / "pictures"
PASSWORD: Final = "only for pictures"  # noqa: S105 - of a node that lives for a minute
SIZES: Final = {"desktop": (1280, 900), "phone": (390, 844)}
PAGES: Final = ("forms", "problems", "review")
DOCUMENTED: Final = (("forms", "desktop", "light"), ("review", "desktop", "light"), ("review", "phone", "dark"))
EVERY: Final = tuple((page, size, theme) for size in SIZES for theme in ("light", "dark") for page in PAGES)
TALLEST_PX: Final = 2000
INSTALLED: Final = "/etc/hydrops/config"
RENAME: Final = """([from, to]) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(from, to);
}"""
DESTINATION: Final = """
[[destinations]]
name = "pacs"          # the archive
kind = "dicom"
host = "127.0.0.1"
port = 4242
called_ae = "PACS"
"""


def main() -> int:
    """Make the pictures; prints where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PICTURES, help="where the pictures go (default: docs/pictures)")
    parser.add_argument("--every", action="store_true", help="all sizes and themes, not only what docs/ shows")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with LocalNode(folder / "node", callers=("SCANNER", "MR_SKYRA"), command="listen") as node:
            fill(node, folder / "study")
            for path in photograph(node, arguments.out, EVERY if arguments.every else DOCUMENTED):
                print(path)
    return 0


def fill(node: LocalNode, folder: Path) -> None:
    """One user, one destination, one past study."""
    Users(open_database(f"sqlite:///{node.state_dir / 'node.db'}")).add("ada", Role.ADMIN, PASSWORD, at=time.time())
    node.config.write_text(node.config.read_text(encoding="utf-8") + DESTINATION, encoding="utf-8")
    folder.mkdir()
    study = make_study(PhantomOptions(seed=21, series=("MRC", "HYDROPS")))
    for number, dataset in enumerate(phantom_datasets(study)):
        dataset.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
    command = ["storescu", "-aet", "SCANNER", "-aec", "HYDROPS", "+sd", "127.0.0.1", str(node.dicom_port), str(folder)]
    sent = subprocess.run(command, check=False, capture_output=True, text=True)
    if sent.returncode:
        raise SystemExit(f"storescu: {sent.stdout}{sent.stderr}\n{node.log_tail()}")
    wait_for_web(node)


def wait_for_web(node: LocalNode) -> None:
    """The dashboard answers a moment after the listener."""
    deadline = time.monotonic() + 120.0
    while time.monotonic() < deadline:
        try:
            requests.get(node.health_url, timeout=60)
        except requests.ConnectionError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"no answer at {node.health_url}")


def photograph(node: LocalNode, out: Path, wanted: tuple[tuple[str, str, str], ...]) -> Iterator[Path]:
    """Every wanted page, in its size and theme."""
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, size, theme in wanted:
            page = signed_in(browser, node, size, theme)
            show(page, node, name)
            page.evaluate(RENAME, [str(node.config.parent), INSTALLED])
            height = min(TALLEST_PX, page.evaluate("document.documentElement.scrollHeight"))
            page.set_viewport_size({"width": SIZES[size][0], "height": height})
            path = out / f"configuration-{name}-{size}-{theme}.png"
            page.screenshot(path=path)
            yield path
        browser.close()


def signed_in(browser: Browser, node: LocalNode, size: str, theme: str) -> Page:
    """A page in a browser of this size and theme."""
    width, height = SIZES[size]
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    page.goto(f"http://127.0.0.1:{node.web_port}/configuration")
    page.fill("input[name=name]", "ada")
    page.fill("input[name=password]", PASSWORD)
    page.click("button:has-text('Sign in')")
    return page


def show(page: Page, node: LocalNode, name: str) -> None:
    """Lead the page to what is to be photographed."""
    page.goto(f"http://127.0.0.1:{node.web_port}/configuration")
    if name == "forms":
        return
    page.click("text=Add a sender")
    page.fill("input[name=peers-2-ae_title]", "MR_VIDA")
    page.fill("input[name=peers-2-networks]", "10.1.2.0/33" if name == "problems" else "10.1.2.0/24")
    if name == "review":
        add_rule(page)
        page.check("input[name=peers-1-remove]")
    page.click(".button-primary")
    page.wait_for_selector(".field-problem" if name == "problems" else "h1:has-text('would change')")


def add_rule(page: Page) -> None:
    """A rule that takes a past study's HYDROPS for something else."""
    page.click("text=Add a rule")
    number = int(page.locator("input[name=rules-count]").get_attribute("value") or 1) - 1
    page.fill(f"input[name=rules-{number}-name]", "subtractions of the test protocol")
    page.select_option(f"select[name=rules-{number}-role]", "OTHER")
    page.fill(
        f"textarea[name=rules-{number}-when]",
        "{ echo_time_ms = { min = 500.0 }, image_type = { all_of = ['DERIVED'] } }",
    )
    page.fill(f"textarea[name=rules-{number}-examples]", "[{ echo_time_ms = 544.0, image_type = ['DERIVED'] }]")
    page.fill(f"textarea[name=rules-{number}-counterexamples]", "[{ echo_time_ms = 544.0, image_type = ['ORIGINAL'] }]")


if __name__ == "__main__":
    raise SystemExit(main())
