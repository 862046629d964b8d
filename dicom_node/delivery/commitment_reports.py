"""Takes N-EVENT-REPORTs about storage commitment, on our own association or on one that the receiver opened.

A report is answered with success when what it says is durable, and also when it says it a second time. Anything else
is refused with a status, so that the receiver's log shows it, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.events import Event

from dicom_node.database import DATABASE_AWAY
from dicom_node.delivery.commitment_answers import (
    INVALID_VALUE,
    PROCESSING_FAILURE,
    CommitmentReport,
    UnusableReport,
    read_report,
)
from dicom_node.delivery.commitments import Commitments, ReportEffect
from dicom_node.delivery.peer_answers import SUCCESS

LOGGER = logging.getLogger(__name__)


class ReportDesk:
    """Answers reports; one for each process, shared by all its associations.

    Parameters
    ----------
    commitments
        Where what was asked is written down.
    clock
        POSIX seconds.
    on_taken
        Called after a report that we had asked for.
    """

    def __init__(
        self,
        commitments: Commitments,
        *,
        clock: Callable[[], float],
        on_taken: Callable[[ReportEffect], None] = lambda _effect: None,
    ) -> None:
        self._commitments = commitments
        self._clock = clock
        self._on_taken = on_taken

    def answer(self, event: Event) -> tuple[int, None]:
        """Take one report, from whichever side its association was opened; its status, and no Event Reply."""
        peer_ae = str(event.assoc.remote["ae_title"])
        try:
            report = _read(event)
            effect = self._commitments.take(report, peer_ae=peer_ae, now=self._clock())
        except UnusableReport as problem:
            LOGGER.warning('event=commitment_report_refused peer=%r reason="%s"', peer_ae, problem)
            return problem.status, None
        except DATABASE_AWAY as error:  # the receiver may say it again, and we shall ask again in any case
            LOGGER.warning("event=commitment_report_refused peer=%r reason=%s", peer_ae, type(error).__name__)
            return PROCESSING_FAILURE, None
        if not effect.known:
            LOGGER.warning(
                'event=commitment_report_refused peer=%r transaction=%s reason="we asked this peer no such thing"',
                peer_ae,
                report.transaction_uid,
            )
            return INVALID_VALUE, None
        _log(report, effect)
        self._on_taken(effect)
        return SUCCESS, None


def _read(event: Event) -> CommitmentReport:
    """The report in an N-EVENT-REPORT request.

    Raises
    ------
    UnusableReport
        If it says nothing that can be understood.
    """
    request = event.request
    assert isinstance(request, N_EVENT_REPORT), "this handler is bound to N-EVENT-REPORT alone"
    encoded = b"" if request.EventInformation is None else request.EventInformation.getvalue()
    return read_report(int(request.EventTypeID or 0), encoded, event.context.transfer_syntax)


def _log(report: CommitmentReport, effect: ReportEffect) -> None:
    LOGGER.log(
        logging.WARNING if effect.failed or effect.not_asked else logging.INFO,
        "event=commitment_report destination=%s transaction=%s committed=%d failed=%d repeated=%d outdated=%d "
        "not_asked=%d reasons=%s",
        effect.destination,
        report.transaction_uid,
        effect.committed,
        effect.failed,
        effect.repeated,
        effect.outdated,
        effect.not_asked,
        ",".join(sorted({f"{answer:04X}H" for answer in report.answers.values() if answer})) or "-",
    )
