"""The outline of a mask in one image plane, along pixel edges, for readers that draw regions but no segments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The outer boundary of the largest 4-connected part of a (J, I) mask.

    Returns
    -------
    (n, 2) closed polyline (first point = last) of (column, row) image coordinates as SCOORD has them: 0\\0 is the
    upper left corner of the first pixel, so pixel centers lie at halves (PS3.3 C.18.6.1.2). Only corners are listed;
    the area inside is exactly that of the part's pixels and of any holes in it.

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    if not mask.any():
        raise ValueError("an empty mask has no outline")
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    part = np.pad(labels == 1 + int(np.argmax(sizes)), 1)
    first_row, first_column = (int(index) for index in np.argwhere(part)[0])
    start, heading = (first_column, first_row), (1, 0)  # along the top edge, the part on the right hand
    corners, point, direction = [start], start, heading
    while True:
        point = (point[0] + direction[0], point[1] + direction[1])
        turned = _turn(part, point, direction)
        if turned != direction:
            corners.append(point)
            direction = turned
        if point == start and direction == heading:
            return np.array(corners, dtype=np.float64) - 1.0  # undo the padding


def _turn(part: NDArray[np.bool_], point: tuple[int, int], direction: tuple[int, int]) -> tuple[int, int]:
    """The next direction at a pixel corner that keeps the part on the right hand (clockwise, rows grow downward)."""
    dx, dy = direction
    right_hand = (-dy, dx)
    if not _pixel_ahead(part, point, direction, right_hand):
        return right_hand
    if _pixel_ahead(part, point, direction, (dy, -dx)):
        return (dy, -dx)
    return direction


def _pixel_ahead(
    part: NDArray[np.bool_], point: tuple[int, int], direction: tuple[int, int], side: tuple[int, int]
) -> bool:
    """Whether the pixel ahead of the corner `point`, on the given side of the path, belongs to the part."""
    column = point[0] + (direction[0] + side[0] - 1) // 2
    row = point[1] + (direction[1] + side[1] - 1) // 2
    return bool(part[row, column])
