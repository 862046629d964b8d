"""What a start made is left out of collections of garbage; what came after it is collected as ever."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from dicom_node.cli.lasting_objects import keep_out_of_collections


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.unfreeze()


class InACircle:
    """Refers to itself, so that only a collection ends it."""

    def __init__(self) -> None:
        self.itself = self


def test_only_what_came_after_the_start_is_looked_through() -> None:
    made_at_the_start = gc.get_count, InACircle()
    keep_out_of_collections()
    assert gc.get_freeze_count() > 0
    assert not any(one is made_at_the_start for one in gc.get_objects())
    later = weakref.ref(InACircle())
    gc.collect()
    assert later() is None
