"""Volumes as tests load them from files, and what refuses them; DCMTK's and GDCM's encoders."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from scanned_series import write_files

from dicom_node.assembly.headers import read_series_header
from dicom_node.errors import Reason, RejectedStudy
from dicom_node.pixel_decoding import Decoders
from dicom_node.volumes import load_volume
from inference.geometry import Volume


def loaded(datasets: Sequence[Dataset], folder: Path, decoders: Decoders | None = None) -> Volume:
    """The volume of these data sets, written to `folder` first."""
    files = write_files(datasets, folder)
    return load_volume(read_series_header(datasets), files, threads=1, decoders=decoders)


def reloaded(folder: Path) -> Volume:
    """The volume of the files as they stand in a folder."""
    paths = sorted(folder.glob("*.dcm"))
    datasets = [dcmread(path, stop_before_pixels=True) for path in paths]
    files = {str(dataset.SOPInstanceUID): path for dataset, path in zip(datasets, paths, strict=True)}
    return load_volume(read_series_header(datasets), files)


def reason_of(load: Callable[[], object]) -> Reason:
    """Why it refuses the study."""
    with pytest.raises(RejectedStudy) as caught:
        load()
    return caught.value.refusal.reason


def command_line(name: str, *arguments: str) -> list[str]:
    """A program of this machine with its arguments."""
    program = shutil.which(name)
    assert program is not None, f"{name} is not installed"
    return [program, *arguments]
