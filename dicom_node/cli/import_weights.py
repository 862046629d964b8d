"""Turn the published weights of IE-Vnet into a model folder.

  hydrops-node import-weights best_metric_model.pth --into models/ie_vnet

FILE is a torch checkpoint: IE-Vnet's own, or one of the same network that was trained again. Nothing in it is run: only
tensors and plain containers are read. Written into FOLDER: weights.safetensors and model.json, which holds their
SHA-256 and what the network expects. docs/models.md explains model folders.

IE-Vnet segments total fluid on T2-SPACE crops at 0.2 mm. It is a second opinion, and gives no EH ratio. Needs the
extra `train`: pip install '.[train]'

Exit status: 0 written, 2 FILE or FOLDER cannot be used.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hydrops-node import-weights`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="torch checkpoint (.pth, .pt)")
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="folder to write; must be empty")
    parser.add_argument("--force", action="store_true", help="replace a model that FOLDER holds already")


def run(arguments: argparse.Namespace) -> int:
    """Import, and say what was imported."""
    from dicom_node.errors import UnusableInput
    from inference.model_store import ModelError
    from inference.published_weights import import_ie_vnet

    folder: Path = arguments.into
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not arguments.force:
        raise UnusableInput(f"{folder} is not an empty folder; choose another one, or add --force")
    try:
        described = import_ie_vnet(arguments.file, folder)
    except ModelError as error:
        raise UnusableInput(str(error)) from error
    print(f"{described.name} {described.version} from {arguments.file}, weights SHA-256 {described.weights_sha256}")
    print(f"written: {folder}/model.json and {folder}/weights.safetensors")
    print(described.intended_use)
    return 0
