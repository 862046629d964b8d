"""What a study's page says of images that are kept, erased, or came again in part."""

from __future__ import annotations

import pytest

from dicom_node.intake.erased_images import ErasedImages
from dicom_node.ledger import StudyState
from dicom_node.retention import StudyKeeping
from dicom_node.web.kept_until import kept_sentence
from dicom_node.web.rendering import whole_dates

A_DAY_S = 86400.0
NOON = 43200.0


def keeping(*, erased: ErasedImages | None = None, images: int = 0, ends: bool = True) -> StudyKeeping:
    return StudyKeeping(
        study_instance_uid="2.25.1",
        state=StudyState.COMPUTED,
        images=images,
        erased=erased,
        held_because="" if ends else "its results are not everywhere yet where they belong",
        images_until=NOON + 14 * A_DAY_S if images and ends else None,
        results_until=NOON + 100 * A_DAY_S if ends else None,
    )


def erased(*, missing: int, fresh: int = 0) -> ErasedImages:
    return ErasedImages(
        erased_at=NOON + 2 * A_DAY_S, received_at=NOON, known=24, missing=missing, fresh=fresh, conflict=False
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (keeping(images=24), "Images are kept here until 1970-01-15, results are kept until 1970-04-11."),
        (keeping(images=24, ends=False), ""),
        (
            keeping(erased=erased(missing=24)),
            "Images were erased here on 1970-01-03. Results are kept until 1970-04-11.",
        ),
        (
            keeping(erased=erased(missing=4), images=20),
            "4 of its 24 images were erased here on 1970-01-03. Results are kept until 1970-04-11.",
        ),
        (
            keeping(erased=erased(missing=24, fresh=8), images=8, ends=False),
            "Images were erased here on 1970-01-03; 8 others came later and were not looked at: "
            "send the whole study again to have them measured.",
        ),
        (
            keeping(erased=erased(missing=0), images=24),
            "Images are kept here until 1970-01-15, results are kept until 1970-04-11.",
        ),
    ],
    ids=["kept", "held", "erased", "in part", "unseen", "all came again"],
)
def test_the_page_says_until_when_images_and_results_are_kept(found: StudyKeeping, expected: str) -> None:
    assert kept_sentence(found) == expected


def test_a_date_is_not_broken_at_the_end_of_a_line_and_everything_else_is_escaped() -> None:
    assert whole_dates("until <b> 2026-02-02.") == 'until &lt;b&gt; <span class="whole">2026-02-02</span>.'
