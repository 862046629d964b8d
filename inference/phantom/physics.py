"""What every tissue shines with: one inversion-recovery model for all series.

The longitudinal magnetization at excitation is ``1 - 2 exp(-TI/T1) + exp(-TR/T1)`` (no inversion: ``1 - exp(-TR/T1)``),
and the long echo train weighs it with ``exp(-TE/T2)``. It is SIGNED: voxels that hold two fluids mix the signed values
by volume, and only then is the magnitude taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import exp
from typing import Final


class ContrastState(StrEnum):
    """How much gadolinium reached the perilymph four hours after injection."""

    NONE = "none"
    WEAK = "weak"
    NORMAL = "normal"
    STRONG = "strong"
    GRADIENT = "gradient"
    """Arrived at the round window, not yet at the apex and the canals' arcs."""

    @property
    def perilymph_t1_s(self) -> float:
        """T1 of perilymph at the round window; without contrast it is that of endolymph."""
        return {"none": 3.7, "weak": 3.25, "normal": 3.0, "strong": 2.2, "gradient": 2.6}[self.value]

    @property
    def far_perilymph_t1_s(self) -> float:
        """T1 of the perilymph farthest from the round window."""
        return 3.5 if self is ContrastState.GRADIENT else self.perilymph_t1_s


class Tissue(StrEnum):
    """What the head is made of; the order is the order of the fraction maps."""

    AIR = "air"
    BONE = "bone"
    MARROW = "marrow"
    FAT = "fat"
    SKIN = "skin"
    MUSCLE = "muscle"
    BRAIN = "brain"
    NERVE = "nerve"
    MUCOSA = "mucosa"
    CSF = "csf"
    PERILYMPH = "perilymph"
    ENDOLYMPH = "endolymph"


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """T1 and effective T2 at 3 T in seconds, and the proton density relative to water.

    T2 is the *effective* one of a train with variable flip angles, which keeps short-T2 tissue visible: brain then is
    0.2 of the fluid on MRC (0.18-0.24 on real T2-SPACE) and a fifth of enhanced perilymph on PPI.
    """

    t1_s: float
    t2_s: float
    density: float


RELAXATION: Final[dict[Tissue, Relaxation]] = {
    Tissue.AIR: Relaxation(t1_s=1.0, t2_s=0.01, density=0.0),
    Tissue.BONE: Relaxation(t1_s=0.5, t2_s=0.05, density=0.1),
    Tissue.MARROW: Relaxation(t1_s=0.4, t2_s=0.12, density=0.5),
    Tissue.FAT: Relaxation(t1_s=0.38, t2_s=0.14, density=0.9),
    Tissue.SKIN: Relaxation(t1_s=0.9, t2_s=0.12, density=0.7),
    Tissue.MUSCLE: Relaxation(t1_s=1.4, t2_s=0.08, density=0.8),
    Tissue.BRAIN: Relaxation(t1_s=1.3, t2_s=0.15, density=0.8),
    Tissue.NERVE: Relaxation(t1_s=1.2, t2_s=0.15, density=0.7),
    Tissue.MUCOSA: Relaxation(t1_s=1.8, t2_s=0.25, density=0.8),
    Tissue.CSF: Relaxation(t1_s=4.1, t2_s=1.5, density=1.0),
    Tissue.PERILYMPH: Relaxation(t1_s=3.0, t2_s=1.5, density=1.0),
    Tissue.ENDOLYMPH: Relaxation(t1_s=3.7, t2_s=1.5, density=1.0),
}
"""Fluids: T1s that reproduce published HYDROPS pictures (nulls at 3.24 s for TI 2050 and 3.69 s for TI 2250)."""


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """One acquisition's timing.

    Parameters
    ----------
    repetition_time_s, echo_time_s
        As the header states them.
    inversion_time_s
        None means no inversion pulse.
    equivalent_echo_time_s
        The time over which T2 acts. Variable flip angles store magnetization along the way, so that it may be shorter
        than the stated echo time; None means they are the same.
    """

    repetition_time_s: float
    echo_time_s: float
    inversion_time_s: float | None = None
    equivalent_echo_time_s: float | None = None


MRC: Final = Sequence(repetition_time_s=4.4, echo_time_s=0.540, equivalent_echo_time_s=0.280)
PPI: Final = Sequence(repetition_time_s=9.0, echo_time_s=0.540, inversion_time_s=2.250)
PEI: Final = Sequence(repetition_time_s=9.0, echo_time_s=0.540, inversion_time_s=2.050)
REAL_IR: Final = Sequence(repetition_time_s=15.13, echo_time_s=0.549, inversion_time_s=2.350)
"""TI so that zero falls between the T1s above: perilymph positive, endolymph and CSF negative."""

SEQUENCES: Final[dict[str, Sequence]] = {"MRC": MRC, "PPI": PPI, "PEI": PEI, "REAL_IR": REAL_IR}


def signed_signal(tissue: Relaxation, sequence: Sequence) -> float:
    """Signed signal of a voxel full of `tissue`, where fully relaxed water at TE 0 gives 1."""
    recovered = exp(-sequence.repetition_time_s / tissue.t1_s)
    if sequence.inversion_time_s is None:
        magnetization = 1.0 - recovered
    else:
        magnetization = 1.0 - 2.0 * exp(-sequence.inversion_time_s / tissue.t1_s) + recovered
    weighting_s = sequence.equivalent_echo_time_s or sequence.echo_time_s
    return tissue.density * magnetization * exp(-weighting_s / tissue.t2_s)


def signals(sequence: Sequence, contrast: ContrastState) -> dict[Tissue, float]:
    """Signed signal of every tissue in one series; contrast shortens the perilymph's T1 only (at the round window)."""
    relaxation = RELAXATION | {Tissue.PERILYMPH: _perilymph(contrast.perilymph_t1_s)}
    return {tissue: signed_signal(relaxation[tissue], sequence) for tissue in Tissue}


def far_perilymph_signal(sequence: Sequence, contrast: ContrastState) -> float:
    """Signed signal of the perilymph farthest from the round window; in between the two mix by volume."""
    return signed_signal(_perilymph(contrast.far_perilymph_t1_s), sequence)


def _perilymph(t1_s: float) -> Relaxation:
    usual = RELAXATION[Tissue.PERILYMPH]
    return Relaxation(t1_s=t1_s, t2_s=usual.t2_s, density=usual.density)
