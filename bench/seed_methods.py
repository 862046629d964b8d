"""The published ways to an ear's fluid beside ours, on the same synthetic heads: seconds, overlap, error of the ratio.

    python bench/seed_methods.py                       # clinical slabs; some minutes of two cores for each head
    python bench/seed_methods.py --heads 1 --small     # a small slab around the ears

Atlas: whole-head and deformable registration, then Otsu's threshold (`atlas.py`), with another synthetic head as the
template. IE-Vnet: its network on both ears at 0.2 mm. nnU-Net's way: windows that overlap by half, weighted by a
Gaussian; over the whole slab with a U-Net of the paper's size, which then needs no search for ears, and around each
ear with our weights. Our network was trained on such phantoms, and the atlas made of one: what is printed is no claim
about patients. Networks that come without weights are timed only. Series are given as they lie, no patient moved, so
that nobody has to align them; ours does all the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import torch
from atlas import ATLAS, Atlas, atlas_ears
from monai.inferers import sliding_window_inference
from monai.networks.nets import BasicUNet
from numpy.typing import NDArray
from suite import Benchmark, Better, Found, Measurement, run, seconds

from dicom_node.assembly.headers import SeriesRole
from dicom_node.errors import RejectedStudy
from dicom_node.pipeline import PipelineOptions, StepTimer, measure_study
from inference.anatomy import EarSide
from inference.ear_grid import SHAPE, channels, ear_grid, scaled
from inference.findings import EarFindings, EarImages, StudyFindings
from inference.geometry import Volume, VolumeGeometry
from inference.learned import NetworkSegmenter, labyrinth_in
from inference.model_store import SHIPPED, load_model
from inference.networks import build_network
from inference.networks.folding import folded
from inference.networks.ie_vnet import SHAPE as FINE_SHAPE
from inference.networks.ie_vnet import SPACING_MM as FINE_MM
from inference.phantom import PhantomOptions, PhantomStudy, make_study
from inference.resampling import resample
from inference.segmentation import MASK_FRACTION

CLINICAL: Final = (324, 384, 104)
SMALL: Final = (288, 220, 80)
TEMPLATE_SEED: Final = 900
FIRST_SEED: Final = 901

PAPER_SIZED: Final = (16, 32, 64, 104, 104, 16)
"""Widths of MONAI's U-Net with about the 2,512,930 parameters of the paper's."""

WINDOW: Final = (24, 64, 64)
OVERLAP: Final = 0.5

MARGIN: Final = 1.5
"""Sizes of the network's grid that windows look over around an ear."""


@dataclass(frozen=True, kw_only=True)
class Ear:
    """One ear of one head by one method; None where it gave no number."""

    head: int
    side: str
    method: str
    dice: float | None
    ratio: float | None
    true_ratio: float

    @property
    def ratio_error(self) -> float | None:
        """Absolute, 0..1."""
        return None if self.ratio is None else abs(self.ratio - self.true_ratio)


@dataclass(frozen=True, kw_only=True)
class Head:
    """Seconds of every method on one head, by name, and what it said of the ears."""

    seconds: dict[str, float]
    ears: list[Ear]


OURS, WINDOWS = "this node", "our network in windows"
OUR_STEP, IE_VNET, SLAB = "segmentation step", "IE-Vnet's network at 0.2 mm, untrained", "windows over the whole slab"


def patient(seed: int, *, small: bool, ratios: Sequence[float], mrc_snr: float = 60.0) -> PhantomStudy:
    """A head whose series were taken without moving."""
    return make_study(
        PhantomOptions(
            seed=seed,
            series=("MRC", "HYDROPS"),
            matrix=SMALL if small else CLINICAL,
            step_mm=0.2,
            mrc_snr=mrc_snr,
            eh_ratio=dict(zip(EarSide, ratios, strict=True)),
        )
    )


def dice(mask: Volume, truth: Volume) -> float:
    """Overlap of a mask with the voxels that are at least half fluid, on the mask's crop of the truth's grid."""
    start = np.rint(truth.geometry.to_index(mask.geometry.to_lps((0, 0, 0)))).astype(int)
    true = np.asarray(truth.crop(tuple(start.tolist()), mask.geometry.shape).array) >= 0.5
    found: NDArray[np.bool_] = np.asarray(mask.array, dtype=bool)
    return float(2 * np.count_nonzero(found & true) / max(1, np.count_nonzero(found) + np.count_nonzero(true)))


def node_findings(study: PhantomStudy, segmenter: NetworkSegmenter) -> tuple[StudyFindings | None, float]:
    """The whole pipeline, and its seconds; None where the study was refused."""
    began = time.perf_counter()
    volumes = {SeriesRole(role): volume for role, volume in study.volumes.items()}
    try:
        found = measure_study(
            volumes, segmenter=segmenter, options=PipelineOptions(), step=StepTimer(time.perf_counter)
        )
    except RejectedStudy as refused:
        print(f"  refused: {refused}", flush=True)
        return None, time.perf_counter() - began
    return found, time.perf_counter() - began


def in_windows(segmenter: NetworkSegmenter, ear: EarImages, truth: Volume) -> tuple[float, float]:
    """Overlap and EH ratio of one ear by our weights, asked in overlapping windows of a wider grid."""
    wide = tuple(int(MARGIN * size) for size in SHAPE)
    grid = ear_grid(ear.roi.side, ear.mrc.geometry, ear.roi.center_lps_mm)
    grid = grid.crop(tuple((a - b) // 2 for a, b in zip(SHAPE, wide, strict=True)), wide)
    with torch.inference_mode():
        logits = sliding_window_inference(
            scaled(channels(ear, grid)[None]),
            SHAPE,
            2,
            lambda window: segmenter.model.network(window)[0],
            overlap=OVERLAP,
            mode="gaussian",
        )
    total, share = torch.sigmoid(logits)[0].numpy()
    total = total * labyrinth_in(total, grid.spacing_mm)
    mask = Volume(array=total >= MASK_FRACTION, geometry=grid)
    return dice(mask, resample(truth, grid)), float((total * share).sum() / max(total.sum(), 1e-6))


def look_at_0_2_mm(network: torch.nn.Module, ears: Sequence[EarImages]) -> None:
    """IE-Vnet's network on a crop of every ear, one after the other as its program does."""
    for ear in ears:
        affine = np.eye(4)
        affine[:3, :3] = ear.mrc.geometry.directions * np.array(FINE_MM)
        affine[:3, 3] = np.array(ear.roi.center_lps_mm) - affine[:3, :3] @ (np.array(FINE_SHAPE) / 2)
        frame = ear.mrc.geometry.frame_of_reference_uid
        fine = VolumeGeometry(shape=FINE_SHAPE, index_to_lps=affine, frame_of_reference_uid=frame)
        crop = torch.from_numpy(np.asarray(resample(ear.mrc, fine).array))
        with torch.inference_mode():
            network((crop / crop.max().clamp(min=1e-6))[None, None])


def over_the_slab(network: torch.nn.Module, study: PhantomStudy) -> None:
    """A U-Net of the paper's size on every window of the slab: what spares a search for ears."""
    mrc, hydrops = (torch.from_numpy(np.asarray(study.volumes[role].array)) for role in ("MRC", "HYDROPS"))
    images = torch.stack([mrc, mrc * hydrops])[None] / float(mrc.max())
    with torch.inference_mode():
        sliding_window_inference(images, WINDOW, 2, network, overlap=OVERLAP, mode="gaussian")


def measured_head(number: int, study: PhantomStudy, atlas: Atlas, asked: argparse.Namespace) -> Head:
    """Every method on one head, each once."""
    segmenter = NetworkSegmenter(model=load_model(SHIPPED))
    findings, ours_s = node_findings(study, segmenter)
    began = time.perf_counter()
    by_atlas = atlas_ears(atlas, study.volumes["MRC"], study.volumes["HYDROPS"], threads=asked.threads)
    head = Head(seconds={OURS: ours_s, ATLAS: time.perf_counter() - began}, ears=[])
    found = {} if findings is None else findings.ears
    for side, theirs in by_atlas.items():
        overlap = dice(theirs.total_fluid, study.truth.total_fluid_fraction)
        head.ears.append(_of_node(number, side, found.get(side), study))
        head.ears.append(_ear(number, side, ATLAS, study, overlap, theirs.eh_ratio))
    images = [ear.images for ear in found.values() if ear.images is not None]
    if images:
        segmented_alone(number, head, segmenter, images, study)
    if number < asked.slabs:
        unet = folded(BasicUNet(spatial_dims=3, in_channels=2, out_channels=2, features=PAPER_SIZED))
        head.seconds[SLAB] = seconds(lambda: over_the_slab(unet, study))
    return head


def segmented_alone(
    number: int, head: Head, segmenter: NetworkSegmenter, images: Sequence[EarImages], study: PhantomStudy
) -> None:
    """Adds what the step itself takes, and the methods that begin where it begins: with ears that were found."""
    head.seconds[OUR_STEP] = seconds(lambda: segmenter.segment(images))
    began = time.perf_counter()
    by_windows = [in_windows(segmenter, ear, study.truth.total_fluid_fraction) for ear in images]
    head.seconds[WINDOWS] = time.perf_counter() - began
    for ear, (overlap, ratio) in zip(images, by_windows, strict=True):
        head.ears.append(_ear(number, ear.roi.side, WINDOWS, study, overlap, ratio))
    network = build_network("ie_vnet").eval()
    head.seconds[IE_VNET] = seconds(lambda: look_at_0_2_mm(network, images))


def _of_node(number: int, side: EarSide, found: EarFindings | None, study: PhantomStudy) -> Ear:
    if found is None or found.ratio is None or found.fluid is None:
        return _ear(number, side, OURS, study, None, None)
    overlap = dice(found.fluid.total_fluid_mask, study.truth.total_fluid_fraction)
    return _ear(number, side, OURS, study, overlap, found.ratio.value)


def _ear(
    number: int, side: EarSide, method: str, study: PhantomStudy, overlap: float | None, ratio: float | None
) -> Ear:
    true = study.truth.ears[side].eh_ratio
    return Ear(head=number, side=side.value, method=method, dice=overlap, ratio=ratio, true_ratio=true)


def measurements(heads: Sequence[Head]) -> Iterator[Measurement]:
    """Ours beside each method: seconds of the same heads, accuracy of the same ears."""
    for what, own, rival in (
        ("from images to both ratios", OURS, ATLAS),
        ("both ears segmented, found before", OUR_STEP, WINDOWS),
        ("both ears segmented, found before", OUR_STEP, IE_VNET),
        ("total fluid of the slab, ears not found before", OURS, SLAB),
    ):
        both = [(head.seconds[own], head.seconds[rival]) for head in heads if {own, rival} <= head.seconds.keys()]
        if both:
            yield _beside(what, "s", Better.LOWER, both, rival)
    for rival in (ATLAS, WINDOWS):
        for what, name, better in (
            ("overlap of total fluid (Dice)", "dice", Better.HIGHER),
            ("error of the EH ratio", "ratio_error", Better.LOWER),
        ):
            if both := [pair for head in heads for pair in _pairs(head, rival, name)]:
                yield _beside(what, "", better, both, rival)
    missed = sum(ear.ratio is None for head in heads for ear in head.ears if ear.method == OURS)
    yield Measurement(
        what=f"ears without a number, of {2 * len(heads)}", unit="ears", better=Better.LOWER, values=(float(missed),)
    )


def _beside(what: str, unit: str, better: Better, both: Sequence[tuple[float, float]], rival: str) -> Measurement:
    ours, theirs = zip(*both, strict=True)
    return Measurement(what=what, unit=unit, better=better, values=ours, rival=rival, rival_values=theirs)


def _pairs(head: Head, rival: str, name: str) -> Iterator[tuple[float, float]]:
    """A figure of the ears that both methods gave, away from zero, to which there is no ratio."""
    by_side = {(ear.method, ear.side): getattr(ear, name) for ear in head.ears}
    for side in EarSide:
        ours, theirs = by_side.get((OURS, side.value)), by_side.get((rival, side.value))
        if ours is not None and theirs is not None and np.isfinite(theirs):
            yield max(ours, 1e-4), max(theirs, 1e-4)


def measure(asked: argparse.Namespace) -> Found:
    """Every method on every head, one after the other."""
    torch.set_num_threads(asked.threads)
    rng = np.random.default_rng(TEMPLATE_SEED)
    template = patient(TEMPLATE_SEED, small=asked.small, ratios=(0.12, 0.12), mrc_snr=200.0)
    atlas = Atlas.of(template)
    node_findings(template, NetworkSegmenter(model=load_model(SHIPPED)))  # what only the first study pays
    heads = []
    for number in range(asked.heads):
        study = patient(FIRST_SEED + number, small=asked.small, ratios=rng.uniform(0.08, 0.45, 2).tolist())
        heads.append(measured_head(number, study, atlas, asked))
        told = ", ".join(f"{name} {taken:.3g} s" for name, taken in heads[-1].seconds.items())
        print(f"  head {number + 1}/{asked.heads}: {told}", flush=True)
    return Found(measurements=tuple(measurements(heads)), details={"heads": [asdict(head) for head in heads]})


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--heads", type=int, default=6, help="patients (default %(default)s)")
    parser.add_argument(
        "--slabs", type=int, default=1, help="of these, looked at by windows all over (default %(default)s)"
    )
    parser.add_argument("--small", action="store_true", help="slabs of 144 x 110 x 80 mm instead of clinical ones")
    parser.add_argument("--threads", type=int, default=2, help="of every method (default %(default)s)")


BENCHMARK: Final = Benchmark(
    name="seed_methods",
    question="How fast and how exact are the published methods on the same heads?",
    measure=measure,
    add_options=options,
    quick=("--heads", "1", "--small", "--slabs", "0"),
)

if __name__ == "__main__":
    run(BENCHMARK)
