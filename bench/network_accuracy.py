"""What each network reads, trained alike: accuracy beside milliseconds, on the images that the node has.

    python bench/network_accuracy.py [--only "ear_unet 16-32-96-160" ...] [--steps 1500] [--out FOLDER]

Every network sees the node's four channels of 24 x 48 x 48 voxels and answers total fluid and endolymph's share of it.
All see the same synthetic ears, those of the recipe `shipped`, in the same order, with the loss, optimizer and rates
of the recipe `quick`, which was found with `ear_unet`. The figures are those of the last step's averaged weights on 40
ears that none was trained on, each with every input set, scanned with realistic difficulty. So few steps tell which
network learns faster, not what each comes to in the end. Milliseconds are for both ears of a study, single precision,
in turns within one run. A run that was cut short goes on where its --out says.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from math import log
from pathlib import Path
from statistics import median
from typing import Final

import torch
from machine import machine_line
from machine_limits import network_gflop
from networks import one_pass_ms
from suite import in_turns
from torch import Tensor, nn

from inference.ear_grid import INPUTS, SHAPE
from inference.networks import build_network, parameter_count
from inference.networks.ear_unet import TYPICAL_ERROR, TYPICAL_LOGITS
from inference.training.crop_pool import CropPool
from inference.training.presets import QUICK, SHIPPED
from inference.training.scans import REALISTIC, TRAINING, Scans
from inference.training.sources import PhantomSource, phantom_scans
from inference.training.trainer import Trainer, TrainingOptions, Validation

SCAN_SEED: Final = 3
BATCH: Final = 4
EAR: Final = (len(INPUTS), *SHAPE)
REPORT_EVERY: Final = 100


class WithDoubt(nn.Module):
    """A network that answers maps alone, beginning where `EarUNet` does, with one standard error for all ears."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.log_sd = nn.Parameter(torch.full((1,), log(TYPICAL_ERROR)))
        self.register_buffer("start", torch.tensor(TYPICAL_LOGITS)[None, :, None, None, None])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, 2, K, J, I), and (B,) the same number for each ear."""
        return self.network(images) + self.start, self.log_sd * images.new_ones(len(images))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network of some widths."""

    label: str
    build: Callable[[], nn.Module]


def ear_unet(*channels: int) -> Candidate:
    """The node's own, in other widths."""
    return Candidate(
        label=f"ear_unet {'-'.join(map(str, channels))}", build=lambda: build_network("ear_unet", channels=channels)
    )


def monai_basic_unet() -> nn.Module:
    """MONAI's plain U-Net with about as many parameters as the shipped network."""
    from monai.networks.nets import BasicUNet

    return WithDoubt(BasicUNet(spatial_dims=3, in_channels=EAR[0], out_channels=2, features=(16, 32, 64, 104, 104, 16)))


CANDIDATES: Final = (
    ear_unet(16, 32, 96, 160),
    ear_unet(16, 32, 64),
    ear_unet(16, 32, 64, 128),
    ear_unet(32, 64, 96, 160),
    Candidate(label="oto_unet", build=lambda: WithDoubt(build_network("oto_unet", inputs=EAR[0]))),
    *([Candidate(label="MONAI BasicUNet", build=monai_basic_unet)] if find_spec("monai") is not None else []),
)
"""The shipped one first; the last two have about as many parameters as it has."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """One network's size, arithmetic for one ear, and figures after training."""

    label: str
    parameters: int
    gflop: float
    figures: Validation


def learned(
    candidate: Candidate, source: PhantomSource, unseen: Sequence[Scans], *, options: TrainingOptions, folder: Path
) -> Learned:
    """Train one candidate as every other."""
    torch.manual_seed(options.seed)
    network = candidate.build()
    began = time.monotonic()

    def told(step: int, loss: float, figures: Validation | None) -> None:
        if step % REPORT_EVERY == 0 or figures is not None:
            passed = time.monotonic() - began
            print(f"  {candidate.label}: step {step}/{options.steps}, loss {loss:.3f}, {passed:.0f} s", flush=True)

    trainer = Trainer(network, source, unseen, options=options, folder=folder, identity={"candidate": candidate.label})
    history = trainer.run(told).history
    return Learned(
        label=candidate.label,
        parameters=parameter_count(network),
        gflop=network_gflop(candidate.build, (1, *EAR)),
        figures=history[-1],
    )


def milliseconds(candidates: Sequence[Candidate], rounds: int) -> dict[str, tuple[float, ...]]:
    """Both ears through each network, by label, in turns."""
    images = torch.rand(2, *EAR).to(memory_format=torch.channels_last_3d)
    passes = {
        one.label: partial(
            one_pass_ms, one.build().eval().to(memory_format=torch.channels_last_3d), images, bf16=False, clock="wall"
        )
        for one in candidates
    }
    for warm_up in passes.values():
        warm_up()
    return in_turns(rounds, passes)


def row(one: Learned, taken: Sequence[float]) -> str:
    """One line of the table."""
    figures = one.figures
    return (
        f"{one.label:24} {one.parameters:11,d} {one.gflop:7.1f} {median(taken):8.1f} ({min(taken):4.0f})"
        f" {figures.fluid_dice:9.4f} {figures.endolymph_dice:11.4f} {figures.ratio_mae:8.4f} {figures.ratio_bias:+8.4f}"
        f" {figures.seconds / figures.step:8.2f}"
    )


def main() -> None:
    """Train, measure, print one line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    labels = [one.label for one in CANDIDATES]
    parser.add_argument("--only", nargs="+", choices=labels, metavar="NETWORK", help=f"of: {'; '.join(labels)}")
    parser.add_argument("--steps", type=int, default=1500, metavar="N", help="of 4 ears (default %(default)s)")
    parser.add_argument("--crops", type=int, default=400, metavar="N", help="synthetic ears (default %(default)s)")
    parser.add_argument("--unseen", type=int, default=40, metavar="N", help="ears to judge by (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="passes to time (default %(default)s)")
    parser.add_argument("--seed", type=int, default=QUICK.options.seed, help="of weights, ears (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default %(default)s)")
    parser.add_argument("--crop-folder", type=Path, metavar="DIR", help="synthetic ears that were drawn before")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep checkpoints and logs here")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(machine_line(), flush=True)
    options = replace(QUICK.options, seed=asked.seed, steps=asked.steps, validate_every=asked.steps)
    chosen = [one for one in CANDIDATES if not asked.only or one.label in asked.only]
    with tempfile.TemporaryDirectory() as temporary:
        out = asked.out or Path(temporary)
        crops = asked.crop_folder or out / "crops"
        judged_by = CropPool(crops, first_seed=SHIPPED.first_validation_seed, count=asked.unseen)
        trained_on = CropPool(crops, first_seed=SHIPPED.first_seed, count=asked.crops)
        for pool in (judged_by, trained_on):
            pool.check()
            with pool.drawn_by(asked.threads):
                for number in range(len(pool)):
                    pool.parts(number)
        unseen = phantom_scans(judged_by, within=REALISTIC, seed=SCAN_SEED, batch=BATCH)
        source = PhantomSource(pool=trained_on, within=TRAINING, at_first=asked.crops)
        found = [
            learned(one, source, unseen, options=options, folder=out / one.label.replace(" ", "-")) for one in chosen
        ]
    taken = milliseconds(chosen, asked.rounds)
    print(
        f"\n{asked.steps} steps of {options.batch} ears out of {asked.crops}; {asked.unseen} others, each with every"
        f" input set\n{'network':24} {'parameters':>11} {'GFLOP':>7} {'ms, both ears':>15} {'fluid':>9}"
        f" {'endolymph':>11} {'error':>8} {'bias':>8} {'s/step':>8}"
    )
    print(*(row(one, taken[one.label]) for one in found), sep="\n")


if __name__ == "__main__":
    main()
