"""OHIF in a real browser: served by us from a real Orthanc, waited for, and projected so that pixels can be judged."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import uvicorn
from chromium import pixels
from local_orthanc import LocalOrthanc
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, Request
from pydicom import Dataset

from dicom_node.encoding.identity import derived_uid
from dicom_node.web.viewer.access import Doors, Onlooker
from dicom_node.web.viewer.archive import Archive
from dicom_node.web.viewer.installation import viewer_folder
from dicom_node.web.viewer.links import viewer_link
from dicom_node.web.viewer.origin import ViewerParts, create_viewer_app
from inference.anatomy import EarSide, FluidSpace

PANES: Final = ("hydrops-slices", "hydrops-report", "hydrops-coronal", "hydrops-sagittal")
OVERLAYS: Final = ("hydrops-slices", "hydrops-coronal", "hydrops-sagittal")
OPEN_S: Final = 240.0
"""On a machine with two busy cores and no graphics card; alone it takes a few seconds."""

COLORS: Final = {
    (EarSide.RIGHT, FluidSpace.TOTAL_FLUID_SPACE): (86, 180, 233),
    (EarSide.LEFT, FluidSpace.TOTAL_FLUID_SPACE): (0, 114, 178),
    (EarSide.RIGHT, FluidSpace.ENDOLYMPH): (230, 159, 0),
    (EarSide.LEFT, FluidSpace.ENDOLYMPH): (213, 94, 0),
}
"""As docs/reading-the-result.md has them; OHIF draws outlines in the segment's color and tints what lies inside."""

READY: Final = """panes => panes.every(id => {
  const services = window.services, viewport = services?.cornerstoneViewportService.getCornerstoneViewport(id);
  return viewport?.getCamera && services.segmentationService.getSegmentationRepresentations(id).length > 0;
})"""
CAMERA: Final = """id => {
  const viewport = window.services.cornerstoneViewportService.getCornerstoneViewport(id);
  const { focalPoint, viewPlaneNormal, viewUp, parallelScale } = viewport.getCamera();
  return { focalPoint, viewPlaneNormal, viewUp, parallelScale };
}"""
LABELMAP: Final = """() => {
  const [segmentation] = window.services.segmentationService.getSegmentations();
  const voxels = {};
  for (const id of segmentation.representationData.Labelmap.imageIds)
    for (const label of window.cornerstone.cache.getImage(id).voxelManager.getScalarData())
      if (label) voxels[segmentation.segments[label].label] = (voxels[segmentation.segments[label].label] ?? 0) + 1;
  return voxels;
}"""


@contextmanager
def viewer_of(orthanc: LocalOrthanc) -> Iterator[str]:
    """Our viewer on a free port in front of this Orthanc; its address."""
    archive = Archive(url=orthanc.dicom_web_url, username=orthanc.username, password=orthanc.password)
    doors = Doors(host="127.0.0.1", dashboard_url=lambda _name: "/")
    app = create_viewer_app(
        ViewerParts(
            files=viewer_folder(),
            archive=archive,
            doors=doors,
            onlooker=lambda _request: Onlooker(name="vera", session_id="1"),
            opened=lambda _who, _study, _address: None,
            searched=lambda _who, _query, _address: None,
        )
    )
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join(10)


def under_new_names(images: Sequence[Dataset], name: str) -> list[Dataset]:
    """The same images as another study: every UID another one, also where images refer to images."""
    for one in images:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
            setattr(one, keyword, derived_uid(name, str(one[keyword].value)))
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.PatientID = f"{one.PatientID}-{name}"
        for reference in one.get("SourceImageSequence", []):
            reference.ReferencedSOPInstanceUID = derived_uid(name, str(reference.ReferencedSOPInstanceUID))
    return list(images)


@dataclass(kw_only=True)
class Shown:
    """One study in OHIF; `errors` is what console, scripts and the server complained of, `hosts` everybody asked."""

    page: Page
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def note_lost(self, request: Request) -> None:
        """OHIF takes back requests for images that it no longer wants; any other lost request is an error."""
        if request.failure != "net::ERR_ABORTED":
            self.errors.append(f"{request.failure}: {request.url}")

    def pane(self, viewport_id: str) -> Pane:
        """One pane as it is on the screen now."""
        element = self.page.locator(f"[data-viewport-uid='{viewport_id}']")
        return Pane(camera=self.page.evaluate(CAMERA, viewport_id), image=pixels(element).astype(np.int16))

    def text(self) -> str:
        """Everything written on the page, the drawings' text too."""
        return " ".join(self.page.locator("body").all_inner_texts() + self.page.locator("svg text").all_text_contents())


@dataclass(frozen=True, kw_only=True, eq=False)
class Pane:
    """Pixels of one pane (rows, columns, 3), and its camera, by which points of the patient are found on it."""

    camera: dict[str, Any]
    image: NDArray[np.int16]

    @property
    def mm_per_pixel(self) -> float:
        return 2.0 * float(self.camera["parallelScale"]) / self.image.shape[0]

    def project(self, lps_mm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n, 2) rows and columns of points, and their (n,) signed distance in mm from the plane that is shown."""
        normal, up = np.array(self.camera["viewPlaneNormal"]), np.array(self.camera["viewUp"])
        across = np.cross(up, normal)
        relative = lps_mm - np.array(self.camera["focalPoint"])
        middle = (np.array(self.image.shape[:2]) - 1) / 2
        rows_columns = np.stack([-(relative @ up), relative @ across], axis=1) / self.mm_per_pixel
        return middle + rows_columns, relative @ normal

    def colored(self, side: EarSide, space: FluidSpace) -> NDArray[np.float64]:
        """(n, 2) rows and columns of the pixels in one segment's own color."""
        difference = np.abs(self.image - np.array(COLORS[side, space])).max(axis=2)
        return np.argwhere(difference < 25).astype(float)


@contextmanager
def watched(browser: Browser, *, width: int = 1600, height: int = 1000) -> Iterator[Shown]:
    """A page of a fresh browser session, and what it complains of."""
    with browser.new_context(viewport={"width": width, "height": height}) as context:
        context.set_default_timeout(OPEN_S * 1000)
        yield watch(context.new_page())


def watch(page: Page) -> Shown:
    """The page; from now on everything that goes wrong on it is noted."""
    shown = Shown(page=page)
    page.on("console", lambda said: shown.errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: shown.errors.append(str(error)))
    page.on("response", lambda got: shown.errors.append(f"{got.status} {got.url}") if got.status >= 400 else None)
    page.on("requestfailed", shown.note_lost)
    page.on("request", lambda asked: shown.hosts.add(urlsplit(asked.url).netloc))
    return shown


@contextmanager
def open_study(browser: Browser, address: str, study: str) -> Iterator[Shown]:
    """The study in a fresh browser session, once its overlay is on the screen in every pane."""
    with watched(browser) as shown:
        shown.page.goto(viewer_link(address, "127.0.0.1", study), wait_until="commit")
        wait_for_overlay(shown)
        yield shown


def wait_for_overlay(shown: Shown) -> None:
    """Return when every pane with segments shows one of their colors."""
    page = shown.page
    page.wait_for_function(READY, arg=list(OVERLAYS), timeout=OPEN_S * 1000)
    deadline = time.monotonic() + OPEN_S
    while not all(_is_colored(shown.pane(one)) for one in OVERLAYS):
        if time.monotonic() > deadline:
            raise AssertionError(f"no overlay after {OPEN_S:.0f} s; complaints: {shown.errors}")
        page.wait_for_timeout(100)


def _is_colored(pane: Pane) -> bool:
    return any(len(pane.colored(side, space)) > 20 for side, space in COLORS)
