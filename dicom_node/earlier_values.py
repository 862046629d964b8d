"""What the node knows of a patient's ears from earlier studies, to be shown beside a new number.

Earlier is what the studies themselves say: the date and time of the examination, never the day of computing. So a study
that is sent late is compared with the one before it, and an old study never with a newer one. A result keeps what was
known when it was computed; a value that comes to light later changes no object that was already made. A value of a
study that was refused since, or is examined again, is not quoted.
"""

from __future__ import annotations

from collections.abc import Iterable

from dicom_node.encoding.measurements import PreviousValue
from dicom_node.study_cards import EarResult, StudyCard, StudyCards
from inference.anatomy import EarSide


def earlier_values(cards: StudyCards, card: StudyCard) -> dict[EarSide, PreviousValue]:
    """Each ear's value in the last earlier study of the same patient that has one which stands today.

    Parameters
    ----------
    card
        Of the study that is being computed; without a date nothing is earlier.
    """
    before = [one for one in cards.of_patient(card.patient_key) if _is_before(one, card)]
    if not before:
        return {}
    results = cards.standing_results(one.study_instance_uid for one in before)
    order = {one.study_instance_uid: place for place, one in enumerate(before)}
    last = {side: _last(results, side, order) for side in EarSide}
    return {side: value for side, value in last.items() if value is not None}


def _is_before(one: StudyCard, card: StudyCard) -> bool:
    if not one.study_date or not card.study_date or one.study_instance_uid == card.study_instance_uid:
        return False
    return (one.study_date, one.study_time) < (card.study_date, card.study_time)


def _last(results: Iterable[EarResult], side: EarSide, order: dict[str, int]) -> PreviousValue | None:
    """The value of the latest study."""
    measured = [one for one in results if one.side == side.value and one.ratio is not None]
    if not measured:
        return None
    best = max(measured, key=lambda one: (order[one.study_instance_uid], one.computed_at))
    if best.ratio is None or best.low is None or best.high is None:
        return None
    return PreviousValue(
        study_instance_uid=best.study_instance_uid,
        study_date=best.study_date,
        ratio=best.ratio,
        low=best.low,
        high=best.high,
        model=best.model,
    )
