"""Which way of making numbers this is: everything between the images and a number but weights and settings."""

from __future__ import annotations

from typing import Final

METHOD: Final = "3"
"""Raised with every change of this package or of the pipeline that may move a ratio by more than 0.001, or open or
close a gate: the same images, weights and settings are then another result under other UIDs, never another number under
the same ones. `tests/unit/test_pipeline_numbers.py` and `test_shipped_model.py` hold numbers against it."""
