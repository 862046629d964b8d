"""Whether this node has a viewer, why not, and under which address; light, because the dashboard's links ask it."""

from __future__ import annotations

from dicom_node.settings import LoadedSettings
from dicom_node.web.viewer.installation import PINNED, is_installed, viewer_folder
from dicom_node.web.viewer.links import HOST


def why_no_viewer(loaded: LoadedSettings) -> str:
    """The reason why this node has no viewer, and what to do; empty when it has one."""
    viewer = loaded.settings.viewer
    if not viewer.enabled:
        return "viewer.enabled is false"
    if not (viewer.dicomweb_url or loaded.settings.orthanc.url):
        return "there is no archive to show; set viewer.dicomweb_url or orthanc.url"
    if not is_installed(viewer_folder()):
        return f"OHIF {PINNED.version} is not installed; run: hydrops-node install-viewer"
    return ""


def viewer_address(loaded: LoadedSettings) -> str:
    """What the dashboard links to, with a place for the host's name; empty when there is no viewer."""
    if why_no_viewer(loaded):
        return ""
    viewer, web = loaded.settings.viewer, loaded.settings.web
    return viewer.address.rstrip("/") or f"{'https' if web.tls_certificate else 'http'}://{HOST}:{viewer.port}"
