"""Read the intervals of a model again on whole studies, so that 95 % of them hold the truth there.

  hydrops-node evaluate --phantoms 40 --seed 900200 --model FOLDER --out DIR
  hydrops-node calibrate FOLDER --from DIR/evaluation.json

A training calibrates its intervals on single ears. This takes the errors and the half widths that an evaluation found
after ear search, alignment and segmentation, and changes the scales in FOLDER/model.json accordingly; the weights stay.
The model gets another digest: judge it again, on other patients (another --seed), for figures that mean something.
Several evaluations count together. At least 40 measured ears are needed for each set of series.

Needs the extra `train`: pip install '.[train]'. Research use only.

Exit status: 0 written, 2 FOLDER or an evaluation cannot be used.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hydrops-node calibrate`."""
    parser.add_argument("model", type=Path, metavar="FOLDER", help="model folder; its model.json is replaced")
    parser.add_argument(
        "--from",
        dest="evaluations",
        type=Path,
        nargs="+",
        required=True,
        metavar="JSON",
        help="evaluation.json of this model",
    )


def run(arguments: argparse.Namespace) -> int:
    """Replace the scales, and say what they were and are."""
    from dicom_node.cli.evaluate import read_evaluation
    from dicom_node.errors import UnusableInput
    from inference.evaluation.interval_widths import read_again
    from inference.model_store import ModelError, load_model, replace_description
    from inference.training.calibration import CalibrationError

    folder: Path = arguments.model
    evaluations = [read_evaluation(path) for path in arguments.evaluations]
    try:
        before = load_model(folder).description
        after = read_again(before, evaluations)
        replace_description(folder, after)
    except (ModelError, CalibrationError) as error:
        raise UnusableInput(str(error)) from error
    for inputs, scale in after.interval_scales.items():
        print(f"{inputs:12} {before.interval_scales[inputs]:.3f} -> {scale:.3f} standard errors")
    print(f"written: {folder}/model.json, model digest {after.identity.sha256[:12]}. Research use only.")
    return 0
