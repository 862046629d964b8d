"""A synthetic hydrops study with known truth: the one entry point that tests, demo, bench and training use."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inference.anatomy import EarSide
from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.phantom import imaging, motion
from inference.phantom.head import EAR_LPS_MM, Head
from inference.phantom.hydrops import FluidLoss, HydropsPattern
from inference.phantom.imaging import HYDROPS_OFFSET, MI2_OFFSET, HydropsCoding
from inference.phantom.labyrinth import FluidPoints, Labyrinth, fill, individual, place
from inference.phantom.physics import SEQUENCES, ContrastState, Tissue, far_perilymph_signal, signals
from inference.phantom.scene import Scene, View, fluid_fractions, mixture, view

FloatImage = NDArray[np.float32]

ROLES: Final = ("MRC", "PPI", "PEI", "HYDROPS", "HYDROPS_MI2", "REAL_IR")

GAIN: Final = {"MRC": 1000.0, "PPI": 4000.0, "PEI": 4000.0, "REAL_IR": 4000.0}
"""Scanner units per unit of signal; PPI and PEI share one gain, or their difference would mean nothing."""


@dataclass(frozen=True, kw_only=True)
class PhantomOptions:
    """What kind of patient, and how the scan went.

    Parameters
    ----------
    seed
        Same seed and options, same arrays.
    eh_ratio
        Wanted endolymph / total fluid per ear, hit within 0.005; None (or a missing side) is a normal ear.
    ears
        The ears that have a labyrinth.
    varied_hydrops
        Each ear swells in a way of its own; False: every ear the average way.
    ossified, perilymph_lost
        Part (0 up to 1) of an ear's fluid that became bone, and of the rest's perilymph that is obliterated.
    contrast
        Gadolinium in the perilymph.
    ear_contrast
        The same for an ear that enhances differently from `contrast`.
    series
        Roles to make; see `ROLES`.
    matrix, spacing_mm
        Columns, rows, slices, and millimeters along them.
    oblique_deg
        Slab rotation about the patient's x, y and z axes; any angle, (180, 0, 0) turns the slab upside down.
    slab_shift_mm
        Slab center's offset in LPS, to cut an ear off.
    motion_mm, motion_deg
        The patient's move between the MRC and every other acquisition: displacement at the ears' midpoint, and angle.
    mrc_snr, contrast_snr
        Fluid signal over noise SD: of the MRC, and of normally enhanced perilymph in the PPI.
    side_difference
        Relative coil gain of left over right ear.
    resolution
        Voxels per acquired point (>= 1); above 1 images are zero-filled, blurred and ring.
    ghosting
        Signal of each motion ghost over that of the image, 0 to 1; see `imaging.with_ghosts`.
    hydrops_coding
        How HYDROPS and HYDROPS_MI2 keep negative values.
    step_mm
        Distance of the points that make up the labyrinth.

    Raises
    ------
    ValueError
        If a value cannot be meant; the message names the field.
    """

    seed: int = 0
    eh_ratio: Mapping[EarSide, float | None] = field(default_factory=dict)
    ears: frozenset[EarSide] = frozenset(EarSide)
    varied_hydrops: bool = True
    ossified: Mapping[EarSide, float] = field(default_factory=dict)
    perilymph_lost: Mapping[EarSide, float] = field(default_factory=dict)
    contrast: ContrastState = ContrastState.NORMAL
    ear_contrast: Mapping[EarSide, ContrastState] = field(default_factory=dict)
    series: tuple[str, ...] = ROLES
    matrix: tuple[int, int, int] = (324, 384, 104)
    spacing_mm: tuple[float, float, float] = (0.5, 0.5, 1.0)
    oblique_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    slab_shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    motion_mm: float = 0.0
    motion_deg: float = 0.0
    mrc_snr: float = 60.0
    contrast_snr: float = 12.0
    side_difference: float = 0.12
    resolution: float = 1.15
    ghosting: float = 0.0
    hydrops_coding: HydropsCoding = HydropsCoding.SIGNED
    step_mm: float = 0.1

    def __post_init__(self) -> None:
        unknown = set(self.series) - set(ROLES)
        if unknown:
            raise ValueError(f"series must be among {ROLES}, found {sorted(unknown)}")
        for name in ("mrc_snr", "contrast_snr", "step_mm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, found {getattr(self, name)}")
        for name in ("seed", "motion_mm", "motion_deg"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, found {getattr(self, name)}")
        for name in ("ossified", "perilymph_lost"):
            for side, part in getattr(self, name).items():
                if not 0.0 <= part < 1.0:
                    raise ValueError(f"{name} must be at least 0 and below 1, found {part} for the {side} ear")
        for name in ("matrix", "spacing_mm"):
            if not min(getattr(self, name)) > 0:
                raise ValueError(f"{name} must be positive, found {getattr(self, name)}")
        if not 0.0 <= self.ghosting <= 1.0:
            raise ValueError(f"ghosting must be between 0 and 1, found {self.ghosting}")
        if self.resolution < 1.0:
            raise ValueError(f"resolution must be at least 1, found {self.resolution}")


@dataclass(frozen=True, kw_only=True)
class EarTruth:
    """One ear as it truly is, summed from the finest level; `center_lps_mm` is the fluid's centroid."""

    center_lps_mm: tuple[float, float, float]
    total_fluid_mm3: float
    endolymph_mm3: float

    @property
    def eh_ratio(self) -> float:
        """Endolymph / total fluid, 0..1."""
        return self.endolymph_mm3 / self.total_fluid_mm3


@dataclass(frozen=True, kw_only=True, eq=False)
class PhantomTruth:
    """What a perfect reader would find.

    The fractions (float32 0..1, partial volume) lie on the MRC grid and hold both ears. `motion[role]` is (4, 4),
    LPS mm to LPS mm, the `moving_to_fixed` that brings that series onto the MRC.
    """

    ears: Mapping[EarSide, EarTruth]
    total_fluid_fraction: Volume
    endolymph_fraction: Volume
    motion: Mapping[str, FloatArray]


@dataclass(frozen=True, kw_only=True, eq=False)
class PhantomStudy:
    """Images by role name (float32, scanner units; arrays in loader order, k along row x column) and the truth."""

    options: PhantomOptions
    volumes: Mapping[str, Volume]
    truth: PhantomTruth


def make_study(options: PhantomOptions) -> PhantomStudy:
    """A whole study: the patient, each series as scanned, and the truth.

    Raises
    ------
    ValueError
        If an ear cannot have the wanted ratio.
    """
    scene = draw_patient(options)
    geometry = slab(options)
    poses = draw_motion(options)
    scanner = _Scanner(options, scene, geometry, poses)
    volumes = {role: Volume(array=scanner.series(role), geometry=geometry) for role in options.series}
    return PhantomStudy(options=options, volumes=volumes, truth=_truth(scene, geometry, poses))


def draw_patient(options: PhantomOptions) -> Scene:
    """The person: a head, and two labyrinths of one kind with small differences between the sides."""
    rng = np.random.default_rng([options.seed, 1])
    scale = float(np.clip(rng.normal(1.0, 0.03), 0.93, 1.07))
    shared = individual(rng)
    origins, fluids = {}, {}
    for side in (EarSide.RIGHT, EarSide.LEFT):
        # +- 1.5 mm and 4 degrees: what differs between people's heads in the same head coil.
        origin = np.array([side.lps_sign * EAR_LPS_MM[0], *EAR_LPS_MM[1:]]) + rng.normal(0.0, 1.0, 3).clip(-2, 2)
        turn = motion.rotation(rng.normal(size=3), float(rng.normal(0.0, 3.0)))
        own_scale = scale * float(rng.normal(1.0, 0.005))
        origins[side] = origin
        if side in options.ears:
            to_lps = place(side, origin_lps_mm=origin, rotation=turn, scale=own_scale)
            fluids[side] = _ear_fluid(options, shared, side, to_lps)
    right, left = ((float(x), float(y), float(z)) for x, y, z in (origins[EarSide.RIGHT], origins[EarSide.LEFT]))
    head = Head.individual(rng, right_ear_mm=right, left_ear_mm=left)
    return Scene(head=head, fluids=fluids, ear_origins_mm=origins)


def _ear_fluid(options: PhantomOptions, shape: Labyrinth, side: EarSide, to_lps: FloatArray) -> FluidPoints:
    """One ear's fluid with its own pattern of hydrops and its losses."""
    rng = np.random.default_rng([options.seed, 3, list(EarSide).index(side)])
    pattern = HydropsPattern.draw(rng)
    loss = FluidLoss.draw(
        rng, ossified=options.ossified.get(side, 0.0), perilymph_lost=options.perilymph_lost.get(side, 0.0)
    )
    return fill(
        shape,
        to_lps,
        eh_ratio=options.eh_ratio.get(side),
        step_mm=options.step_mm,
        pattern=pattern if options.varied_hydrops else None,
        loss=loss,
    )


def slab(options: PhantomOptions) -> VolumeGeometry:
    """The nominal grid of every series: axial at (0, 0, 0) rotations (rows to the left, columns to posterior)."""
    turn = motion.euler(*options.oblique_deg)
    columns, rows, slices = options.matrix
    spacing = np.array(options.spacing_mm)
    affine = np.eye(4)
    # Columns of the affine are k, j, i; axially these are z, y, x of the patient.
    affine[:3, :3] = (turn * spacing)[:, ::-1]
    middle = np.array([slices - 1, rows - 1, columns - 1]) / 2.0
    center = np.array([0.0, 0.0, EAR_LPS_MM[2]]) + np.array(options.slab_shift_mm)
    affine[:3, 3] = center - affine[:3, :3] @ middle
    uid = f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'hydrops-node phantom frame of reference {options.seed}').int}"
    return VolumeGeometry(shape=(slices, rows, columns), index_to_lps=affine, frame_of_reference_uid=uid)


def draw_motion(options: PhantomOptions) -> dict[str, FloatArray]:
    """Where the patient lay in each acquisition, relative to the MRC: (4, 4) object to scanner.

    The console subtracts a pair scanned in one go, so HYDROPS and its product share the PPI's pose.
    """
    rng = np.random.default_rng([options.seed, 2])
    pivot = np.array([0.0, EAR_LPS_MM[1], EAR_LPS_MM[2]])
    drawn = {
        role: motion.random_motion(rng, pivot, options.motion_mm, options.motion_deg)
        for role in ("PPI", "PEI", "REAL_IR")
    }
    return {"MRC": np.eye(4), **drawn, "HYDROPS": drawn["PPI"], "HYDROPS_MI2": drawn["PPI"]}


class _Scanner:
    """Takes the pictures; keeps what several series need (views per pose, acquired images)."""

    def __init__(
        self, options: PhantomOptions, scene: Scene, geometry: VolumeGeometry, poses: Mapping[str, FloatArray]
    ) -> None:
        self._options, self._scene, self._geometry, self._poses = options, scene, geometry, poses
        self._gain = imaging.coil_gain(geometry, options.side_difference)
        self._views: dict[bytes, View] = {}
        self._acquired: dict[tuple[str, bytes], FloatImage] = {}

    def series(self, role: str) -> FloatImage:
        """(K, J, I) float32 image of a series as it leaves the console."""
        if role == "HYDROPS":
            return imaging.coded(self._hydrops(), self._options.hydrops_coding, HYDROPS_OFFSET)
        if role == "HYDROPS_MI2":
            product = self._hydrops() * self._acquire("MRC", self._poses["MRC"])
            return imaging.coded(product, self._options.hydrops_coding, MI2_OFFSET)
        return self._acquire(role, self._poses[role])

    def _hydrops(self) -> FloatImage:
        """PPI less PEI, voxel by voxel, both in the PPI's pose."""
        pose = self._poses["PPI"]
        return self._acquire("PPI", pose) - self._acquire("PEI", pose)

    def _acquire(self, sequence: str, pose: FloatArray) -> FloatImage:
        key = (sequence, pose.tobytes())
        if key not in self._acquired:
            self._acquired[key] = self._expose(sequence, pose)
        return self._acquired[key]

    def _expose(self, sequence: str, pose: FloatArray) -> FloatImage:
        timing, options = SEQUENCES[sequence], self._options
        states = {side: options.ear_contrast.get(side, options.contrast) for side in EarSide}
        perilymph = {
            side: (signals(timing, state)[Tissue.PERILYMPH], far_perilymph_signal(timing, state))
            for side, state in states.items()
        }
        image = mixture(
            self._view(pose), signals(timing, options.contrast), resolution=options.resolution, perilymph=perilymph
        )
        image = imaging.with_ghosts(image * (self._gain * np.float32(GAIN[sequence])), options.ghosting)
        noise_sd = GAIN[sequence] * self._noise(sequence)
        # A series' own noise: it must differ between series, and between a series and its repetition in another pose.
        seed = int(
            np.random.SeedSequence([self._options.seed, *sequence.encode(), *pose.tobytes()]).generate_state(1)[0]
        )
        expose = imaging.real_image if sequence == "REAL_IR" else imaging.magnitude_image
        return expose(image, noise_sd, seed)

    def _noise(self, sequence: str) -> float:
        """Noise SD in units of signal, the same for all inversion-recovery series."""
        if sequence == "MRC":
            return signals(SEQUENCES["MRC"], ContrastState.NORMAL)[Tissue.PERILYMPH] / self._options.mrc_snr
        return signals(SEQUENCES["PPI"], ContrastState.NORMAL)[Tissue.PERILYMPH] / self._options.contrast_snr

    def _view(self, pose: FloatArray) -> View:
        key = pose.tobytes()
        if key not in self._views:
            self._views[key] = view(self._scene, self._geometry, pose)
        return self._views[key]


def _truth(scene: Scene, geometry: VolumeGeometry, poses: Mapping[str, FloatArray]) -> PhantomTruth:
    total = np.zeros(geometry.shape, dtype=np.float32)
    endolymph = np.zeros(geometry.shape, dtype=np.float32)
    for fluid in scene.fluids.values():
        one_total, one_endolymph = fluid_fractions(fluid, geometry, np.eye(4))
        total += one_total
        endolymph += one_endolymph
    return PhantomTruth(
        ears={side: _ear_truth(fluid) for side, fluid in scene.fluids.items()},
        total_fluid_fraction=Volume(array=total, geometry=geometry),
        endolymph_fraction=Volume(array=endolymph, geometry=geometry),
        motion={role: motion.inverse(pose) for role, pose in poses.items()},
    )


def _ear_truth(fluid: FluidPoints) -> EarTruth:
    return EarTruth(
        center_lps_mm=fluid.center_lps_mm,
        total_fluid_mm3=fluid.total_fluid_mm3,
        endolymph_mm3=fluid.endolymph_mm3,
    )
