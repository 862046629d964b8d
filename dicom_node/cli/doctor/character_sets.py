"""Names in other scripts: do they come through our reader, our SEG and our SR (and Orthanc) as they went in?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pydicom

from dicom_node.cli.doctor.archive import KnownOrthanc, known_orthancs
from dicom_node.cli.doctor.checkup import Line, Site, ok, problem
from dicom_node.errors import NodeError, RejectedStudy

if TYPE_CHECKING:
    from dicom_node.instance_files import InstanceFile
    from inference.findings import StudyFindings


@dataclass(frozen=True, kw_only=True)
class WrittenName:
    """A name of nobody, as a worklist in that country would send it: Specific Character Set and PN value."""

    language: str
    character_sets: tuple[str, ...]
    name: str

    @property
    def title(self) -> str:
        """Language and character set, for people."""
        return f"{self.language} ({self.character_sets[-1]})"


NAMES: Final = (
    WrittenName(
        language="Japanese", character_sets=("", "ISO 2022 IR 87"), name="Yamada^Tarou=山田^太郎=やまだ^たろう"
    ),
    WrittenName(language="Korean", character_sets=("", "ISO 2022 IR 149"), name="Hong^Gildong=洪^吉洞=홍^길동"),
    WrittenName(language="Chinese", character_sets=("ISO_IR 192",), name="Wang^XiaoDong=王^小東"),
    WrittenName(language="French", character_sets=("ISO_IR 100",), name="Buc^Jérôme"),
)
"""The names of PS3.5 annexes H, I and J, which stand in every implementer's tests."""


REPORT: Final = "keep this node away from patients with such names, and report it with this line"


def check(site: Site) -> Iterator[Line]:
    """Each name through reader, SEG and SR; with --through also through Orthanc."""
    site.say("making a synthetic ear")
    findings = _findings()
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        for one in NAMES:
            site.say(one.title)
            files = _written(one, Path(folder) / one.character_sets[-1].replace(" ", "_"))
            yield _through_the_node(one, files, findings)
            if site.through:
                for orthanc in known_orthancs(site.loaded):
                    yield _through_orthanc(one, files[0].path, orthanc)
    if known_orthancs(site.loaded) and not site.through:
        yield ok("not tried through Orthanc: with --through an image of each goes there, is read back and deleted")


def _through_the_node(one: WrittenName, files: list[InstanceFile], findings: StudyFindings) -> Line:
    """Read the images, write SEG and SR, read those, compare."""
    try:
        wrong = [kind for kind, name in _names_in_results(files, findings).items() if name != one.name]
    except RejectedStudy as refused:
        return problem(f"a patient with a {one.title} name would be refused: {refused}", REPORT)
    if files[0].header.PatientName != one.name:
        wrong.insert(0, "our reader")
    if wrong:
        return problem(f"a {one.title} name changes in: {', '.join(wrong)}", REPORT)
    return ok(f"a {one.title} name comes through reader, SEG and SR unchanged")


def _names_in_results(files: list[InstanceFile], findings: StudyFindings) -> Mapping[str, str]:
    """PatientName of every result that the node makes of these images, by its kind."""
    from dicom_node.assembly.site_rules import read_rules
    from dicom_node.case import CaseOptions, case_key, open_case
    from dicom_node.casework import encode_findings

    options = CaseOptions(rules=read_rules(""), digest="0" * 64)
    case = open_case(str(files[0].header.StudyInstanceUID), files, options)
    objects = encode_findings(
        case, findings, case_key(case, findings.model, options), options, datetime.now().astimezone()
    )
    return {one.kind: str(pydicom.dcmread(BytesIO(one.data)).PatientName) for one in objects}


def _findings() -> StudyFindings:
    """What the method without training finds in the synthetic ear."""
    from dicom_node.cli.doctor.synthetic_ear import ear_images
    from inference.anatomy import EarSide
    from inference.findings import EarFindings, QualityCode, QualityFlag, Severity, StudyFindings
    from inference.quantification import measure_ear
    from inference.segmentation import ThresholdSegmenter

    images, segmenter = ear_images(), ThresholdSegmenter()
    (fluid,) = segmenter.segment([images])
    left = measure_ear(
        images, fluid, first_slice=0, remarks=(), slab_fluid_level=float(images.mrc.array.max()), unlearned=None
    )
    absent = QualityFlag(code=QualityCode.EAR_NOT_FOUND, severity=Severity.STOP, message="This phantom has one ear.")
    right = EarFindings(side=EarSide.RIGHT, ratio=None, fluid=None, quality=(absent,))
    return StudyFindings(ears={EarSide.RIGHT: right, EarSide.LEFT: left}, alignments={}, model=segmenter.identity)


def _written(one: WrittenName, folder: Path) -> list[InstanceFile]:
    """The synthetic ear's images under this name, written as files and read as the node reads them."""
    from dicom_node.cli.doctor.synthetic_ear import ear_study
    from dicom_node.encoding.phantom_study import phantom_datasets
    from dicom_node.instance_files import read_folder

    folder.mkdir()
    for number, dataset in enumerate(phantom_datasets(ear_study())):
        dataset.SpecificCharacterSet = list(one.character_sets)
        dataset.PatientName = one.name
        dataset.PatientID = "HYDROPS-TEST"
        dataset.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
    (files,) = read_folder(folder).values()
    return files


def _through_orthanc(one: WrittenName, path: Path, orthanc: KnownOrthanc) -> Line:
    """Upload one image, read it back as Orthanc understands it, and delete it again."""
    where = f"Orthanc at {orthanc.url}"
    try:
        with orthanc.client() as client:
            stored = client.store(path.read_bytes())
            try:
                tags = client.simplified_tags(stored)
            finally:
                client.delete_instance(stored)
    except NodeError as error:
        return problem(f"{where} could not be asked about a {one.title} name: {error}", "see the orthanc check")
    if _as_text(tags) != one.name:
        return problem(
            f"{where} reads a {one.title} name otherwise than it was written",
            "its viewers will show it wrong; look at DefaultEncoding and the locale that Orthanc runs with",
        )
    return ok(f"{where} reads a {one.title} name as it was written")


def _as_text(tags: Mapping[str, Any]) -> str:
    return str(tags.get("PatientName", ""))
