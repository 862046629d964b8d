"""The list of reasons is complete and readable."""

from __future__ import annotations

import pytest

from dicom_node.errors import Reason, Refusal, RejectedStudy
from inference.findings import QualityCode


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_sentence_for_a_radiologist(reason: Reason) -> None:
    assert reason.sentence.endswith(".")
    assert reason.value not in reason.sentence


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_says_what_can_be_done(reason: Reason) -> None:
    assert reason.next_step.endswith(".")
    assert "`" not in reason.next_step


@pytest.mark.parametrize("code", list(QualityCode))
def test_every_quality_code_of_the_core_is_a_reason_of_the_node(code: QualityCode) -> None:
    assert Reason(code.value).value == code.value


def test_a_rejection_keeps_all_its_refusals_with_the_main_one_first() -> None:
    main = Refusal(reason=Reason.REG_POOR, detail="shift 12 mm, allowed 10 mm")
    also = Refusal(reason=Reason.MOTION, detail="ghosts")
    rejection = RejectedStudy(main, also)
    assert rejection.refusals == (main, also)
    assert str(rejection) == "REG_POOR: shift 12 mm, allowed 10 mm"
