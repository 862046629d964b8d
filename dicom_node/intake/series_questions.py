"""Questions about single series that Orthanc fails on every time must not hold up those about all others."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from dicom_node.intake.orthanc_instance import require_answers_otherwise
from dicom_node.orthanc_client import OrthancClient
from dicom_node.orthanc_http import OrthancAnswerInvalid, OrthancTooLarge, OrthancUnavailable

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class QuestionFailed(Exception):
    """Orthanc failed on this question but answers others; never leaves this package.

    `given_up`: it has done so time and again, and is not waited for any more. `is_new`: not met before in this look.
    """

    def __init__(self, *, given_up: bool, is_new: bool) -> None:
        super().__init__()
        self.given_up = given_up
        self.is_new = is_new


class SeriesQuestions:
    """Asks, and counts failures by what was asked about; one thread uses it.

    Parameters
    ----------
    client
        The Orthanc.
    attempts
        What failed in so many looks is asked for again only by a comparison.
    """

    def __init__(self, client: OrthancClient, *, attempts: int) -> None:
        self._client = client
        self._attempts = attempts
        self._failures: Counter[str] = Counter()
        self._failed_now: set[str] = set()

    def begin_look(self) -> None:
        """From now on a failure counts again: once in a look, however often it is met."""
        self._failed_now.clear()

    def ask(self, about: str, question: Callable[[], Answer], *, insist: bool = False) -> Answer:
        """The answer to a question about a series or an instance with this Orthanc id.

        `insist` also asks where this failed before.

        Raises
        ------
        QuestionFailed
            Orthanc failed on it, but answers otherwise.
        TransientError
            Orthanc is busy or away.
        """
        if not insist and (about in self._failed_now or self._is_given_up(about)):
            raise QuestionFailed(given_up=self._is_given_up(about), is_new=False)
        try:
            return question()
        except (OrthancUnavailable, OrthancAnswerInvalid, OrthancTooLarge) as error:
            require_answers_otherwise(self._client, error)
            self._count(about, str(error))
            raise QuestionFailed(given_up=self._is_given_up(about), is_new=True) from error

    def answered(self, about: str) -> None:
        """All that there was to ask about it was answered."""
        self._failures.pop(about, None)

    def _count(self, about: str, failure: str) -> None:
        self._failed_now.add(about)
        self._failures[about] += 1
        log.warning(
            'event=orthanc_series_failed id=%s attempt=%d given_up=%s reason="%s"',
            about,
            self._failures[about],
            self._is_given_up(about),
            failure,
        )

    def _is_given_up(self, about: str) -> bool:
        return self._failures[about] >= self._attempts
