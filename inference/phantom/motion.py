"""Rigid moves of the patient between series, and rotations of the slab."""

from __future__ import annotations

import numpy as np

from inference.geometry import FloatArray


def rotation(axis: FloatArray, degrees: float) -> FloatArray:
    """(3, 3) right-handed rotation about `axis` through the origin (Rodrigues)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = np.deg2rad(degrees)
    matrix: FloatArray = np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
    return matrix


def about(pivot_lps_mm: FloatArray, turn: FloatArray, shift_mm: FloatArray) -> FloatArray:
    """(4, 4) rigid move: `turn` (3, 3) about `pivot_lps_mm`, then `shift_mm`."""
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = pivot_lps_mm - turn @ pivot_lps_mm + shift_mm
    return matrix


def random_motion(rng: np.random.Generator, pivot_lps_mm: FloatArray, shift_mm: float, turn_deg: float) -> FloatArray:
    """(4, 4) where the patient went: exactly `shift_mm` at the pivot and `turn_deg`, in random directions."""
    direction, axis = rng.normal(size=(2, 3))
    return about(pivot_lps_mm, rotation(axis, turn_deg), shift_mm * direction / np.linalg.norm(direction))


def euler(x_deg: float, y_deg: float, z_deg: float) -> FloatArray:
    """(3, 3) rotation about the patient's x, then y, then z axis."""
    x, y, z = np.eye(3)
    return rotation(z, z_deg) @ rotation(y, y_deg) @ rotation(x, x_deg)


def inverse(move: FloatArray) -> FloatArray:
    """(4, 4) move that undoes a rigid `move`."""
    matrix = np.eye(4)
    matrix[:3, :3] = move[:3, :3].T
    matrix[:3, 3] = -move[:3, :3].T @ move[:3, 3]
    return matrix
