"""Scans for training, of blocks of pure tissue: the sign of every channel, its noise, what is absent, and the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from inference.cases import InputSet
from inference.ear_grid import INPUTS, SHAPE
from inference.phantom.physics import PEI, PPI, REAL_IR, Relaxation, signed_signal
from inference.training import scans
from inference.training.crops import CSF, ENDOLYMPH, GROUPS, PERILYMPH, SOFT
from inference.training.scans import TRAINING, ScanRange, scan

QUIET = ScanRange(
    ppi_snr=(1e4, 1e4),
    mrc_snr=(1e4, 1e4),
    perilymph_t1_s=(2.9, 2.9),
    rare_share=0.0,
    gradient=0.0,
    shift_mm=0.0,
    resolution=(1.0, 1.0),
    ir_coarser=(1.0, 1.0),
    gain_slope=0.0,
)
"""A perfect scanner and a patient who lies still."""

BONE, WATER = (slice(2, 6), slice(2, 10), slice(2, 10)), (slice(2, 6), slice(36, 44), slice(36, 44))
FLUID = (slice(9, 17), slice(16, 34), slice(16, 34))
INNER, OUTER = (slice(11, 15), slice(18, 30), slice(19, 22)), (slice(11, 15), slice(18, 30), slice(28, 32))
"""Well inside endolymph, and well inside perilymph."""


def blocks(batch: int = 1) -> Tensor:
    """(B, group, K, J, I): a box of fluid in bone, half of it endolymph; CSF and brain in two corners."""
    parts = torch.zeros(batch, len(GROUPS), *SHAPE)
    parts[(slice(None), PERILYMPH, *FLUID)] = 1.0
    endolymph = (FLUID[0], FLUID[1], slice(16, 25))
    parts[(slice(None), PERILYMPH, *endolymph)] = 0.0
    parts[(slice(None), ENDOLYMPH, *endolymph)] = 1.0
    parts[(slice(None), CSF, *WATER)] = 1.0
    parts[:, SOFT, 18:22, 36:44, 2:10] = 1.0
    return parts


def scanned(chosen: InputSet | None, *, within: ScanRange = QUIET, seed: int = 0, batch: int = 1) -> scans.Scans:
    return scan(blocks(batch), np.random.default_rng(seed), within=within, only=chosen)


def means(image: Tensor) -> tuple[float, float, float]:
    """Of endolymph, perilymph and bone."""
    inner, outer, bone = (float(image[place].mean()) for place in (INNER, OUTER, BONE))
    return inner, outer, bone


PRESENT = {
    InputSet.PPI_PEI: {"MRC", "HYDROPS", "PPI"},
    InputSet.HYDROPS: {"MRC", "HYDROPS"},
    InputSet.HYDROPS_MI2: {"MRC", "HYDROPS"},
    InputSet.REAL_IR: {"MRC", "REAL_IR"},
}


@pytest.mark.parametrize("chosen", InputSet)
def test_a_study_has_the_channels_of_its_input_set_and_no_others(chosen: InputSet) -> None:
    (image,) = scanned(chosen).images
    assert {name for name, channel in zip(INPUTS, image, strict=True) if channel.any()} == PRESENT[chosen]


@pytest.mark.parametrize("chosen", InputSet)
def test_all_fluid_is_bright_on_mrc_and_bone_is_dark(chosen: InputSet) -> None:
    inner, outer, bone = means(scanned(chosen).images[0, 0])
    assert inner == pytest.approx(1.0, abs=0.2)
    assert outer == pytest.approx(inner, rel=0.2)  # endolymph recovers a little less within a repetition
    assert bone == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("chosen", InputSet)
def test_perilymph_is_above_zero_and_endolymph_below_it_on_the_signed_series(chosen: InputSet) -> None:
    channel = INPUTS.index("REAL_IR" if chosen is InputSet.REAL_IR else "HYDROPS")
    inner, outer, bone = means(scanned(chosen).images[0, channel])
    assert inner < -0.1
    assert outer > 0.3
    assert abs(bone) < 0.05
    assert float(scanned(chosen).images[0, channel][WATER].mean()) < -0.1


def test_perilymph_alone_is_bright_on_ppi() -> None:
    inner, outer, bone = means(scanned(InputSet.PPI_PEI).images[0, INPUTS.index("PPI")])
    assert outer > 3.0 * max(inner, bone)


def test_a_divided_out_hydrops_is_empty_where_mrc_is_dark() -> None:
    image = scanned(InputSet.HYDROPS_MI2, within=replace(QUIET, ppi_snr=(5.0, 5.0))).images[0]
    assert not image[1][BONE].any()
    assert scanned(InputSet.HYDROPS, within=replace(QUIET, ppi_snr=(5.0, 5.0))).images[0, 1][BONE].any()


def test_noise_goes_with_the_signal_to_noise_ratio() -> None:
    def noise_over_perilymph(snr: float) -> float:
        image = scanned(InputSet.REAL_IR, within=replace(QUIET, ppi_snr=(snr, snr))).images[0, 3]
        return float(image[BONE].std() / image[OUTER].mean())

    assert noise_over_perilymph(7.0) / noise_over_perilymph(21.0) == pytest.approx(3.0, rel=0.15)


def test_magnitude_noise_in_bone_has_no_sign_and_real_noise_has() -> None:
    loud = replace(QUIET, ppi_snr=(4.0, 4.0))
    magnitude = scanned(InputSet.PPI_PEI, within=loud).images[0, 2][BONE]
    real = scanned(InputSet.REAL_IR, within=loud).images[0, 3][BONE]
    assert float(magnitude.mean()) > 1.5 * float(magnitude.std())  # Rayleigh: 1.9, less noise after interpolation
    assert abs(float(real.mean())) < 0.5 * float(real.std())


def test_the_series_of_a_protocol_are_about_as_sharp_as_each_other_and_sharp_ones_come_oftener() -> None:
    drawn = scans._resolution(np.random.default_rng(4), 4000, TRAINING)
    of_mrc, of_ir = drawn[:, 0], drawn[:, 1]
    assert (drawn[:, 1:] == of_ir[:, None]).all()  # one scan, one matrix
    assert 0.75 <= float(drawn.min()) < 0.8
    assert 1.6 < float(of_mrc.max()) <= 1.7
    assert float((of_mrc < 0.918).float().mean()) == pytest.approx(0.5, abs=0.02)
    clear = of_mrc > 0.8
    assert ((of_ir / of_mrc)[clear] > 0.94).all()
    assert ((of_ir / of_mrc)[clear] < 1.16).all()


def test_a_coarser_acquisition_blurs_every_series() -> None:
    def steepest(resolution: float) -> Tensor:
        image = scanned(InputSet.PPI_PEI, within=replace(QUIET, resolution=(resolution, resolution))).images[0]
        profile = image[[0, 2], 13, 25, 10:40]
        return profile.diff(dim=1).abs().amax(dim=1) / profile.abs().amax(dim=1)

    assert (steepest(1.7) < 0.8 * steepest(1.0)).all()


def test_fluid_shines_evenly_in_more_of_the_ears_the_higher_the_evenness() -> None:
    middle = (slice(None), slice(11, 15), slice(19, 31), slice(27, 32))
    spread = {}
    for evenness in (1.0, 3.0):
        mrc = scanned(None, within=replace(QUIET, evenness=evenness), batch=64).images[:, 0]
        inside = mrc[middle].flatten(1)
        spread[evenness] = inside.std(dim=1) / inside.mean(dim=1)
    even = scanned(None, within=replace(QUIET, evenness=50.0), batch=64).images[:, 0][middle].flatten(1)
    floor = (even.std(dim=1) / even.mean(dim=1)).median()  # ringing
    assert spread[3.0].median() - floor < 0.4 * (spread[1.0].median() - floor)
    assert spread[3.0].max() - floor > 0.3 * (spread[1.0].max() - floor), "uneven ones still come"


def test_the_longer_fluids_recover_on_mrc_the_more_alike_they_are() -> None:
    darker = []
    for recovery_s in (4.4, 12.0):
        within = replace(QUIET, mrc_recovery_s=(recovery_s, recovery_s))
        mrc = scanned(InputSet.HYDROPS, within=within, batch=40).images[:, 0]
        endolymph, perilymph, _ = means(mrc.mean(dim=0))
        darker.append(1.0 - endolymph / perilymph)
    assert darker[0] > 0.08  # (1 - exp(-4.4 / 2.9)) against (1 - exp(-4.4 / 3.7)): 0.11
    assert abs(darker[1]) < 0.04


def test_the_same_generator_scans_the_same_and_another_differently() -> None:
    one, same, other = (scanned(None, within=TRAINING, seed=seed, batch=2) for seed in (1, 1, 2))
    assert torch.equal(one.images, same.images)
    assert one.sets == same.sets
    assert not torch.equal(one.images, other.images)


def test_the_truth_is_the_tissue_itself_whatever_the_scanner_does() -> None:
    parts = blocks(2)
    parts[:, PERILYMPH, 9, 16:34, 16:34] *= 0.3  # a rim of partial volume
    seen = scan(parts, np.random.default_rng(3), within=TRAINING)
    assert torch.equal(seen.total, parts[:, PERILYMPH] + parts[:, ENDOLYMPH])
    assert torch.equal(seen.endolymph, parts[:, ENDOLYMPH])
    assert (seen.endolymph <= seen.total).all()
    assert float(seen.total.max()) <= 1.0


@pytest.mark.parametrize("sequence", [PPI, PEI, REAL_IR])
def test_signals_are_those_of_the_phantoms_physics(sequence) -> None:
    times = torch.tensor([0.4, 1.5, 2.9, 3.7, 4.1])
    expected = [signed_signal(Relaxation(t1_s=float(t1), t2_s=1e9, density=1.0), sequence) for t1 in times]
    assert scans._magnetization(times, sequence).tolist() == pytest.approx(expected, abs=1e-5)


def test_motion_left_by_registration_moves_series_against_the_mrc() -> None:
    still, moved = (
        scanned(InputSet.PPI_PEI, within=replace(QUIET, shift_mm=sd)).images[0, INPUTS.index("PPI")]
        for sd in (0.0, 0.5)
    )
    off = [
        [
            float((axis * image.clamp(min=0)).sum() / image.clamp(min=0).sum())
            for axis in torch.tensor(np.indices(SHAPE))
        ]
        for image in (still, moved)
    ]
    assert np.abs(np.subtract(*off)).max() > 0.1
