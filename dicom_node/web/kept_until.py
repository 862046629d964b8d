"""What a study's page says of its images: until when they are kept here, or that they are gone and what that means."""

from __future__ import annotations

from datetime import datetime

from dicom_node.intake.erased_images import ErasedImages
from dicom_node.retention import StudyKeeping


def kept_sentence(keeping: StudyKeeping) -> str:
    """Until when images and results are kept here; "" while there is no end to be told."""
    results = f"results are kept until {_day(keeping.results_until)}" if keeping.results_until else ""
    if keeping.erased is not None and keeping.erased.missing:
        return ". ".join(filter(None, (_erased(keeping.erased), results.capitalize()))) + "."
    if keeping.images_until is None:
        return ""
    return ", ".join(filter(None, (f"Images are kept here until {_day(keeping.images_until)}", results))) + "."


def _erased(erased: ErasedImages) -> str:
    on = _day(erased.erased_at)
    gone = "Images were" if erased.missing == erased.known else f"{erased.missing} of its {erased.known} images were"
    if not erased.unseen:
        return f"{gone} erased here on {on}"
    return (
        f"{gone} erased here on {on}; {erased.unseen} others came later and were not looked at: "
        "send the whole study again to have them measured"
    )


def _day(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().date().isoformat()
