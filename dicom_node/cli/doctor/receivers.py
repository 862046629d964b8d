"""The way out: does every destination answer, know our AE title, and go by the name that we call it?"""

from __future__ import annotations

from collections.abc import Iterator

from dicom_node.cli.doctor.checkup import Line, Site, ok, problem, warning
from dicom_node.cli.wiring import destinations
from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind
from dicom_node.delivery.store_scu import echo
from dicom_node.errors import NodeError
from dicom_node.orthanc_client import OrthancClient


def check(site: Site) -> Iterator[Line]:
    """One line for each destination."""
    receivers = destinations(site.loaded)
    if not receivers:
        yield warning(
            "no destination is configured: results stay in the outbox", "add a [[destinations]] entry for your PACS"
        )
    for one in receivers:
        site.say(one.name)
        yield _knock_at_orthanc(one) if one.kind == "orthanc" else _judge(one, echo(one))


def _judge(receiver: Destination, outcome: DeliveryOutcome) -> Line:
    """What an answer to our C-ECHO says about this destination."""
    if outcome.kind is OutcomeKind.DELIVERED:
        return ok(f"{receiver.name}: {outcome.detail} and knows us as {receiver.calling_ae}")
    if outcome.kind is OutcomeKind.NOT_TAKEN:
        return warning(
            f"{receiver.name}: lets us in as {receiver.calling_ae}, but answers no C-ECHO",
            "nothing to do if results arrive; some archives do not offer the Verification service",
        )
    text, advice = _halves(outcome.detail)
    if outcome.kind is OutcomeKind.RETRY_LATER and "rejected" in outcome.detail:
        return warning(f"{receiver.name}: {text}", "ask again in a minute; if it stays, raise the receiver's limit")
    return problem(f"{receiver.name}: {text}", advice)


def _halves(detail: str) -> tuple[str, str]:
    """What happened, and what to do; our sentences about peers say both."""
    for between in ("; ", ": is it "):
        text, found, advice = detail.partition(between)
        if found:
            return text, between.strip("; :") + " " + advice if between != "; " else advice
    return detail, "look into the receiver's log, and compare host, port and called_ae of this destination"


def _knock_at_orthanc(receiver: Destination) -> Line:
    try:
        with OrthancClient(
            receiver.url, username=receiver.username, password=receiver.password, timeout_s=receiver.timeout_s
        ) as client:
            name = client.system().name
    except NodeError as error:
        text, _, advice = str(error).partition(". ")
        return problem(
            f"{receiver.name}: {text}", advice or "is Orthanc running, and does url of this destination fit?"
        )
    return ok(f"{receiver.name}: Orthanc {name!r} at {receiver.url} answers and takes our password")
