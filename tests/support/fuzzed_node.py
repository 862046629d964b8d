"""The whole way of one image that a stranger may have made, on real parts, without a network.

Wire check, file on disk, header, roles and set, pixels, and, when the study is refused, its report: everything that
reads a stranger's bytes. What is allowed to come out is a status on the wire or a reason; anything else is a fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mutants import Mutant, plain_bytes
from pydicom.dataset import Dataset

from dicom_node.assembly.site_rules import read_rules
from dicom_node.case import CaseOptions, open_case
from dicom_node.casework import refuse_case
from dicom_node.errors import Reason, Refusal, RejectedStudy
from dicom_node.instance_files import InstanceFile, read_instance
from dicom_node.intake.part10 import file_header
from dicom_node.intake.wire_check import InstanceIdentity, UnstorableInstance, check_dataset
from dicom_node.pipeline import StepTimer
from dicom_node.pixel_decoding import Decoders
from dicom_node.volumes import load_volume
from inference.segmentation import ThresholdSegmenter

AT = datetime(2026, 11, 22, 4, 5, 6)  # noqa: DTZ001 - DICOM times are local


@dataclass(frozen=True, kw_only=True)
class Fate:
    """Where a mutant's way ended ("wire", "study", "pixels", "loaded") and the code it ended with."""

    station: str
    code: str


class FuzzedNode:
    """A good study whose images are replaced by mutants, one at a time."""

    def __init__(self, folder: Path, study: Sequence[Dataset]) -> None:
        self._folder = folder
        self._options = CaseOptions(rules=read_rules(""), digest="0" * 64, threads=1)
        self._segmenter = ThresholdSegmenter()
        self._decoders = Decoders()
        self.originals = [plain_bytes(one) for one in study]
        self._good: dict[str, InstanceFile] = {}
        for one in study:
            uid = str(one.SOPInstanceUID)
            self._good[uid] = self._kept(f"good-{len(self._good)}", plain_bytes(one), one.file_meta.TransferSyntaxUID)

    def close(self) -> None:
        """End the decoding child."""
        self._decoders.close()

    def swallow(self, one: Mutant, *, with_report: bool) -> Fate:
        """What became of a mutant in the place of the image that it was made from."""
        try:
            identity = check_dataset(one.dataset, one.transfer_syntax_uid)
        except UnstorableInstance as problem:
            return Fate(station="wire", code=problem.reason.value)
        path = self._written("mutant", one.dataset, one.transfer_syntax_uid, identity)
        file = read_instance(path)
        assert file is not None, "an image was acknowledged whose header cannot be read"
        study = str(file.header.StudyInstanceUID)
        files = {uid: good for uid, good in self._good.items() if str(good.header.StudyInstanceUID) == study}
        files[file.sop_instance_uid] = file
        case = open_case(study, files.values(), self._options)
        refusal = case.assembly.refusal
        if refusal is None:
            fate = self._pixels(case.headers, files)
        else:
            fate = Fate(station="study", code=refusal.reason.value)
        if with_report:
            refusals = (refusal or Refusal(reason=Reason.DECODE, detail="the report of a mutant is asked for"),)
            step = StepTimer(lambda: 0.0)
            refuse_case(case, refusals, model=self._segmenter.identity, options=self._options, step=step, at=AT)
        return fate

    def _pixels(self, headers: Mapping[str, object], files: Mapping[str, InstanceFile]) -> Fate:
        paths = {uid: file.path for uid, file in files.items()}
        try:
            for header in headers.values():
                load_volume(header, paths, threads=1, decoders=self._decoders)  # type: ignore[arg-type]
        except RejectedStudy as rejected:
            return Fate(station="pixels", code=rejected.refusal.reason.value)
        return Fate(station="loaded", code="")

    def _kept(self, name: str, dataset: bytes, syntax: str) -> InstanceFile:
        identity = check_dataset(dataset, syntax)
        file = read_instance(self._written(name, dataset, syntax, identity))
        assert file is not None
        return file

    def _written(self, name: str, dataset: bytes, syntax: str, identity: InstanceIdentity) -> Path:
        path = self._folder / name
        path.write_bytes(file_header(identity, syntax, source="FUZZ") + dataset)
        return path
