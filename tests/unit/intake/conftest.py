"""Tiny MR images and an empty spool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import mr_images
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import Engine

from dicom_node.database import open_database
from dicom_node.intake.spool import Spool


@pytest.fixture(scope="session")
def make_mr() -> Callable[..., Dataset]:
    """See mr_images.make_mr."""
    return mr_images.make_mr


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """See mr_images.encode."""
    return mr_images.encode


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A real SQLite database with the node's durability settings."""
    opened = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    yield opened
    opened.dispose()


@pytest.fixture
def spool(tmp_path: Path, engine: Engine) -> Spool:
    """An empty spool."""
    return Spool(tmp_path / "spool", engine)
