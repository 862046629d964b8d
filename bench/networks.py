"""What each network costs: parameters, arithmetic, and milliseconds for one ear and for both at once.

    python bench/networks.py                     # every network, and the node's own in a few widths
    python bench/networks.py --only ear_unet oto_unet --rounds 30
    python bench/networks.py --clock cpu --threads 1   # on a machine that others use: processor time, not waiting

Accuracy is another matter: `network_accuracy.py` trains networks alike, for a while. bfloat16 is fast only
where the processor multiplies it (AMX, AVX512-BF16). IE-Vnet looks at a
crop of 0.2 mm, the others at 1.0 x 0.5 x 0.5 mm.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Final

import torch
from machine_limits import MachineLimits, machine_limits, network_gflop
from suite import Benchmark, Better, Found, Measurement, in_turns, run

from inference.networks import build_network, parameter_count

PRECISIONS = {"fp32": False, "bf16": True}
"""By name, whether torch's autocast to bfloat16 is on."""

EARS = (1, 2)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""What passes for a person, and what the processor spent in all threads together."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How passes are timed."""

    rounds: int
    clock: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network and the images of one ear that it is asked about, as `shape` (channels, K, J, I)."""

    network: str
    shape: tuple[int, ...]
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name, with the widths or the names of its options."""
        widths = self.options.get("channels")
        told = "-".join(map(str, widths)) if isinstance(widths, tuple) else " ".join(self.options)
        return f"{self.network} {told}".rstrip()

    def build(self) -> torch.nn.Module:
        """The network as it is served: evaluation mode, channels last."""
        made = MONAIS[self.network]() if self.network in MONAIS else build_network(self.network, **self.options)
        return made.eval().to(memory_format=torch.channels_last_3d)


EAR = (4, 24, 48, 48)
PAIR = (2, 24, 64, 64)
MONAI: Final = "MONAI U-Net"
"""Compared where MONAI is installed; the node itself does without."""


def monai_unet() -> torch.nn.Module:
    """MONAI's U-Net on the node's own channels: the widths of the node's network, two residual units a level."""
    from monai.networks.nets import UNet

    made: torch.nn.Module = UNet(
        spatial_dims=3,
        in_channels=EAR[0],
        out_channels=2,
        channels=(16, 32, 96, 160),
        strides=(2, 2, 2),
        num_res_units=2,
    )
    return made


def monai_basic_unet() -> torch.nn.Module:
    """MONAI's plain U-Net in the size of the paper's, 2,537,178 parameters; its first level keeps the resolution."""
    from monai.networks.nets import BasicUNet

    made: torch.nn.Module = BasicUNet(
        spatial_dims=3, in_channels=PAIR[0], out_channels=2, features=(16, 32, 64, 104, 104, 16)
    )
    return made


MONAI_PAPER_SIZED: Final = "MONAI BasicUNet"
MONAIS: Final = {MONAI: monai_unet, MONAI_PAPER_SIZED: monai_basic_unet}

SUBJECTS = (
    Subject(network="ear_unet", shape=EAR),
    *(
        Subject(network="ear_unet", shape=EAR, options={"channels": channels})
        for channels in ((16, 32, 64), (16, 32, 64, 128), (16, 32, 96, 192), (24, 48, 96, 192), (32, 64, 96, 160))
    ),
    Subject(network="ear_finder", shape=(1, 72, 96, 96)),
    Subject(network="oto_unet", shape=PAIR),
    Subject(network="oto_unet", shape=PAIR, options={"as_printed": True}),
    Subject(network="ie_vnet", shape=(1, 112, 160, 208)),
)
"""Default widths first. The finder sees a whole slab, so that its two "ears" are two patients."""

if find_spec("monai") is not None:
    SUBJECTS = (*SUBJECTS, Subject(network=MONAI, shape=EAR), Subject(network=MONAI_PAPER_SIZED, shape=PAIR))


GATED: Final = "oto_unet"
RIVALS: Final = {
    "oto_unet": "the paper's 3D U-Net on 24 x 64 x 64",
    "ie_vnet": "IE-Vnet's V-Net on 0.2 mm voxels",
    MONAI: "MONAI's U-Net on the same grid",
    MONAI_PAPER_SIZED: "MONAI's BasicUNet of the paper's size",
}
"""By label, what the node's own network is held against."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One network's figures; `milliseconds` by precision and number of ears, such as "fp32 x2", of every round."""

    label: str
    shape: tuple[int, ...]
    parameters: int
    gflop: float
    milliseconds: dict[str, tuple[float, ...]]


def one_pass_ms(network: torch.nn.Module, images: torch.Tensor, *, bf16: bool, clock: str) -> float:
    """Milliseconds of one forward pass."""
    now = CLOCKS[clock]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        began = now()
        network(images)
        return (now() - began) * 1e3


def costs(subjects: Sequence[Subject], timing: Timing) -> list[Cost]:
    """Every figure of every network, all networks in turns within a round."""
    networks = [subject.build() for subject in subjects]
    measured: list[dict[str, tuple[float, ...]]] = [{} for _ in subjects]
    for precision, bf16 in PRECISIONS.items():
        for ears in EARS:
            passes = {
                f"{number} {subject.label}": partial(
                    one_pass_ms,
                    network,
                    torch.rand(ears, *subject.shape).to(memory_format=torch.channels_last_3d),
                    bf16=bf16,
                    clock=timing.clock,
                )
                for number, (subject, network) in enumerate(zip(subjects, networks, strict=True))
            }
            for warm_up in passes.values():
                warm_up()
            print(f"{precision}, {ears} ear{'s' if ears > 1 else ''}", flush=True)
            for number, taken in enumerate(in_turns(timing.rounds, passes).values()):
                measured[number][f"{precision} x{ears}"] = taken
    return [
        Cost(
            label=subject.label,
            shape=subject.shape,
            parameters=parameter_count(network),
            gflop=network_gflop(subject.build, (1, *subject.shape)),
            milliseconds=times,
        )
        for subject, network, times in zip(subjects, networks, measured, strict=True)
    ]


def head() -> str:
    """First line of the table."""
    columns = " ".join(f"{f'{precision} x{ears}':>15}" for precision in PRECISIONS for ears in EARS)
    return f"{'network':28} {'images':>16} {'parameters':>11} {'GFLOP':>7}  {columns}"


def row(one: Cost) -> str:
    """One line of the table."""
    images = "x".join(map(str, one.shape))
    times = " ".join(f"{median(taken):8.1f} ({min(taken):4.0f})" for taken in one.milliseconds.values())
    return f"{one.label:28} {images:>16} {one.parameters:11,d} {one.gflop:7.1f}  {times}"


def measured(of: Sequence[Cost], limits: MachineLimits) -> Iterator[Measurement]:
    """Every network by itself, then the node's own beside each that is asked for the same ears."""
    for one in of:
        for kind, taken in one.milliseconds.items():
            ears = int(kind[-1])
            bounded = kind.startswith("fp32")
            yield Measurement(
                what=f"{one.label} on {'x'.join(map(str, one.shape))}: {kind}",
                unit="ms",
                better=Better.LOWER,
                values=taken,
                limit=1e3 * limits.arithmetic_s(ears * one.gflop) if bounded else None,
                limit_from=f"{ears * one.gflop:.1f} GFLOP at {limits.gflop_per_s:.0f} GFLOP/s" if bounded else "",
            )
    own = of[0]
    for rival in of[1:]:
        if rival.label in RIVALS:
            kind = "fp32 x2"
            yield Measurement(
                what=f"both ears of a study, {kind}",
                unit="ms",
                better=Better.LOWER,
                values=own.milliseconds[kind],
                rival=RIVALS[rival.label],
                rival_values=rival.milliseconds[kind],
                gated=rival.label == GATED,
            )


def measure(asked: argparse.Namespace) -> Found:
    """Every network that was asked for, in turns."""
    torch.set_num_threads(asked.threads)
    chosen = [one for one in SUBJECTS if not asked.only or one.network in asked.only]
    timing = Timing(rounds=asked.rounds, clock=asked.clock)
    found = costs(chosen, timing)
    print(head(), *map(row, found), sep="\n")
    details = {"timing": asdict(timing), "networks": [asdict(one) for one in found]}
    return Found(measurements=tuple(measured(found, machine_limits(CLOCKS[asked.clock]))), details=details)


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--only", nargs="+", choices=sorted({one.network for one in SUBJECTS}), metavar="NETWORK")
    parser.add_argument(
        "--rounds", type=int, default=10, help="forward passes measured per figure (default %(default)s)"
    )
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="what is counted (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default %(default)s)")


BENCHMARK: Final = Benchmark(
    name="networks",
    question="What does each network cost, for one ear and for both at once?",
    measure=measure,
    add_options=options,
    quick=("--only", "ear_unet", "--rounds", "2"),
    gate=("--only", "ear_unet", "oto_unet", "--rounds", "7", "--threads", "1", "--clock", "cpu"),
)

if __name__ == "__main__":
    run(BENCHMARK)
