"""Tests that need Orthanc are skipped, with what to install, where it is not."""

from __future__ import annotations

import pytest
from local_orthanc import OrthancMissing, find_orthanc, find_plugin


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("orthanc") is None:
        return
    try:
        find_orthanc()
        find_plugin("OrthancPython")
    except OrthancMissing as missing:
        pytest.skip(str(missing))
