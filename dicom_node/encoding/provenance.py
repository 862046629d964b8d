"""Who made a result, with what, and when: the parts that every object of ours shares."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pydicom
from highdicom import ContributingEquipment

from dicom_node import __version__
from dicom_node.encoding import codes
from dicom_node.encoding.identity import InputKey
from inference.findings import ModelIdentity


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """What a site chooses about its result objects, and the version of the node that makes them."""

    segmentation_series_number: int = 9901
    report_series_number: int = 9902
    summary_series_number: int = 9903
    document_series_number: int = 9904
    summary: bool = True
    pdf: bool = False
    device_name: str = codes.NODE_MODEL_NAME
    device_serial_number: str = "0"
    software_version: str = __version__


_TIMES: Final = (
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("ContentDate", "ContentTime"),
    ("SeriesDate", "SeriesTime"),
)


def algorithm_version(model: ModelIdentity) -> str:
    """Version and weights of a model in one LO value (64 characters): "1.2.0 (sha256 0123456789ab)"."""
    return f"{model.version} (sha256 {model.sha256[:12]})"[:64]


def contributing_equipment(
    key: InputKey, options: ResultOptions, model: ModelIdentity | None, at: datetime
) -> ContributingEquipment:
    """This node and the model it ran; by the model name of this item the node recognizes its own objects."""
    versions = [options.software_version]
    made_by = "Refused without computing."
    if model is not None:
        versions += [f"{model.name} {model.version}"[:64], model.sha256[:64]]
        made_by = f"Model {model.name} {model.version}, SHA-256 {model.sha256}."
    return ContributingEquipment(
        manufacturer=codes.NODE_MANUFACTURER,
        purpose_of_reference=codes.SYNTHESIZING_EQUIPMENT,
        manufacturer_model_name=codes.NODE_MODEL_NAME,
        software_versions=versions,
        device_serial_number=options.device_serial_number,
        contribution_datetime=at,
        contribution_description=f"{made_by} Input digest {key.digest}. Research use only.",
    )


def stamp(dataset: pydicom.Dataset, at: datetime) -> None:
    """Give every "now" that highdicom wrote into `dataset` the one moment `at`, so equal inputs give equal bytes."""
    for date, time in _TIMES:
        setattr(dataset, date, at.strftime("%Y%m%d"))
        setattr(dataset, time, at.strftime("%H%M%S.%f"))
    for item in dataset.ContributingEquipmentSequence:
        if item.get("ManufacturerModelName") in ("highdicom", codes.NODE_MODEL_NAME):
            item.ContributionDateTime = at.strftime("%Y%m%d%H%M%S.%f")
