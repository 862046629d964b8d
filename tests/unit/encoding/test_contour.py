import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from dicom_node.encoding.contour import outline


def area(corners):
    x, y = corners[:-1].T
    x_next, y_next = corners[1:].T
    return abs(float(np.sum(x * y_next - x_next * y))) / 2


def test_a_rectangle_is_outlined_along_the_edges_of_its_pixels():
    mask = np.zeros((5, 6), dtype=bool)
    mask[1:3, 2:5] = True
    assert outline(mask).tolist() == [[2, 1], [5, 1], [5, 3], [2, 3], [2, 1]]


def test_a_mask_that_touches_the_image_border_is_outlined_inside_the_image():
    corners = outline(np.ones((3, 4), dtype=bool))
    assert corners.min() == 0
    assert corners.max(axis=0).tolist() == [4, 3]


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.95))
def test_the_outline_encloses_exactly_the_largest_part_and_its_holes(seed, density):
    mask = np.random.default_rng(seed).random((11, 13)) < density
    mask[5, 5] = True
    labels, count = ndimage.label(mask)
    sizes = [int((labels == one).sum()) for one in range(1, count + 1)]
    largest = labels == 1 + int(np.argmax(sizes))
    outside = ndimage.binary_fill_holes(largest, structure=np.ones((3, 3)))
    corners = outline(mask)
    assert (corners[0] == corners[-1]).all()
    assert area(corners) == pytest.approx(outside.sum())


def test_nothing_has_no_outline():
    with pytest.raises(ValueError, match="empty"):
        outline(np.zeros((4, 4), dtype=bool))
