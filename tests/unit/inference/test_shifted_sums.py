"""Sums of products over every shift, against summing them one by one."""

from __future__ import annotations

import numpy as np
import pytest

from inference.shifted_sums import sums_by_shift


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, -1, 3), (-2, 1, -3), (1, 0, 0)])
def test_each_sum_is_that_of_the_picture_moved_by_its_shift_and_nothing_comes_round_the_border(
    shift: tuple[int, int, int],
) -> None:
    rng, reach = np.random.default_rng(4), (2, 1, 3)
    picture, seen = rng.normal(size=(5, 6, 7)), rng.normal(size=(5, 6, 7))
    padded = np.pad(seen, [(r, r) for r in reach])
    first = [r + s for r, s in zip(reach, shift, strict=True)]
    under = padded[tuple(slice(at, at + n) for at, n in zip(first, picture.shape, strict=True))]
    found = sums_by_shift(picture, seen, reach)
    assert found.shape == (5, 3, 7)
    assert found[tuple(first)] == pytest.approx(float((picture * under).sum()))
