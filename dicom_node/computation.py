"""Computing one piece of work: what the spool has of a study becomes its result, or what is drawn of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from dicom_node.case import Case, CaseOptions, case_key
from dicom_node.casework import CaseResult, Drawing, compute_case, drawing_of, refuse_case
from dicom_node.earlier_values import earlier_values
from dicom_node.encoding.measurements import PreviousValue, StudyMeasurements, read_measurements
from dicom_node.errors import Reason, Refusal
from dicom_node.examination import Examiner, Work
from dicom_node.intake.spool import Spool
from dicom_node.owed_pictures import PicturesLostError
from dicom_node.pipeline import StepTimer
from dicom_node.study_cards import StudyCards
from inference.anatomy import EarSide
from inference.segmentation import FluidSegmenter


class Computation:
    """The worker's means: one spool, one model, one set of options. Changes nothing but the spool's damaged files.

    Parameters
    ----------
    clock, monotonic
        POSIX seconds for dates of creation, and seconds that nobody sets for what a step took.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        examiner: Examiner,
        cards: StudyCards,
        segmenter: FluidSegmenter,
        case_options: CaseOptions,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._spool = spool
        self._examiner = examiner
        self._cards = cards
        self._segmenter = segmenter
        self._case_options = case_options
        self._clock = clock
        self._monotonic = monotonic

    def result(self, work: Work, step: StepTimer) -> CaseResult | None:
        """What the work comes to; None if an image was damaged, which is set aside now: the study may have changed."""
        with step("read headers"):
            case = with_remark(self._examiner.open(work.study_instance_uid), work.remark)
        with step("check files"):
            if self._spool.set_damaged_aside(work.study_instance_uid):
                return None
        now = datetime.fromtimestamp(self._clock()).astimezone()
        if work.refusal is not None:
            reason, detail = work.refusal
            return refuse_case(
                case,
                (Refusal(reason=Reason(reason), detail=detail),),
                model=self._segmenter.identity,
                options=self._case_options,
                step=step,
                at=now,
            )
        return compute_case(
            case,
            segmenter=self._segmenter,
            options=self._case_options,
            step=step,
            encoded_at=now,
            previous=self._earlier_values(work.study_instance_uid),
        )

    def drawing(self, work: Work, said: Mapping[str, Any]) -> Drawing:
        """What is to be drawn of work whose results are out, computed once more: who had it at hand has gone.

        Parameters
        ----------
        said
            The findings document of those results. The page says what they say, word for word: of the earlier study
            with which they compared, and that they were begun on request, whatever would be said today.

        Raises
        ------
        PicturesLostError
            If the images are not those any more that the results were computed from, or the numbers come out
            otherwise: their pictures would be of something else.
        RejectedStudy
            If they are not computed today: they were, and so this is a fault of ours.
        """
        study, silent = work.study_instance_uid, StepTimer(self._monotonic)
        self._spool.set_damaged_aside(study)
        case = with_remark(self._examiner.open(study), work.remark)
        if case_key(case, self._segmenter.identity, self._case_options).digest != work.work_id:
            raise PicturesLostError(
                "the worker that had them ended, and images, rules, model or settings differ by now"
            )
        drawing = drawing_of(
            case,
            segmenter=self._segmenter,
            options=self._case_options,
            step=silent,
            encoded_at=datetime.fromtimestamp(self._clock()).astimezone(),
        )
        measurements = read_measurements(said)
        if measurements is None or _numbers(measurements) != _numbers(drawing.measurements):
            raise PicturesLostError("computed once more, the numbers are others than those that were let out")
        return replace(drawing, measurements=measurements)

    def _earlier_values(self, study_instance_uid: str) -> dict[EarSide, PreviousValue]:
        card = self._cards.get(study_instance_uid)
        return {} if card is None else earlier_values(self._cards, card)


def _numbers(measurements: StudyMeasurements) -> list[str]:
    """Each ear's numbers, with the digits that are printed."""
    return [ear.sentence for ear in measurements.ears]


def with_remark(case: Case, remark: str) -> Case:
    """The case with what its report has to say about being taken as complete on request, if that is so."""
    chosen = case.assembly.chosen
    if not remark or chosen is None:
        return case
    said = replace(chosen, warnings=(*chosen.warnings, Refusal(reason=Reason.BEGUN_ON_REQUEST, detail=remark)))
    return replace(case, assembly=replace(case.assembly, chosen=said))
