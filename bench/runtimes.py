"""Which runtime, in which precision, should run the shipped network: milliseconds for both ears, and what becomes of
their EH ratios.

    python bench/runtimes.py                        # every runtime that is installed, and a graphics card
    python bench/runtimes.py --only OpenVINO --rounds 30
    python bench/runtimes.py --clock cpu --threads 1   # on a machine that others use: processor time, not waiting

All run the same weights on the same synthetic ears, in turns; the reference is torch in float32, as the model folder
is loaded. Compiled torch needs a C++ compiler when it runs; what is not installed is left out, and named. The rivals
are the dependency group `bench` (`make bench` installs it). The whole segmentation step, with resampling, stands
beside the machine's arithmetic.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch._inductor.config
from machine_limits import MachineLimits, machine_limits, network_gflop
from networks import CLOCKS
from suite import Benchmark, Better, Found, Measurement, in_turns, run
from torch import Tensor, nn

from dicom_node.assembly.headers import SeriesRole
from dicom_node.pipeline import ear_images
from inference.cases import InputSet
from inference.findings import EarImages, EarROI
from inference.graphics_card import RATIO_BOUND, Answer, GraphicsCard, eh_ratios, half_precision
from inference.learned import NetworkSegmenter
from inference.model_store import SHIPPED, load_model
from inference.networks import build_network
from inference.networks.folding import folded
from inference.networks.pair import PairNetwork
from inference.phantom import PhantomOptions, make_study
from inference.training.crops import draw_crop
from inference.training.scans import REALISTIC, scan
from inference.training.sources import as_fractions, centered

Way = Callable[[Tensor], Answer]

OWN: Final = "torch float32, folded"
"""What the node runs."""

FIRST_SEED: Final = 5_200_000
"""Ears that neither training, validation nor calibration drew."""

CARD_GOAL_MS: Final = 3.0
"""Both ears, a network of the paper's size."""

BOX: Final = (26, 64, 64)
"""Voxels of an ear's box, as the search makes it on 1.0 x 0.5 x 0.5 mm."""

STEP_GOAL: Final = 2.0
"""The segmentation step, in times of what its arithmetic takes on this machine."""


@dataclass(frozen=True, kw_only=True)
class Maker:
    """A runtime: what it needs beside the node, and how it gets from the network to something that answers."""

    name: str
    make: Callable[[nn.Module, Tensor, int], Way]
    packages: tuple[str, ...] = ()
    program: str = ""

    @property
    def missing(self) -> str:
        """What it lacks here; empty if nothing."""
        lacking = [package for package in self.packages if find_spec(package) is None]
        if self.program and shutil.which(self.program) is None:
            lacking.append(f"the program {self.program}")
        return ", ".join(lacking)

    @property
    def label(self) -> str:
        """Name with the version of the runtime."""
        return f"{self.name}, {self.packages[0]} {version(self.packages[0])}" if self.packages else self.name


def autocast(network: nn.Module, _example: Tensor, _threads: int) -> Way:
    """torch with convolutions in bfloat16."""

    def answer(images: Tensor) -> Answer:
        with torch.autocast("cpu", torch.bfloat16):
            logits, log_sd = network(images)
        return logits, log_sd

    return answer


def half(network: nn.Module, _example: Tensor, _threads: int) -> Way:
    """torch with convolutions in float16."""
    copy = half_precision(network, torch.device("cpu"))
    return lambda images: copy(images.to(torch.float16))


def compiled(network: nn.Module, example: Tensor, _threads: int) -> Way:
    """torch.compile with frozen weights, without which it lays out convolutions worse than eager torch."""
    with torch._inductor.config.patch(freezing=True):
        way: Way = torch.compile(network)
        way(example)
    return way


def onnx_runtime(network: nn.Module, example: Tensor, threads: int) -> Way:
    """ONNX Runtime, float32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # it reports every pass
        path = str(Path(folder) / "network.onnx")
        torch.onnx.export(network.to(memory_format=torch.contiguous_format), (example.contiguous(),), path, dynamo=True)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: _as_answer(session.run(None, {name: images.contiguous().numpy()}))


def openvino(network: nn.Module, example: Tensor, threads: int, *, precision: str) -> Way:
    """OpenVINO, float32 or bfloat16."""
    import openvino as ov

    plain = network.to(memory_format=torch.contiguous_format)
    model = ov.convert_model(plain, example_input=example.contiguous())
    settings = {
        "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"
    }  # fmt: skip
    answering = ov.Core().compile_model(model, "CPU", settings)

    def answer(images: Tensor) -> Answer:
        found = answering(images.contiguous().numpy())
        return _as_answer([found[0], found[1]])

    return answer


def _as_answer(arrays: Sequence[np.ndarray]) -> Answer:
    logits, log_sd = (torch.from_numpy(np.asarray(array)) for array in arrays)
    return logits, log_sd


MAKERS: Final = (
    Maker(name=OWN, make=lambda network, _example, _threads: network),
    Maker(name="torch bfloat16", make=autocast),
    Maker(name="torch float16", make=half),
    Maker(name="torch.compile float32", make=compiled, program="g++"),
    Maker(name="ONNX Runtime float32", make=onnx_runtime, packages=("onnxruntime", "onnxscript")),
    Maker(name="OpenVINO float32", make=partial(openvino, precision="f32"), packages=("openvino",)),
    Maker(name="OpenVINO bfloat16", make=partial(openvino, precision="bf16"), packages=("openvino",)),
)


def synthetic_ears(count: int) -> Tensor:
    """(count, 4, K, J, I) scans as the network gets them."""
    parts = as_fractions(np.stack([centered(draw_crop(FIRST_SEED + n).parts) for n in range(count)]))
    scans = scan(parts, np.random.default_rng(FIRST_SEED), within=REALISTIC, only=InputSet.PPI_PEI)
    return scans.images.contiguous(memory_format=torch.channels_last_3d)


def prepared(only: Sequence[str], example: Tensor, threads: int) -> tuple[dict[str, Way], dict[str, float]]:
    """What answers, by label, the node's own first; and the seconds that each took to be made and to answer once."""
    ways, took = {}, {}
    for maker in MAKERS:
        if maker.name != OWN and only and not any(word in maker.name for word in only):
            continue
        if maker.missing:
            print(f"left out: {maker.name} needs {maker.missing}", flush=True)
            continue
        network = folded(load_model(SHIPPED).network)
        began = time.perf_counter()
        try:
            way = maker.make(network, example, threads)
            way(example)
        except RuntimeError as error:  # a processor without this precision
            print(f"left out: {maker.name}: {str(error).splitlines()[0]}", flush=True)
            continue
        ways[maker.label], took[maker.label] = way, time.perf_counter() - began
        print(f"made: {maker.label}, {took[maker.label]:.1f} s", flush=True)
    return ways, took


def graphics_card(network: nn.Module, example: Tensor) -> Way:
    """The network on a card, from the processor's memory and back to it."""
    told: list[str] = []
    card = GraphicsCard(network, torch.device("cuda"), tell=told.append)
    for _ in range(2):  # compared with the processor, then believed
        card(example)
    if told:
        raise RuntimeError(f"the graphics card was not used: {told[0]}")
    return card


def ratio_changes(ways: Mapping[str, Way], ears: Tensor) -> dict[str, tuple[float, ...]]:
    """Of every way, how far it moves the EH ratio of each ear from the reference's."""
    reference = load_model(SHIPPED).network.to(memory_format=torch.channels_last_3d)
    expected = torch.cat([eh_ratios(reference(pair)[0]) for pair in torch.split(ears, 2)])
    return {
        name: tuple((torch.cat([eh_ratios(way(pair)[0]) for pair in torch.split(ears, 2)]) - expected).abs().tolist())
        for name, way in ways.items()
    }


def study_ears(seed: int) -> list[EarImages]:
    """Both ears of a phantom study as the segmenter gets them, their boxes around the truth."""
    study = make_study(PhantomOptions(seed=seed, series=("MRC", "PPI", "PEI"), matrix=(288, 176, 64), step_mm=0.2))
    contrast = {SeriesRole(role): volume for role, volume in study.volumes.items() if role != SeriesRole.MRC}
    mrc, rois = study.volumes["MRC"], []
    for side, ear in study.truth.ears.items():
        start = np.rint(mrc.geometry.to_index(ear.center_lps_mm)).astype(int) - np.array(BOX) // 2
        box = mrc.geometry.crop(tuple(start.tolist()), BOX)
        rois.append(EarROI(side=side, center_lps_mm=ear.center_lps_mm, geometry=box, score=1.0))
    return [ear_images(roi, mrc, contrast, {}) for roi in rois]


def timed(task: Callable[[], object], clock: str) -> float:
    """Milliseconds of one call."""
    began = CLOCKS[clock]()
    task()
    return (CLOCKS[clock]() - began) * 1e3


def compared(
    times: Mapping[str, tuple[float, ...]], took: Mapping[str, float], changes: Mapping[str, tuple[float, ...]]
) -> Iterator[Measurement]:
    """The node's own way beside every other, then what each changes and costs once."""
    own = next(iter(changes))
    for name, values in times.items():
        if name != own:
            yield Measurement(
                what="both ears through the network", unit="ms", better=Better.LOWER, values=times[own], rival=name,
                rival_values=values,
            )  # fmt: skip
    for name, values in changes.items():
        yield Measurement(
            what=f"{name}: largest change of an EH ratio, {len(values)} ears",
            unit="",
            better=Better.LOWER,
            values=(max(values),),
            goal=RATIO_BOUND,
        )
    for name, value in took.items():
        yield Measurement(what=f"{name}: made, and first answer", unit="s", better=Better.LOWER, values=(value,))


def bounded(
    step: tuple[float, ...], network: tuple[float, ...], limits: MachineLimits, gflop: float
) -> Iterator[Measurement]:
    """Network alone and whole step beside what their arithmetic takes here."""
    limit = 1e3 * limits.arithmetic_s(gflop)
    told = f"{gflop:.1f} GFLOP at {limits.gflop_per_s:.0f} GFLOP/s"
    for what, values in (("network", network), ("segmentation step", step)):
        yield Measurement(
            what=f"{what}, both ears", unit="ms", better=Better.LOWER, values=values, goal=STEP_GOAL * limit,
            limit=limit, limit_from=told,
        )  # fmt: skip


def card_measurements(rounds: int, ears: Tensor) -> Iterator[Measurement]:
    """The card by itself: the node's network, and one of the paper's size; nothing without a card."""
    if not torch.cuda.is_available():
        print("left out: no graphics card is here", flush=True)
        return
    torch.manual_seed(0)
    paper = PairNetwork(folded(build_network("oto_unet")), shares=True).eval()
    for what, network, goal in (
        ("the node's network", folded(load_model(SHIPPED).network), None),
        ("network of the paper's size, untrained", paper, CARD_GOAL_MS),
    ):
        card = graphics_card(network, ears[:2])
        values = tuple(timed(partial(card, ears[:2]), "wall") for _ in range(rounds))
        where = torch.cuda.get_device_name(0)
        yield Measurement(
            what=f"{what} on {where}, both ears", unit="ms", better=Better.LOWER, values=values, goal=goal
        )


def measure(asked: argparse.Namespace) -> Found:
    """Every runtime on the same ears, in turns, and the step that the node's own is part of."""
    torch.set_num_threads(asked.threads)
    ears, images = synthetic_ears(asked.ears), study_ears(1)
    pair = ears[:2]
    segmenter = NetworkSegmenter(model=load_model(SHIPPED))
    segmenter.segment(images)
    with torch.inference_mode():
        ways, took = prepared(asked.only, pair, asked.threads)
        changes = ratio_changes(ways, ears)
        tasks: dict[str, Callable[[], object]] = {name: partial(way, pair) for name, way in ways.items()}
        tasks["step"] = partial(segmenter.segment, images)
        times = in_turns(asked.rounds, {name: partial(timed, task, asked.clock) for name, task in tasks.items()})
        on_card = tuple(card_measurements(asked.rounds, ears))
    step = times.pop("step")
    network = load_model(SHIPPED).description
    gflop = network_gflop(lambda: build_network(network.network, **network.network_options), tuple(pair.shape))
    limits = machine_limits(clock=CLOCKS[asked.clock])
    return Found(
        measurements=(
            *compared(times, took, changes),
            *bounded(step, times[OWN], limits, gflop),
            *on_card,
        ),
        details={"threads": asked.threads, "clock": asked.clock, "ratio_changes": changes},
    )


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    names = ", ".join(maker.name for maker in MAKERS)
    parser.add_argument("--only", nargs="+", default=(), metavar="WORDS", help=f"beside the node's own, of: {names}")
    parser.add_argument("--rounds", type=int, default=15, help="passes measured of each (default %(default)s)")
    parser.add_argument("--ears", type=int, default=24, help="whose ratios are compared (default %(default)s)")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="what is counted (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each runtime (default %(default)s)")


BENCHMARK: Final = Benchmark(
    name="runtimes",
    question="Which runtime should run the shipped network, and what does it change?",
    measure=measure,
    add_options=options,
    quick=("--only", "float16", "--rounds", "2", "--ears", "2"),
)

if __name__ == "__main__":
    run(BENCHMARK)
