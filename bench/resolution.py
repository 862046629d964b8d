"""How well a picture of some resolution can tell a labyrinth: by its own brightness, and by a network.

    python bench/resolution.py [--ears 40] [--model inference/models/ear] [--resolutions 1 1.15 1.3 1.5 1.7]

Voxels are 1.0 x 0.5 x 0.5 mm. A picture of resolution 1.3 was acquired with points 1.3 times as far apart and filled
up, as scanners do. By brightness: the cisternogram without noise, evenly bright, in place; a voxel is fluid where it
has half of the brightness of fluid, which is known here. The network gets the same ears with the noise, uneven
brightness, displacement and contrast of validation (PPI with SNR 3 to 12), and knows no brightness. Dice of total fluid
by the half-voxel rule, mean of the ears.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from inference.cases import InputSet
from inference.model_store import SHIPPED, load_model
from inference.training.crop_pool import CropPool
from inference.training.crops import ENDOLYMPH, PERILYMPH
from inference.training.losses import predicted
from inference.training.scans import REALISTIC, acquire, scan
from inference.training.sources import as_fractions, centered
from inference.training.trainer import ear_scores

FIRST_SEED: Final = 9_000_000
"""The ears that validate the shipped weights."""
SCAN_SEED: Final = 6
BATCH: Final = 4


def by_brightness(parts: Tensor, resolution: float) -> Tensor:
    """(B,) Dice of each ear, from (B, group, K, J, I) parts of each voxel."""
    total = parts[:, PERILYMPH] + parts[:, ENDOLYMPH]
    batch = len(total)
    seen = acquire(total[:, None], torch.zeros(batch, 1, 3), torch.full((batch, 1, 3), resolution))[:, 0]
    found, true = seen >= 0.5, total >= 0.5
    axes = (1, 2, 3)
    return 2.0 * (found & true).sum(dim=axes) / (found.sum(dim=axes) + true.sum(dim=axes))


def by_network(parts: Tensor, resolution: float, network: torch.nn.Module, *, seed: int) -> Tensor:
    """(B, 3) Dice of total fluid and endolymph, and the ratio's error, of each ear with PPI and PEI."""
    within = replace(REALISTIC, resolution=(resolution, resolution), ir_coarser=(1.0, 1.0))
    scans = scan(parts, np.random.default_rng([SCAN_SEED, seed]), within=within, only=InputSet.PPI_PEI)
    answer = predicted(*network(scans.images.contiguous(memory_format=torch.channels_last_3d)))
    return ear_scores(answer, scans.total, scans.endolymph)


@torch.inference_mode()
def main() -> None:
    """Print one line for each resolution."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ears", type=int, default=40, metavar="N", help="synthetic ears (default %(default)s)")
    parser.add_argument("--model", type=Path, default=SHIPPED, metavar="FOLDER", help="model folder (default: shipped)")
    parser.add_argument("--resolutions", type=float, nargs="+", default=[1.0, 1.15, 1.3, 1.5, 1.7], metavar="R")
    parser.add_argument("--crop-folder", type=Path, metavar="DIR", help="synthetic ears that were drawn before")
    asked = parser.parse_args()
    network = load_model(asked.model).network.eval()
    with tempfile.TemporaryDirectory() as temporary:
        pool = CropPool(asked.crop_folder or Path(temporary), first_seed=FIRST_SEED, count=asked.ears)
        with pool.drawn_by(2):
            ears = [as_fractions(centered(pool.parts(n))) for n in range(asked.ears)]
    batches = [torch.stack(ears[begin : begin + BATCH]) for begin in range(0, len(ears), BATCH)]
    print(f"{len(ears)} ears       total fluid: brightness   network    endolymph: network   error of the ratio")
    for resolution in asked.resolutions:
        alone = torch.cat([by_brightness(parts, resolution) for parts in batches])
        read = torch.cat([by_network(parts, resolution, network, seed=n) for n, parts in enumerate(batches)])
        fluid, endolymph, off = read.unbind(dim=1)
        print(
            f"resolution {resolution:4.2f}       {alone.mean():.3f} (worst {alone.min():.3f})   {fluid.mean():.3f}"
            f"                {endolymph.mean():.3f}                {off.abs().mean():.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
