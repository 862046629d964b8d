"""The labyrinth of average form as a file: what `inference.labyrinth_parts` lays into every ear.

python -m inference.phantom.average_ear > inference/labyrinth_parts.json
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import numpy as np

from inference.phantom import labyrinth
from inference.phantom.labyrinth import BOX_HIGH_MM, BOX_LOW_MM, Compartment, Labyrinth
from inference.phantom.voxelization import sample_inside

STEP_MM: Final = 0.85
"""Distance of the points: finer changes no part of any voxel worth mentioning, and the fit takes longer."""


def average_ear() -> dict[str, Any]:
    """Points of equal volume in every part of the average labyrinth, in the ear's frame; JSON-able."""
    average = Labyrinth()
    points = sample_inside(
        lambda at: labyrinth.evaluate(average, at).distance, BOX_LOW_MM, BOX_HIGH_MM, step_mm=STEP_MM
    )
    compartment = labyrinth.evaluate(average, points).compartment.numpy()
    placed = np.round(points.numpy().T.astype(np.float64), 2)
    return {
        "frame": "lateral, posterior, superior; mm from the middle of the vestibule",
        "points_mm": {part.name.lower(): placed[compartment == part].tolist() for part in Compartment},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(average_ear()) + "\n")
