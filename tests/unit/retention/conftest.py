"""A node that keeps studies for their time, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kept_studies import KeptStudies
from local_postgresql import running_postgresql

from dicom_node.database import metadata


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    with running_postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeptStudies]:
    """On an empty database of either kind."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgresql_url")
    parts = KeptStudies(tmp_path, database_url=url)
    yield parts
    if url is not None:
        metadata.drop_all(parts.engine)
    parts.engine.dispose()
