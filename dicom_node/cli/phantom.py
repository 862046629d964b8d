"""Write a synthetic hydrops study as DICOM, together with the truth that a reader of it should find.

  hydrops-node phantom --seed 1 --out /tmp/study
  hydrops-node phantom --seed 2 --out /tmp/moved --motion 3 --oblique 15
  hydrops-node phantom --seed 3 --out /tmp/left --ears left --ratio-left 0.4 --series MRC PPI PEI

Written into DIR:
  dicom/ROLE/0001.dcm ...      one folder per series, one file per slice, as a scanner would have sent them
  truth.json                   volumes in mm3 and EH ratio (0..1) per ear, motion, Series Instance UIDs
  truth_total_fluid.nii.gz     part of each voxel (0..1) filled by labyrinth fluid, on the grid of the MRC
  truth_endolymph.nii.gz       the same for endolymph

Same options, same bytes. Needs about 10 s and 1.5 GB of memory. The patient does not exist: name Phantom^Hydrops,
ID PHANTOM-SEED.

Exit status: 0 written, 2 the options or the folder cannot be used.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dicom_node.encoding.phantom_style import Vendor
    from inference.phantom import PhantomOptions, PhantomStudy

ROLES = ("MRC", "PPI", "PEI", "HYDROPS", "HYDROPS_MI2", "REAL_IR")
DEFAULT_ROLES = ("MRC", "PPI", "PEI", "HYDROPS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hydrops-node phantom`."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into; must be empty")
    parser.add_argument("--force", action="store_true", help="write into DIR even if it is not empty")
    parser.add_argument("--seed", type=int, default=1, help="which person and which noise (default %(default)s)")
    patient = parser.add_argument_group("the patient")
    patient.add_argument(
        "--ratio-left",
        type=_ratio,
        metavar="R",
        help="EH ratio of the left ear, 0..1 (default: normal ear, about 0.15)",
    )
    patient.add_argument("--ratio-right", type=_ratio, metavar="R", help="EH ratio of the right ear, 0..1")
    patient.add_argument(
        "--ears", choices=("both", "left", "right", "none"), default="both", help="ears that have a labyrinth"
    )
    patient.add_argument(
        "--contrast",
        choices=("none", "weak", "normal", "strong"),
        default="normal",
        help="gadolinium in the perilymph (default %(default)s)",
    )
    scan = parser.add_argument_group("the scan")
    scan.add_argument(
        "--series",
        nargs="+",
        choices=ROLES,
        default=list(DEFAULT_ROLES),
        metavar="ROLE",
        help=f"series to write, of {', '.join(ROLES)} (default {' '.join(DEFAULT_ROLES)})",
    )
    scan.add_argument(
        "--oblique",
        type=_angle,
        default=0.0,
        metavar="DEG",
        help="tilt of the slab about the left-right axis; 15 is a usual one, 180 upside down",
    )
    scan.add_argument(
        "--motion",
        type=_millimeters,
        default=0.0,
        metavar="MM",
        help="how far the patient moves between the MRC and each other series, at the ears; turned by as many degrees",
    )
    scan.add_argument(
        "--vendor",
        choices=("siemens", "philips", "ge"),
        default="siemens",
        help="whose way of storing pixels (default %(default)s)",
    )
    scan.add_argument(
        "--coding",
        choices=("signed", "offset", "clipped"),
        default="signed",
        help="how HYDROPS and HYDROPS_MI2 keep negative values (default %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Make the study and write it; progress goes to standard error."""
    from dicom_node.encoding.phantom_style import Vendor
    from inference.phantom import make_study

    folder: Path = arguments.out
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not arguments.force:
        _say(f"{folder} is not an empty folder; choose another one, or add --force")
        return 2
    try:
        _say("drawing the patient and scanning ...")
        study = make_study(_options(arguments))
    except ValueError as error:
        _say(str(error))
        return 2
    vendor = Vendor(arguments.vendor)
    _write_images(study, vendor, folder / "dicom")
    _write_truth(study, vendor, folder)
    for side, ear in study.truth.ears.items():
        _say(
            f"{side} ear: {ear.total_fluid_mm3:.1f} mm3 of fluid, {ear.endolymph_mm3:.1f} mm3 of it endolymph, "
            f"EH ratio {ear.eh_ratio:.3f}"
        )
    _say(f"written: {folder}/dicom and {folder}/truth.json; next: hydrops-node process {folder}/dicom --out RESULT")
    return 0


def _options(arguments: argparse.Namespace) -> PhantomOptions:
    from inference.anatomy import EarSide
    from inference.phantom import ContrastState, HydropsCoding, PhantomOptions

    ears = {"both": list(EarSide), "left": [EarSide.LEFT], "right": [EarSide.RIGHT], "none": []}[arguments.ears]
    return PhantomOptions(
        seed=arguments.seed,
        eh_ratio={EarSide.LEFT: arguments.ratio_left, EarSide.RIGHT: arguments.ratio_right},
        ears=frozenset(ears),
        contrast=ContrastState(arguments.contrast),
        series=tuple(dict.fromkeys(arguments.series)),
        oblique_deg=(arguments.oblique, 0.0, 0.0),
        motion_mm=arguments.motion,
        motion_deg=arguments.motion,
        hydrops_coding=HydropsCoding(arguments.coding),
    )


def _write_images(study: PhantomStudy, vendor: Vendor, folder: Path) -> None:
    """One folder per role, files in slice order."""
    from dicom_node.encoding.phantom_study import phantom_datasets

    for role in study.volumes:
        target = folder / role
        target.mkdir(parents=True, exist_ok=True)
        datasets = phantom_datasets(study, series=(role,), vendor=vendor)
        _say(f"writing {role}: {len(datasets)} images")
        for number, dataset in enumerate(datasets, start=1):
            dataset.save_as(target / f"{number:04d}.dcm", enforce_file_format=True)


def _write_truth(study: PhantomStudy, vendor: Vendor, folder: Path) -> None:
    from dicom_node.encoding.nifti import nifti_bytes

    (folder / "truth.json").write_text(json.dumps(truth_record(study, vendor), indent=2) + "\n", encoding="utf-8")
    _say("writing the truth volumes")
    (folder / "truth_total_fluid.nii.gz").write_bytes(nifti_bytes(study.truth.total_fluid_fraction))
    (folder / "truth_endolymph.nii.gz").write_bytes(nifti_bytes(study.truth.endolymph_fraction))


def truth_record(study: PhantomStudy, vendor: Vendor) -> dict[str, Any]:
    """What truth.json holds.

    Keys: `seed`; `ears.left|right` with `center_lps_mm` (centroid of the fluid), `total_fluid_mm3`, `endolymph_mm3`,
    `eh_ratio` (0..1), a side that is missing is absent; `motion.ROLE.moving_to_fixed`, the (4, 4) LPS transform that
    brings the series onto the MRC; `series.ROLE.series_instance_uid`.
    """
    from dicom_node.encoding.phantom_study import series_instance_uid

    return {
        "seed": study.options.seed,
        "ears": {
            side.value: {
                "center_lps_mm": [round(value, 3) for value in ear.center_lps_mm],
                "total_fluid_mm3": round(ear.total_fluid_mm3, 3),
                "endolymph_mm3": round(ear.endolymph_mm3, 3),
                "eh_ratio": round(ear.eh_ratio, 5),
            }
            for side, ear in study.truth.ears.items()
        },
        "motion": {role: {"moving_to_fixed": study.truth.motion[role].tolist()} for role in study.volumes},
        "series": {
            role: {"series_instance_uid": series_instance_uid(study.options, role, vendor)} for role in study.volumes
        },
    }


def _ratio(text: str) -> float:
    return _bounded(text, 0.0, 1.0, "a ratio between 0 and 1 (0.27, not 27)")


def _angle(text: str) -> float:
    return _bounded(text, -360.0, 360.0, "an angle in degrees")


def _millimeters(text: str) -> float:
    return _bounded(text, -1e-9, 50.0, "millimeters between 0 and 50")


def _bounded(text: str, low: float, high: float, wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low < value <= high:
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}")
    return value


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
