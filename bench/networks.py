"""What each network costs: parameters, arithmetic, and milliseconds for one ear and for both at once.

    python bench/networks.py                     # every network, and the node's own in a few widths
    python bench/networks.py --only ear_unet --rounds 30 --json networks.json
    python bench/networks.py --clock cpu --threads 1   # on a machine that others use: processor time, not waiting

Accuracy is another bench; the two together chose the widths of the shipped network. bfloat16 is fast only where the
processor multiplies it (AMX, AVX512-BF16). IE-Vnet looks at a crop of 0.2 mm, the others at 1.0 x 0.5 x 0.5 mm.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import torch
from machine import machine
from torch.utils.flop_counter import FlopCounterMode

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
        return build_network(self.network, **self.options).eval().to(memory_format=torch.channels_last_3d)


EAR = (4, 24, 48, 48)
SUBJECTS = (
    Subject(network="ear_unet", shape=EAR),
    *(
        Subject(network="ear_unet", shape=EAR, options={"channels": channels})
        for channels in ((16, 32, 64), (16, 32, 64, 128), (16, 32, 96, 192), (24, 48, 96, 192), (32, 64, 96, 160))
    ),
    Subject(network="ear_finder", shape=(1, 72, 96, 96)),
    Subject(network="oto_unet", shape=(2, 24, 64, 64)),
    Subject(network="oto_unet", shape=(2, 24, 64, 64), options={"as_printed": True}),
    Subject(network="ie_vnet", shape=(1, 112, 160, 208)),
)
"""Default widths first. The finder sees a whole slab, so that its two "ears" are two patients."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One network's figures; `milliseconds` by precision and number of ears, such as "fp32 x2": median, fastest."""

    label: str
    shape: tuple[int, ...]
    parameters: int
    gflop: float
    milliseconds: dict[str, tuple[float, float]]


def gflop(subject: Subject) -> float:
    """Arithmetic of one ear's forward pass, a multiplication and an addition being two; nothing is computed for it."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        subject.build()(torch.empty(1, *subject.shape))
    return counter.get_total_flops() / 1e9


def time_ms(network: torch.nn.Module, images: torch.Tensor, *, bf16: bool, timing: Timing) -> tuple[float, float]:
    """Median and fastest of the forward passes that `timing` asks for, after two that warm up."""
    clock = CLOCKS[timing.clock]
    elapsed = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for _ in range(2 + timing.rounds):
            began = clock()
            network(images)
            elapsed.append((clock() - began) * 1e3)
    return median(elapsed[2:]), min(elapsed[2:])


def cost(subject: Subject, timing: Timing) -> Cost:
    """Every figure of one network."""
    network, measured = subject.build(), {}
    for precision, bf16 in PRECISIONS.items():
        for ears in EARS:
            images = torch.rand(ears, *subject.shape).to(memory_format=torch.channels_last_3d)
            measured[f"{precision} x{ears}"] = time_ms(network, images, bf16=bf16, timing=timing)
    return Cost(
        label=subject.label,
        shape=subject.shape,
        parameters=parameter_count(network),
        gflop=gflop(subject),
        milliseconds=measured,
    )


def head() -> str:
    """First line of the table."""
    columns = " ".join(f"{f'{precision} x{ears}':>15}" for precision in PRECISIONS for ears in EARS)
    return f"{'network':28} {'images':>16} {'parameters':>11} {'GFLOP':>7}  {columns}"


def row(one: Cost) -> str:
    """One line of the table."""
    images = "x".join(map(str, one.shape))
    times = " ".join(f"{middle:8.1f} ({least:4.0f})" for middle, least in one.milliseconds.values())
    return f"{one.label:28} {images:>16} {one.parameters:11,d} {one.gflop:7.1f}  {times}"


def main() -> None:
    """Measure and print as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted({one.network for one in SUBJECTS}), metavar="NETWORK")
    parser.add_argument(
        "--rounds", type=int, default=10, help="forward passes measured per figure (default %(default)s)"
    )
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="what is counted (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write machine and figures here")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(
        f"{asked.clock} milliseconds: median (fastest) of {asked.rounds}; torch threads: {asked.threads}; 1 or 2 ears"
    )
    print(head(), flush=True)
    costs = []
    for subject in SUBJECTS:
        if not asked.only or subject.network in asked.only:
            costs.append(cost(subject, Timing(rounds=asked.rounds, clock=asked.clock)))
            print(row(costs[-1]), flush=True)
    if asked.json:
        timing = {"clock": asked.clock, "threads": asked.threads, "rounds": asked.rounds}
        record = {"machine": machine(), "timing": timing, "networks": [asdict(one) for one in costs]}
        asked.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
