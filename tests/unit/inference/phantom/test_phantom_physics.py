"""The inversion-recovery model gives the published nulls and signs."""

import pytest

from inference.phantom.physics import (
    MRC,
    PEI,
    PPI,
    REAL_IR,
    ContrastState,
    Relaxation,
    Tissue,
    signals,
    signed_signal,
)


def hydrops(t1_s: float) -> float:
    water = Relaxation(t1_s=t1_s, t2_s=1e9, density=1.0)
    return abs(signed_signal(water, PPI)) - abs(signed_signal(water, PEI))


@pytest.mark.parametrize(
    ("t1_s", "expected"), [(3.70, -0.060), (3.25, 0.060), (3.0, 0.065), (2.5, 0.068), (2.0, 0.068), (4.20, -0.057)]
)
def test_hydrops_signal_follows_the_published_table(t1_s: float, expected: float) -> None:
    assert hydrops(t1_s) == pytest.approx(expected, abs=0.0015)


def test_each_inversion_time_nulls_its_fluid() -> None:
    endolymph_null = Relaxation(t1_s=3.69, t2_s=1e9, density=1.0)
    perilymph_null = Relaxation(t1_s=3.24, t2_s=1e9, density=1.0)
    assert signed_signal(endolymph_null, PPI) == pytest.approx(0.0, abs=2e-3)
    assert signed_signal(perilymph_null, PEI) == pytest.approx(0.0, abs=2e-3)


@pytest.mark.parametrize("contrast", [ContrastState.WEAK, ContrastState.NORMAL, ContrastState.STRONG])
def test_contrast_makes_perilymph_positive_and_leaves_endolymph_and_csf_negative(contrast: ContrastState) -> None:
    ppi, pei, real = (signals(sequence, contrast) for sequence in (PPI, PEI, REAL_IR))

    def difference(tissue: Tissue) -> float:
        return abs(ppi[tissue]) - abs(pei[tissue])

    assert difference(Tissue.PERILYMPH) > 0 > difference(Tissue.ENDOLYMPH)
    assert difference(Tissue.CSF) < 0
    assert real[Tissue.PERILYMPH] > 0 > real[Tissue.ENDOLYMPH]


def test_without_contrast_both_fluids_look_the_same() -> None:
    for sequence in (MRC, PPI, PEI, REAL_IR):
        signal = signals(sequence, ContrastState.NONE)
        assert signal[Tissue.PERILYMPH] == signal[Tissue.ENDOLYMPH]


def test_only_fluid_is_bright_on_mr_cisternography() -> None:
    signal = signals(MRC, ContrastState.NORMAL)
    fluid = signal[Tissue.PERILYMPH]
    assert 0.8 < signal[Tissue.CSF] / fluid < 0.95
    assert signal[Tissue.ENDOLYMPH] / fluid > 0.85
    for tissue in (Tissue.BRAIN, Tissue.FAT, Tissue.MUSCLE, Tissue.BONE, Tissue.NERVE):
        assert signal[tissue] / fluid < 0.25
