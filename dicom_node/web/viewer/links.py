"""Where the viewer shows a study, as the browser that asks knows this machine."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

HOST: Final = "{host}"
"""Stands in the viewer's address for the name under which the browser reached the dashboard: the session's cookie is
valid for that name only."""


def viewer_link(viewer_url: str, hostname: str, study_instance_uid: str) -> str:
    """The address of one study in OHIF, or an empty string where there is no viewer.

    It names the study and not the segmentation: with the latter OHIF 3.13 turned oblique series in their plane.
    """
    if not viewer_url:
        return ""
    origin = viewer_url.replace(HOST, in_address(hostname))
    return f"{origin}/viewer?{urlencode({'StudyInstanceUIDs': study_instance_uid})}"


def in_address(hostname: str) -> str:
    """A host's name as it stands in an address: an IPv6 one in brackets."""
    return f"[{hostname}]" if ":" in hostname else hostname
