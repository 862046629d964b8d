"""Storage commitment: does every destination that is to commit take our requests, and could it call us back?"""

from __future__ import annotations

from collections.abc import Iterator

from dicom_node.cli.doctor.checkup import Line, Site, ok, problem, warning
from dicom_node.cli.wiring import destinations
from dicom_node.delivery.commitment_scu import would_vouch
from dicom_node.delivery.outcome import Destination, OutcomeKind


def check(site: Site) -> Iterator[Line]:
    """Two lines for each destination with `done = "committed"`."""
    receivers = [one for one in destinations(site.loaded) if one.to_commit]
    if not receivers:
        yield ok('every destination is done with a result when it was sent (no done = "committed")')
    for one in receivers:
        site.say(one.name)
        yield _takes_requests(one)
        yield _could_call_back(one, site)


def _takes_requests(receiver: Destination) -> Line:
    outcome = would_vouch(receiver)
    if outcome.kind is OutcomeKind.DELIVERED:
        return ok(f"{receiver.name}: takes requests for storage commitment")
    if outcome.kind is OutcomeKind.NOT_TAKEN:
        return problem(
            f"{receiver.name}: refuses the presentation context of storage commitment (1.2.840.10008.1.20.1): every "
            "result will end as not committed",
            f'switch storage commitment on there for our AE title {receiver.calling_ae}, or set done = "sent"',
        )
    return problem(f"{receiver.name}: could not be asked, {outcome.detail}", "see the receivers check")


def _could_call_back(receiver: Destination, site: Site) -> Line:
    """Whether our listener would let it in to answer; one that answers on our association needs no such thing."""
    listener = site.loaded.settings.listener
    title = receiver.called_ae
    if not listener.enabled:
        return warning(
            f"{receiver.name}: can answer on our own association only, since listener.enabled = false",
            "receive by C-STORE, if it answers by calling back; most archives do",
        )
    if title not in [one.ae_title for one in listener.allowed]:
        return problem(
            f"{receiver.name}: may not call us back, its AE title {title} is not in listener.allowed",
            f'add {{ ae_title = "{title}", networks = ["<its address>/32"] }} to listener.allowed, and give it our '
            f"address: {receiver.calling_ae}, port {listener.port}",
        )
    return ok(
        f"{receiver.name}: may call us back as {title}; it needs our address there: {receiver.calling_ae}, port "
        f"{listener.port}"
    )
