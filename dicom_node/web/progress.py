"""How far a study is: the named steps of the worker, and where among them it is now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dicom_node.ledger import StudyRecord, StudyState
from dicom_node.owed_pictures import OwedPicture, OwedPictures

STEPS: Final = {
    "read headers": "Read the headers",
    "check files": "Check the files",
    "load images": "Load the images",
    "check images": "Check the images",
    "read contrast": "Read the contrast",
    "find ears": "Find both ears",
    "read contrast at the ears": "Read the contrast at the ears",
    "align series": "Align the series",
    "crop ears": "Crop the ears",
    "segment fluid": "Segment the fluid",
    "ask for a second opinion": "Ask for a second opinion",
    "measure": "Measure",
    "keep pictures": "Keep the pictures",
    "encode and check": "Write and check the results",
    "draw summary": "Draw the summary",
    "draw pictures": "Draw the pictures",
}
"""The worker's steps in their order, as it names them, and as people read them."""

FIRST_DRAWN: Final = "draw summary"
"""What begins when SEG and SR are out; which of the two drawings is at hand is not noted anywhere."""

UNDER_WAY: Final = (StudyState.WAITING, StudyState.QUEUED, StudyState.COMPUTING)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step; `place` is "done", "now" or "later"."""

    name: str
    place: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a study is. `mark` changes with everything that a page shows of it."""

    under_way: bool
    steps: tuple[Step, ...]
    mark: str


def progress(record: StudyRecord, owed: OwedPictures) -> Progress:
    """How far this study is; steps only while it is computed, and while what follows SEG and SR is drawn."""
    computing = record.state is StudyState.COMPUTING
    drawing = record.state is StudyState.COMPUTED and _are_drawn_now(owed.of_work(record.work_id))
    steps = _steps(FIRST_DRAWN if drawing else record.step) if computing or drawing else ()
    standing = "drawing" if drawing else record.state.value
    return Progress(
        under_way=drawing or record.state in UNDER_WAY,
        steps=steps,
        mark=f"{standing}/{record.revision}/{record.reason}/{record.look_again_at or ''}",
    )


def _are_drawn_now(lacking: OwedPicture | None) -> bool:
    """Whether somebody is at page and pictures, or will be."""
    return lacking is not None and not lacking.given_up


def _steps(current: str) -> tuple[Step, ...]:
    names = list(STEPS)
    at = names.index(current) if current in STEPS else -1
    places = ("done" if n < at else "now" if n == at else "later" for n in range(len(names)))
    return tuple(Step(name=STEPS[name], place=place) for name, place in zip(names, places, strict=True))
