"""A scanner for training: crops of tissue parts become the series of a study, each time with other physics.

The same inversion-recovery model as the phantom's (`inference.phantom.physics`), for a batch of ears at once and with
every constant drawn: relaxation times, contrast agent and its gradient, noise, blur and ringing, receive gain, what is
left of motion after registration, and the smoothing that registration's interpolation brings. Signed signals are mixed
by volume before the magnitude is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from inference.cases import InputSet
from inference.ear_grid import INPUTS, LEVEL_QUANTILE, SPACING_MM, scaled
from inference.phantom.physics import MRC, PEI, PPI, REAL_IR, RELAXATION, Relaxation, Sequence, Tissue, signed_signal
from inference.training.crops import CSF, ENDOLYMPH, FATTY, GROUPS, MUCOSA, PERILYMPH, SOFT

ECHO_DECAY: Final = 0.7
"""Transverse decay of fluids at TE 540 ms, about exp(-0.54 / 1.5); one number, because gray values are scaled later."""

MI2_FLOOR: Final = 0.25
"""Of the fluid level: where MRC is darker, HYDROPS cannot be divided out of HYDROPS-Mi2."""

UNEVEN: Final = 0.13
"""Largest SD of fluid signal inside one ear that is neither coil nor partial volume; canals of a real crop shine up to
1.4 times as bright as its vestibule."""

HALF_EDGE_MM: Final = 12.0
"""Half the crop's edge, over which gradients reach their full size."""


SET_SHARES: Final = {InputSet.PPI_PEI: 0.4, InputSet.HYDROPS: 0.25, InputSet.HYDROPS_MI2: 0.15, InputSet.REAL_IR: 0.2}
"""How often each is trained."""


@dataclass(frozen=True, kw_only=True)
class ScanRange:
    """From what the scans are drawn; pairs are (low, high).

    Parameters
    ----------
    ppi_snr, mrc_snr
        Normally enhanced perilymph in PPI, and fluid in MRC, over the noise SD; drawn evenly in the logarithm.
    perilymph_t1_s
        Bulk of the draws; a `rare_share` each falls in the ranges of strong and of weak contrast below.
    gradient
        Largest relative change of perilymph's T1 over 12 mm; half of the ears have none.
    shift_mm
        SD per axis of what registration leaves; `rare_share` have `rare_shift_mm`.
    resolution, lean
        Voxels per acquired point of the MRC along each axis; below 1 less of the image's detail is smoothed away, at
        two thirds none. With a `lean` above 1 more of the draws are sharp (2: half in the sharpest quarter).
    ir_coarser
        The same of the inversion-recovery series, over that of the MRC: a protocol has one matrix, but longer echo
        trains and a patient's restlessness blur a little more.
    evenness
        With more than 1, fluid shines evenly in more of the ears (3: in half of them its SD is below an eighth of
        `UNEVEN`): only who sees that it does can read a rim's brightness as its part of fluid.
    mrc_recovery_s
        Time in which fluids recover between the MRC's excitations. A pulse that drives them back makes them recover
        as if it were longer: then endolymph, whose T1 is longer, is no darker there than perilymph.
    """

    ppi_snr: tuple[float, float] = (2.5, 30.0)
    mrc_snr: tuple[float, float] = (15.0, 100.0)
    perilymph_t1_s: tuple[float, float] = (2.6, 3.15)
    strong_t1_s: tuple[float, float] = (1.9, 2.6)
    weak_t1_s: tuple[float, float] = (3.15, 3.33)
    rare_share: float = 0.2
    gradient: float = 0.12
    endolymph_t1_s: tuple[float, float] = (3.55, 3.85)
    csf_t1_s: tuple[float, float] = (3.95, 4.35)
    shift_mm: float = 0.08
    rare_shift_mm: tuple[float, float] = (0.15, 0.35)
    resolution: tuple[float, float] = (1.0, 1.7)
    lean: float = 2.0
    ir_coarser: tuple[float, float] = (0.95, 1.15)
    gain_slope: float = 0.15
    evenness: float = 1.0
    mrc_recovery_s: tuple[float, float] = (MRC.repetition_time_s, MRC.repetition_time_s)


TRAINING: Final = ScanRange(
    gradient=0.16,
    evenness=3.0,
    csf_t1_s=(3.6, 4.4),
    mrc_recovery_s=(4.0, 12.0),
    endolymph_t1_s=(3.62, 3.95),
    resolution=(0.75, 1.7),
    lean=2.5,
)
"""PPI's inversion time was chosen so that endolymph is dark: its T1 lies around 3.7 s, and HYDROPS of endolymph is then
0.65 to 0.95 of that of perilymph with normal or strong contrast, more of one with weak, with the other sign. With 3.5 s
it would be 0.2."""

REALISTIC: Final = ScanRange(
    ppi_snr=(3.0, 12.0), mrc_snr=(25.0, 80.0), strong_t1_s=(2.2, 2.6), weak_t1_s=(3.15, 3.25), rare_share=0.1, lean=1.0
)
"""What unseen validation ears are scanned with: the difficulty on which the shipped figures are stated."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scans:
    """A batch of ears as the network sees them, with the truth.

    `images` (B, 4, K, J, I) scaled; `total` and `endolymph` (B, K, J, I) parts 0..1 of each voxel; `sets` names each
    ear's input set.
    """

    images: Tensor
    total: Tensor
    endolymph: Tensor
    sets: tuple[InputSet, ...]


def scan(parts: Tensor, rng: np.random.Generator, *, within: ScanRange, only: InputSet | None = None) -> Scans:
    """Scan each ear of a batch once.

    Parameters
    ----------
    parts
        (B, group, K, J, I) float32 0..1, groups as in `crops.GROUPS`.
    rng
        Decides everything, thermal noise included.
    only
        One input set for the whole batch; by default each ear draws its own.
    """
    batch = parts.shape[0]
    noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
    sets = tuple(only or InputSet(str(rng.choice(list(SET_SHARES), p=list(SET_SHARES.values())))) for _ in range(batch))
    objects = _objects(parts, rng, within)
    # Of one pose: what the console subtracts. Of two: what the node registers series by series.
    apart = torch.tensor([a is InputSet.PPI_PEI for a in sets])[:, None]
    first = _shifts(rng, batch, within)
    shifts = torch.stack(
        [torch.zeros(batch, 3), first, torch.where(apart, _shifts(rng, batch, within), first), first], dim=1
    )
    acquired = (
        acquire(objects, shifts, _resolution(rng, batch, within)) * _gain(parts.shape[2:], rng, batch, within)[:, None]
    )
    mrc, ppi, pei, real = _detect(acquired, rng, within, noise).unbind(dim=1)
    ppi, pei, real = (_interpolated(image, rng) for image in (ppi, pei, real))
    images = torch.zeros(batch, len(INPUTS), *parts.shape[2:])
    for ear, chosen in enumerate(sets):
        images[ear] = _delivered(chosen, mrc[ear], ppi[ear], pei[ear], real[ear])
    return Scans(
        images=jittered(scaled(images), rng),
        total=parts[:, PERILYMPH] + parts[:, ENDOLYMPH],
        endolymph=parts[:, ENDOLYMPH].clone(),
        sets=sets,
    )


def _resolution(rng: np.random.Generator, batch: int, within: ScanRange) -> Tensor:
    """(B, 4, 3) voxels per acquired point of MRC, PPI, PEI and 3D-real IR along k, j, i."""
    low, high = within.resolution
    of_mrc = low + (high - low) * _uniform(rng, (0.0, 1.0), (batch, 3)) ** within.lean
    of_ir = (of_mrc * _uniform(rng, within.ir_coarser, (batch, 1))).clamp(min=low)
    return torch.stack([of_mrc, of_ir, of_ir, of_ir], dim=1)


def _delivered(chosen: InputSet, mrc: Tensor, ppi: Tensor, pei: Tensor, real: Tensor) -> Tensor:
    """(4, K, J, I) channels that the node has of one ear."""
    nothing = torch.zeros_like(mrc)
    if chosen is InputSet.PPI_PEI:
        return torch.stack([mrc, ppi - pei, ppi, nothing])
    if chosen is InputSet.REAL_IR:
        return torch.stack([mrc, nothing, nothing, real])
    hydrops = ppi - pei
    if chosen is InputSet.HYDROPS_MI2:
        hydrops = torch.where(mrc > MI2_FLOOR * torch.quantile(mrc.flatten(), LEVEL_QUANTILE), hydrops, nothing)
    return torch.stack([mrc, hydrops, nothing, nothing])


def _objects(parts: Tensor, rng: np.random.Generator, within: ScanRange) -> Tensor:
    """(B, 4, K, J, I) signed signal of MRC, PPI, PEI and 3D-real IR without a scanner's faults."""
    batch = parts.shape[0]
    decay = torch.empty(batch, len(GROUPS))
    t1 = torch.empty(batch, len(GROUPS))
    ranges = {
        ENDOLYMPH: (within.endolymph_t1_s, (0.97, 1.03)),
        CSF: (within.csf_t1_s, (0.78, 1.08)),
        SOFT: ((1.0, 1.8), (0.06, 0.32)),
        FATTY: ((0.3, 0.6), (0.02, 0.35)),
        MUCOSA: ((1.2, 3.6), (0.15, 0.95)),
    }
    for group, (times, strength) in ranges.items():
        t1[:, group] = _uniform(rng, times, (batch,))
        decay[:, group] = ECHO_DECAY * _uniform(rng, strength, (batch,))
    t1[:, PERILYMPH] = _perilymph_t1(rng, batch, within)
    decay[:, PERILYMPH] = ECHO_DECAY
    uneven = UNEVEN * _uniform(rng, (0.0, 1.0), (batch, 1, 1, 1)) ** within.evenness
    texture = 1.0 + _smooth_field(parts.shape[2:], rng, batch) * uneven
    images = [_mixed(parts, decay, t1, _mrc(rng, within)) * texture]
    perilymph = _graded(t1[:, PERILYMPH], parts.shape[2:], rng, within)
    jitter_s = float(rng.uniform(-0.03, 0.03))
    for sequence in (PPI, PEI, REAL_IR):
        rest = t1.clone()
        weights = decay.clone()
        weights[:, PERILYMPH] = 0.0
        base = _mixed(parts, weights, rest, sequence, jitter_s)
        own = decay[:, PERILYMPH, None, None, None] * _magnetization(perilymph, sequence, jitter_s)
        images.append((base + parts[:, PERILYMPH] * own) * texture)
    return torch.stack(images, dim=1)


def _mrc(rng: np.random.Generator, within: ScanRange) -> Sequence:
    """The batch's MRC."""
    low, high = within.mrc_recovery_s
    return (
        MRC if low == high == MRC.repetition_time_s else replace(MRC, repetition_time_s=float(rng.uniform(low, high)))
    )


def _mixed(parts: Tensor, decay: Tensor, t1: Tensor, sequence: Sequence, jitter_s: float = 0.0) -> Tensor:
    """(B, K, J, I): groups weighed by volume, each with its own signal."""
    return torch.einsum("bgkji,bg->bkji", parts, decay * _magnetization(t1, sequence, jitter_s))


def _magnetization(t1: Tensor, sequence: Sequence, jitter_s: float = 0.0) -> Tensor:
    """Longitudinal magnetization at excitation, -1..1, of any shape (`phantom.physics.signed_signal` for tensors)."""
    recovered = torch.exp(-sequence.repetition_time_s / t1)
    if sequence.inversion_time_s is None:
        return 1.0 - recovered
    return 1.0 - 2.0 * torch.exp(-(sequence.inversion_time_s + jitter_s) / t1) + recovered


def _perilymph_t1(rng: np.random.Generator, batch: int, within: ScanRange) -> Tensor:
    drawn = []
    for chance in rng.uniform(size=batch):
        rare = within.strong_t1_s if chance < within.rare_share else within.weak_t1_s
        drawn.append(rng.uniform(*(rare if chance < 2 * within.rare_share else within.perilymph_t1_s)))
    return torch.tensor(drawn, dtype=torch.float32)


def _graded(t1: Tensor, shape: torch.Size, rng: np.random.Generator, within: ScanRange) -> Tensor:
    """(B, K, J, I) T1 of perilymph, changing linearly across half of the ears: agent reaches the basal turn first."""
    size = _uniform(rng, (-within.gradient, within.gradient), (len(t1),)) * torch.from_numpy(
        (rng.uniform(size=len(t1)) < 0.5).astype(np.float32)
    )
    ramp = _ramp(shape, rng, len(t1))
    return (t1[:, None, None, None] * (1.0 + size[:, None, None, None] * ramp)).clamp(1.5, 3.45)


def acquire(objects: Tensor, shifts_mm: Tensor, resolution: Tensor) -> Tensor:
    """Displaced by `shifts_mm` (B, series, 3) and without the frequencies beyond `resolution` (B, series, 3)."""
    spectrum = torch.fft.rfftn(objects, dim=(2, 3, 4))
    for axis, spacing in enumerate(SPACING_MM):
        n = objects.shape[2 + axis]
        frequency = torch.fft.rfftfreq(n) if axis == 2 else torch.fft.fftfreq(n)
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(frequency)
        place = (*shifts_mm.shape[:2], 1, 1, 1)
        turn = -2.0 * torch.pi * frequency.view(shape) * (shifts_mm[..., axis] / spacing).view(place)
        scaled_frequency = frequency.abs().view(shape) * 2.0 * resolution[..., axis].view(place)
        # The phantom's apodization: half a Hann edge over the last third of the acquired frequencies.
        edge = 0.5 + 0.5 * torch.cos(torch.pi * (3.0 * scaled_frequency - 2.0).clamp(0.0, 1.0))
        spectrum *= torch.polar(edge, turn)
    acquired: Tensor = torch.fft.irfftn(spectrum, s=objects.shape[2:], dim=(2, 3, 4))
    return acquired


def _detect(signed: Tensor, rng: np.random.Generator, within: ScanRange, noise: torch.Generator) -> Tensor:
    """Noise and magnitude; the real part for 3D-real IR. All inversion-recovery series have the same noise."""
    batch = signed.shape[0]
    fluid = RELAXATION[Tissue.PERILYMPH]
    reference = Relaxation(t1_s=fluid.t1_s, t2_s=1e9, density=ECHO_DECAY)
    level = {sequence: abs(signed_signal(reference, sequence)) for sequence in (MRC, PPI)}
    ir_sd = level[PPI] / _even_in_log(rng, within.ppi_snr, batch)
    sd = torch.stack([level[MRC] / _even_in_log(rng, within.mrc_snr, batch), ir_sd, ir_sd, ir_sd], dim=1)
    sd = sd[:, :, None, None, None]
    along = signed + torch.randn(signed.shape, generator=noise) * sd
    across = torch.randn(signed.shape, generator=noise) * sd
    detected = torch.hypot(along, across)
    detected[:, 3] = along[:, 3]
    return detected


def _interpolated(image: Tensor, rng: np.random.Generator) -> Tensor:
    """As cubic B-spline interpolation at a sub-voxel offset leaves an image: in place, its finest detail damped."""
    spectrum = torch.fft.rfftn(image, dim=(1, 2, 3))
    for axis in range(3):
        n = image.shape[1 + axis]
        frequency = torch.fft.rfftfreq(n) if axis == 2 else torch.fft.fftfreq(n)
        response = torch.stack([_spline_response(frequency, float(o)) for o in rng.uniform(0.0, 0.5, image.shape[0])])
        shape = [image.shape[0], 1, 1, 1]
        shape[1 + axis] = len(frequency)
        spectrum = spectrum * response.view(shape)
    damped: Tensor = torch.fft.irfftn(spectrum, s=image.shape[1:], dim=(1, 2, 3))
    return damped


def _spline_response(frequency: Tensor, offset: float) -> Tensor:
    """Magnitude by which cubic B-spline interpolation at `offset` voxels damps each frequency (cycles per voxel)."""
    angle = 2.0 * torch.pi * frequency
    near, far = 1.0 - offset, offset
    taps = {
        -1: near**3 / 6.0,
        0: 2.0 / 3.0 - 0.5 * far**2 * (2.0 - far),
        1: 2.0 / 3.0 - 0.5 * near**2 * (2.0 - near),
        2: far**3 / 6.0,
    }
    total = sum(weight * torch.polar(torch.ones_like(angle), angle * step) for step, weight in taps.items())
    assert isinstance(total, Tensor)
    return total.abs() / ((2.0 + torch.cos(angle)) / 3.0)


def jittered(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Gray values a little off, as another scanner's reconstruction would have them."""
    batch = images.shape[0]
    out = images.clone()
    out[:, 0] *= _uniform(rng, (0.85, 1.15), (batch, 1, 1, 1))
    out[:, 1:] *= _uniform(rng, (0.9, 1.1), (batch, 1, 1, 1, 1))
    return out


def _gain(shape: torch.Size, rng: np.random.Generator, batch: int, within: ScanRange) -> Tensor:
    """(B, K, J, I) receive gain, linear across the ear."""
    slope = _uniform(rng, (0.0, within.gain_slope), (batch, 1, 1, 1))
    return (1.0 + slope * _ramp(shape, rng, batch)).clamp(min=0.3)


def _ramp(shape: torch.Size, rng: np.random.Generator, batch: int) -> Tensor:
    """(B, K, J, I) rising from -1 to 1 over the crop in a random direction."""
    ways = rng.normal(size=(batch, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    total = torch.zeros(batch, *shape)
    for axis, spacing in enumerate(SPACING_MM):
        place = (torch.arange(shape[axis]) - shape[axis] // 2) * spacing / HALF_EDGE_MM
        view = [1, 1, 1, 1]
        view[1 + axis] = shape[axis]
        total += place.view(view) * torch.from_numpy(ways[:, axis].astype(np.float32)).view(batch, 1, 1, 1)
    return total


def _smooth_field(shape: torch.Size, rng: np.random.Generator, batch: int) -> Tensor:
    """(B, K, J, I) random field, SD about 1, features of some millimeters."""
    coarse = torch.from_numpy(rng.normal(size=(batch, 1, 6, 8, 8)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=True)[:, 0]


def _shifts(rng: np.random.Generator, batch: int, within: ScanRange) -> Tensor:
    """(B, 3) mm along k, j, i by which a series is still displaced after registration."""
    shifts = rng.normal(0.0, within.shift_mm, (batch, 3))
    for ear in np.flatnonzero(rng.uniform(size=batch) < within.rare_share):
        way = rng.normal(size=3)
        shifts[ear] = way / np.linalg.norm(way) * rng.uniform(*within.rare_shift_mm)
    return torch.from_numpy(shifts.astype(np.float32))


def _uniform(rng: np.random.Generator, between: tuple[float, float], shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(rng.uniform(*between, shape).astype(np.float32))


def _even_in_log(rng: np.random.Generator, between: tuple[float, float], count: int) -> Tensor:
    low, high = np.log(between)
    return torch.from_numpy(np.exp(rng.uniform(low, high, count)).astype(np.float32))
