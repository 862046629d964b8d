"""One synthetic study, the whole way: sent to a listener, computed by a worker, delivered and read back.

It runs in a node of its own: the same program and the same settings, but a temporary state folder, free ports and a
receiver that we started. So a node that is running is not disturbed, and no result leaves this machine. With
``--through`` the results go to the configured destinations instead.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_node.cli.doctor.checkup import Line, Site, ok, problem
from dicom_node.cli.doctor.result_receiver import ResultReceiver
from dicom_node.cli.doctor.trial_node import CALLER, TrialNode, TrialNodeFailed

if TYPE_CHECKING:
    from dicom_node.ledger import StudyRecord
    from inference.phantom import PhantomStudy

SEED: Final = 11
RATIOS: Final = {"left": 0.36, "right": 0.12}
RATIO_OFF: Final = 0.12
"""As in the model check: more than this is no matter of a model's precision."""

PATIENT_NAME: Final = "HYDROPS^TEST"
PATIENT_ID: Final = "HYDROPS-TEST"
DESCRIPTION: Final = "TEST, NO PATIENT (hydrops-node doctor)"

FINISH_S: Final = 600.0
OUR_ROOT: Final = "2.25."
"""UIDs made from UUIDs (PS3.5 B.2): what the phantom's images carry, and what we give them anew."""


def check(site: Site) -> Iterator[Line]:
    """Drive one study through and compare its numbers with the truth."""
    site.say("drawing a synthetic patient")
    study = _patient()
    with tempfile.TemporaryDirectory(prefix="hydrops-doctor-") as text, ResultReceiver() as receiver:
        folder = Path(text)
        images = folder / "images"
        uid = write_images(study, images, at=datetime.now())  # noqa: DTZ005 - scanner clocks have no time zone
        try:
            with TrialNode(site, folder, receiver=None if site.through else receiver) as node:
                yield from _drive(site, node, images, uid, receiver)
        except TrialNodeFailed as failure:
            yield problem(str(failure), "run the other checks first; the end of its log stands there")


def _patient() -> PhantomStudy:
    from inference.anatomy import EarSide
    from inference.phantom import PhantomOptions, make_study

    ratios = {side: RATIOS[side.value] for side in EarSide}
    return make_study(PhantomOptions(seed=SEED, eh_ratio=ratios, series=("MRC", "PPI", "PEI", "HYDROPS")))


def write_images(study: PhantomStudy, folder: Path, *, at: datetime) -> str:
    """The study as files, marked as a test, under UIDs that were never used before; its Study Instance UID."""
    from dicom_node.encoding.phantom_study import phantom_datasets

    folder.mkdir()
    fresh: dict[str, str] = {}
    for number, dataset in enumerate(phantom_datasets(study, started_at=at)):
        _renew_uids(dataset, fresh)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.PatientName, dataset.PatientID = PATIENT_NAME, PATIENT_ID
        dataset.StudyDescription = DESCRIPTION
        dataset.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
        uid = str(dataset.StudyInstanceUID)
    return uid


def _renew_uids(dataset: Dataset, fresh: dict[str, str]) -> None:
    """Replace every UID that names something of this study; the same one by the same one."""
    for element in dataset.iterall():
        if element.VR == "UI" and str(element.value).startswith(OUR_ROOT):
            element.value = fresh.setdefault(str(element.value), generate_uid(prefix=None))


def _drive(site: Site, node: TrialNode, images: Path, study_uid: str, receiver: ResultReceiver) -> Iterator[Line]:
    """Send, wait, compare."""
    from dicom_node.delivery.outcome import OutcomeKind
    from dicom_node.delivery.store_scu import send_folder

    site.say("sending its images")
    began = time.monotonic()
    outcomes = send_folder(sorted(images.iterdir()), node.door, lambda _one: None)
    refused = [one.outcome.detail for one in outcomes if one.outcome.kind is not OutcomeKind.DELIVERED]
    if refused:
        yield problem(f"{len(refused)} of {len(outcomes)} images were refused: {refused[0]}", "see the disk check")
        return
    yield ok(f"the listener, called as {CALLER}, kept {len(outcomes)} images in {time.monotonic() - began:.1f} s")
    record = node.wait_until_finished(study_uid, timeout_s=FINISH_S, say=site.say)
    yield _computed(record, time.monotonic() - began, node)
    if why := node.undrawn(record):
        yield problem(f"page and pictures were not drawn: {why}", f"report it with: {node.log_tail()}")
    for one in node.undelivered(study_uid):
        yield problem(f"{one.kind} did not reach {one.destination}: {one.last_detail}", "see the receivers check")
    if site.through:
        for destination, kinds in node.delivered(study_uid).items():
            yield ok(f"{', '.join(kinds)} reached {destination}: look there for patient {PATIENT_ID}, and delete it")
    elif receiver.kinds:
        yield ok(f"{', '.join(receiver.kinds)} arrived at a receiver of our own, and could be read there")


def _computed(record: StudyRecord, seconds: float, node: TrialNode) -> Line:
    """Both ears' numbers beside the truth."""
    from dicom_node.ledger import StudyState

    if record.state is StudyState.FAILED:
        return problem("this node failed on the study; that is a fault of ours", f"report it with: {node.log_tail()}")
    if record.state is not StudyState.COMPUTED or record.findings is None:
        return problem(
            f"the study was not computed: {record.state} {record.reason} {record.detail}".rstrip(),
            "look the reason up in docs/troubleshooting.md",
        )
    said, wrong = [], False
    for side, truth in RATIOS.items():
        ratio = record.findings["ears"][side]["eh_ratio"]
        value = None if ratio is None else ratio["value"]
        wrong |= value is None or abs(value - truth) > RATIO_OFF
        said.append(f"{side} {'none' if value is None else f'{100 * value:.0f} %'} (truth {100 * truth:.0f} %)")
    text = f"computed and delivered {seconds:.0f} s after its first image: EH ratio {', '.join(said)}"
    return problem(text, "see the model check; the shipped model measures this patient") if wrong else ok(text)
