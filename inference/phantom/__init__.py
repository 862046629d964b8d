"""Synthetic hydrops studies with known truth: tests, demo, bench and training all use them.

`study` is the entrance. The anatomy of the ear is in `cochlea`, `vestibule`, `canals` and `labyrinth`, its disease in
`hydrops`, that of the head in `head` and `temporal_bone`; `scene` and `voxelization` turn it into voxels, `physics`
and `imaging` into pictures.
"""

from inference.phantom.imaging import HydropsCoding
from inference.phantom.physics import ContrastState
from inference.phantom.study import ROLES, EarTruth, PhantomOptions, PhantomStudy, PhantomTruth, make_study

__all__ = [
    "ROLES",
    "ContrastState",
    "EarTruth",
    "HydropsCoding",
    "PhantomOptions",
    "PhantomStudy",
    "PhantomTruth",
    "make_study",
]
