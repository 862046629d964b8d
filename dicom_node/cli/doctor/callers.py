"""The way in: does our listener let every allowed AE in, from where it may call, and keep a stranger out?"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Final

from dicom_node.cli.doctor.checkup import Line, Site, ok, problem, warning
from dicom_node.cli.state_folder import listening_role, running_as
from dicom_node.delivery.outcome import Destination, OutcomeKind
from dicom_node.delivery.store_scu import echo
from dicom_node.settings import AllowedCaller

STRANGER: Final = "HYDROPS_DOCTOR"
"""An AE title that nobody allows."""

TIMEOUT_S: Final = 10.0


def check(site: Site) -> Iterator[Line]:
    """Who may call, and whether a call in their name succeeds."""
    settings = site.loaded.settings
    listener = settings.listener
    if not listener.enabled:
        yield ok("receiving by C-STORE is switched off (listener.enabled = false)")
        return
    if not listener.allowed:
        yield _nobody(site)
        return
    unreachable = [one for one in listener.allowed if not _can_reach(one, listener.host)]
    for one in unreachable:
        yield problem(
            f"{one.ae_title} may call from {', '.join(one.networks)}, but the node listens on {listener.host} only",
            "set listener.host to this machine's address in that network, or to 0.0.0.0",
        )
    if running_as(site.loaded.state_dir, listening_role(site.loaded)) is None:
        yield warning(
            "the node is not running, so nobody can be let in", "start it (hydrops-node serve), then ask again"
        )
        return
    if listener.tls_certificate:
        yield ok("callers have to speak TLS; only they can try that: let each of them send a C-ECHO to this node")
        return
    for one in listener.allowed:
        if one not in unreachable:
            yield _call_as(one, site)
    if STRANGER not in [one.ae_title for one in listener.allowed]:
        yield _call_as_stranger(site)


def _nobody(site: Site) -> Line:
    if site.loaded.settings.orthanc.url:
        return ok("no AE may send to us; images come from Orthanc")
    return problem(
        "no AE may send to us and no Orthanc is read: no image will ever arrive",
        "add a [[listener.allowed]] entry for each sender, or set orthanc.url",
    )


def _can_reach(caller: AllowedCaller, host: str) -> bool:
    """Whether anybody in the caller's networks can reach the address that we listen on."""
    if _is_anywhere(host) or not _is_address(host):
        return True
    if not ip_address(host).is_loopback:
        return True  # routing is none of our knowledge
    return any(_overlaps(network, "127.0.0.0/8" if "." in host else "::1/128") for network in caller.networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _overlaps(one: str, other: str) -> bool:
    first, second = ip_network(one), ip_network(other)
    return first.version == second.version and first.overlaps(second)


def _call_as(caller: AllowedCaller, site: Site) -> Line:
    """A C-ECHO in the name of an allowed AE, from an address of this machine that it may call from."""
    address = next((one for one in _own_addresses(site) if _is_within(one, caller.networks)), None)
    settings = site.loaded.settings
    if address is None:
        return ok(
            f"{caller.ae_title} may call from {', '.join(caller.networks)}; that cannot be tried from this machine. "
            f"From there: echoscu -aet {caller.ae_title} -aec {settings.node.ae_title} <this machine> "
            f"{settings.listener.port}"
        )
    outcome = echo(_our_door(site, calling=caller.ae_title, from_address=address), from_address=address)
    if outcome.kind is OutcomeKind.DELIVERED:
        return ok(f"{caller.ae_title} gets in from {address}: our listener answers its C-ECHO")
    if outcome.kind is OutcomeKind.STOPPED:
        return problem(
            f"{caller.ae_title} is sent away from {address}, although listener.allowed lets it in",
            "restart the node, it runs with an older configuration; its log says why in event=association_rejected",
        )
    return problem(f"{caller.ae_title} gets no answer from {address}: {outcome.detail}", "look into the node's log")


def _call_as_stranger(site: Site) -> Line:
    address = _own_addresses(site)[0]
    outcome = echo(_our_door(site, calling=STRANGER, from_address=address), from_address=address)
    if outcome.kind is OutcomeKind.STOPPED:
        return ok("an AE that is not in listener.allowed is sent away")
    if outcome.kind is OutcomeKind.DELIVERED:
        return problem(
            f"whatever listens on port {site.loaded.settings.listener.port} lets in an AE that nobody allowed",
            "find out which program that is (hydrops-node doctor --only ports); our listener never does this",
        )
    return problem(f"our listener gives a stranger no answer: {outcome.detail}", "look into the node's log")


def _our_door(site: Site, *, calling: str, from_address: str) -> Destination:
    settings = site.loaded.settings
    host = settings.listener.host
    return Destination(
        name="this node",
        kind="dicom",
        host=from_address if _is_anywhere(host) else host,
        port=settings.listener.port,
        called_ae=settings.node.ae_title,
        calling_ae=calling,
        timeout_s=TIMEOUT_S,
    )


def _own_addresses(site: Site) -> list[str]:
    """Addresses of this machine to call from: where we listen, loopback, and the one towards the network."""
    host = site.loaded.settings.listener.host
    if _is_address(host) and not _is_anywhere(host):
        return [host]  # a call to one address comes from the same one, and from nowhere else for sure
    return list(dict.fromkeys(["127.0.0.1", *_outward_address()]))


def _is_anywhere(host: str) -> bool:
    """Whether a listener that is bound to this address answers on every one."""
    return _is_address(host) and ip_address(host).is_unspecified


def _outward_address() -> Iterator[str]:
    """The address from which packets leave this machine; a UDP socket that is connected sends nothing yet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737)
        except OSError:  # no route: a machine without network
            return
        yield str(probe.getsockname()[0])


def _is_within(address: str, networks: tuple[str, ...]) -> bool:
    return any(ip_address(address) in ip_network(network) for network in networks)
