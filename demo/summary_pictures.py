"""The pictures of docs/reading-the-result.md: what a PACS shows of a computed study, and of one that was refused.

    .venv/bin/python demo/summary_pictures.py

Makes a synthetic patient, has the node process it as it would any study, once whole and once without its contrast
series, and writes the pixels of the two Secondary Capture objects to docs/pictures/. Takes a minute.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pydicom
from PIL import Image

from dicom_node.cli import main

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
PATIENT = ["--seed", "12", "--oblique", "15", "--ratio-left", "0.38", "--ratio-right", "0.14"]


def write_picture(study: Path, name: str, folder: Path) -> None:
    """The summary of one study as PNG."""
    result = folder / f"{name}-result"
    main(["process", str(study), "--out", str(result), "--quiet"])
    pixels = pydicom.dcmread(result / "sc.dcm").pixel_array
    Image.fromarray(pixels).save(PICTURES / f"{name}.png", optimize=True)
    print(PICTURES / f"{name}.png")


def make_pictures(folder: Path) -> None:
    """Both pictures, from studies that are written into `folder`."""
    main(["phantom", "--out", str(folder / "whole"), *PATIENT])
    main(["phantom", "--out", str(folder / "part"), *PATIENT, "--series", "MRC", "PPI"])
    write_picture(folder / "whole" / "dicom", "summary-page", folder)
    write_picture(folder / "part" / "dicom", "summary-not-computed", folder)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        make_pictures(Path(place))
