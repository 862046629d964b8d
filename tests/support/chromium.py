"""A real browser that is watched: what it complains about, and whom it asks for what."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import pytest
from dashboard_parts import PASSWORD
from numpy.typing import NDArray
from patience import PATIENCE_S
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; `make setup` installs it")

SOFTWARE_WEBGL: Final = ("--use-angle=swiftshader-webgl", "--enable-unsafe-swiftshader")
"""As Chromium draws on a machine without graphics card: WebGL by SwiftShader (asked for by name since version 137), and
the rest of the page not. Plain "swiftshader" draws every pixel of the page that way, at twice the work."""

PATIENCE_MS: Final = PATIENCE_S * 1000

expect.set_options(timeout=PATIENCE_MS)  # its own five seconds end on a busy machine before a page is drawn


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless Chromium; it ends with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SOFTWARE_WEBGL), timeout=PATIENCE_MS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def chromium_with_profile(folder: Path, *, width: int, height: int) -> Iterator[BrowserContext]:
    """Headless Chromium that keeps what it loads in `folder`, and finds there what it kept before."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder,
            executable_path=CHROMIUM,
            args=list(SOFTWARE_WEBGL),
            viewport={"width": width, "height": height},
            timeout=PATIENCE_MS,
        )
        context.set_default_timeout(PATIENCE_MS)
        try:
            yield context
        finally:
            context.close()


@dataclass(kw_only=True)
class Watched:
    """One page, signed in; `errors` is what its console and scripts said, `hosts` everybody it asked."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def go(self, path: str) -> None:
        """Open a page of the dashboard."""
        self.page.goto(self.url + path)

    def assert_quiet(self) -> None:
        """Nothing went wrong, and nobody but the dashboard was asked."""
        assert self.errors == []
        assert self.hosts <= {urlsplit(self.url).netloc}


@contextmanager
def signed_in(browser: Browser, url: str, name: str = "vera", **context: Any) -> Iterator[Watched]:
    """A fresh page on which `name` signed in; `context` is what playwright's `new_context` takes."""
    with browser.new_context(viewport={"width": 900, "height": 800}, **context) as opened:
        opened.set_default_timeout(PATIENCE_MS)
        page = opened.new_page()
        watched = Watched(page=page, url=url)
        page.on("console", lambda said: watched.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        page.on("request", lambda request: watched.hosts.add(urlsplit(request.url).netloc))
        page.goto(f"{url}/sign-in")
        page.fill("[name=name]", name)
        page.fill("[name=password]", PASSWORD)
        page.press("[name=password]", "Enter")
        page.wait_for_url("**/studies")
        yield watched


def pixels(part: Locator) -> NDArray[np.uint8]:
    """(rows, columns, 3) of what a person sees of one element."""
    return np.asarray(Image.open(io.BytesIO(part.screenshot())).convert("RGB"))
