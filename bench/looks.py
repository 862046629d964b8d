"""What looking more than once at an ear is worth: one look, the node's two, and all eight ways to pair voxels.

    python bench/looks.py [--ears 40] [--scans 4] [--model inference/models/ear] [--threads 2]

The ears and the noise, blur and displacement are those of validation. A network that halves the grid sees voxels in
pairs; each further look is the same scan moved by one voxel along some axes, so that other voxels are paired. Dice by
the half-voxel rule; the error of the EH ratio: mean, bias, SD. Time is that of the network alone for both ears of a
patient, the looks taken in turns, median.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
import torch
from machine import machine_line
from torch import Tensor

from inference.model_store import SHIPPED, load_model
from inference.networks.folding import folded
from inference.training.crop_pool import CropPool
from inference.training.losses import predicted
from inference.training.scans import REALISTIC, Scans, scan
from inference.training.sources import as_fractions, centered
from inference.training.trainer import ear_scores
from inference.two_looks import mean_of_looks, seen_twice

FIRST_SEED: Final = 9_000_000
"""The ears that validate the shipped weights."""
BATCH: Final = 4
TURNS: Final = 15

Network = Callable[[Tensor], tuple[Tensor, Tensor]]


def one_look(network: Network, images: Tensor) -> Tensor:
    """(B, 2, K, J, I) logits."""
    return network(images.contiguous(memory_format=torch.channels_last_3d))[0]


def two_looks(network: Network, images: Tensor) -> Tensor:
    """As the node does."""
    return mean_of_looks(one_look(network, seen_twice(images)))


def eight_looks(network: Network, images: Tensor) -> Tensor:
    """Moved by no or one voxel along each axis; what leaves the grid comes in at its other side."""
    total = torch.zeros(())
    for steps in product((0, 1), repeat=3):
        back = tuple(-step for step in steps)
        seen = one_look(network, torch.roll(images, steps, (2, 3, 4)))
        total = total + torch.roll(seen, back, (2, 3, 4)) / 8.0
    return total


WAYS: Final[dict[str, Callable[[Network, Tensor], Tensor]]] = {
    "one look": one_look,
    "two looks": two_looks,
    "eight looks": eight_looks,
}


def scores(network: Network, way: Callable[[Network, Tensor], Tensor], batches: list[Scans]) -> Tensor:
    """(N, 3) Dice of total fluid and of endolymph, and the error of the ratio."""
    found = []
    for one in batches:
        answer = predicted(way(network, one.images), torch.zeros(len(one.images)))
        found.append(ear_scores(answer, one.total, one.endolymph))
    return torch.cat(found)


def milliseconds(network: Network, pair: Tensor) -> dict[str, float]:
    """Median time of each way for two ears, all in turns."""
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(TURNS + 2):
        for name, way in WAYS.items():
            began = time.perf_counter()
            way(network, pair)
            if turn >= 2:
                taken[name].append(1000.0 * (time.perf_counter() - began))
    return {name: statistics.median(times) for name, times in taken.items()}


@torch.inference_mode()
def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ears", type=int, default=40, metavar="N", help="synthetic ears (default %(default)s)")
    parser.add_argument("--scans", type=int, default=4, metavar="N", help="of each ear (default %(default)s)")
    parser.add_argument("--model", type=Path, default=SHIPPED, metavar="FOLDER", help="model folder (default: shipped)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of torch (default %(default)s)")
    parser.add_argument("--crop-folder", type=Path, metavar="DIR", help="synthetic ears that were drawn before")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    network = folded(load_model(asked.model).network)
    with tempfile.TemporaryDirectory() as temporary:
        pool = CropPool(asked.crop_folder or Path(temporary), first_seed=FIRST_SEED, count=asked.ears)
        with pool.drawn_by(2):
            ears = [as_fractions(centered(pool.parts(n))) for n in range(asked.ears)]
    groups = [torch.stack(ears[begin : begin + BATCH]) for begin in range(0, len(ears), BATCH)]
    batches = [
        scan(group, np.random.default_rng([n, number]), within=REALISTIC)
        for n in range(asked.scans)
        for number, group in enumerate(groups)
    ]
    times = milliseconds(network, batches[0].images[:2])
    print(machine_line())
    print(f"{asked.threads} threads, {asked.scans} scans of {len(ears)} ears")
    for name, way in WAYS.items():
        fluid, endolymph, off = scores(network, way, batches).unbind(dim=1)
        print(
            f"{name:12} total fluid {fluid.mean():.4f}  endolymph {endolymph.mean():.4f}"
            f"  ratio error {off.abs().mean():.4f}  bias {off.mean():+.4f}  SD {off.std():.4f}"
            f"  {times[name]:6.1f} ms ({times[name] / times['one look']:.2f} of one look)",
            flush=True,
        )


if __name__ == "__main__":
    main()
