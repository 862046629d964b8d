"""The list of reasons is complete and readable."""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from dicom_node.errors import Reason, Refusal, RejectedStudy, fault_in_words
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


def no_fork() -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


@pytest.mark.parametrize(
    ("ask_for_too_much", "kind"),
    [
        (lambda: np.empty(10**15), "MemoryError"),
        (lambda: torch.empty(10**18), "RuntimeError"),
        (lambda: sitk.Image([10**6, 10**6, 10**6], sitk.sitkFloat64), "RuntimeError"),
        (lambda: bytearray(2**62), "MemoryError"),
        (no_fork, "OSError"),
    ],
)
def test_f24_memory_that_is_refused_is_called_so_whoever_asked_for_it(
    ask_for_too_much: Callable[[], object], kind: str
) -> None:
    with pytest.raises((MemoryError, RuntimeError, OSError)) as caught:
        ask_for_too_much()
    assert isinstance(caught.value, Exception)
    assert fault_in_words(caught.value) == f"memory ran out ({kind})"


def test_another_fault_is_called_by_its_class_and_not_by_a_text_that_may_be_an_images() -> None:
    assert fault_in_words(ValueError("patient DOE^JANE")) == "ValueError"
