"""Which kinds of result each destination accepts, asked of the receiver itself, and so what it will get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from dicom_node.cli.doctor.checkup import Line, Site, ok, problem, warning
from dicom_node.cli.wiring import destinations, made_kinds
from dicom_node.delivery.capabilities import FORMS, KINDS
from dicom_node.delivery.outcome import DeliveryOutcome, Destination
from dicom_node.delivery.store_scu import accepted_kinds

SYNTAX: Final = "Explicit VR Little Endian"


def check(site: Site) -> Iterator[Line]:
    """One line for each destination."""
    receivers, made = destinations(site.loaded), made_kinds(site.loaded.settings)
    if not receivers:
        yield ok("no destination is configured")
    for one in receivers:
        site.say(one.name)
        answer = frozenset(KINDS) if one.kind == "orthanc" else accepted_kinds(one)
        if isinstance(answer, DeliveryOutcome):
            yield problem(f"{one.name}: could not be asked, {answer.detail}", "see the receivers check")
        else:
            yield judge(one, answer, made)


def judge(receiver: Destination, accepted: frozenset[str], made: Sequence[str]) -> Line:
    """What of the kinds that are `made` goes to a destination that accepts these, and whether a person can read it."""
    wanted = [kind for kind in receiver.send or KINDS if kind in made]
    sent = [kind for kind in KINDS if kind in accepted and kind in wanted]
    refused = [kind for kind in wanted if kind not in accepted]
    left_out = [kind for kind in made if kind in accepted and kind not in wanted]
    not_made = [kind for kind in receiver.send if kind not in made]
    parts = [f"{receiver.name}: gets {', '.join(sent)}, as {SYNTAX}" if sent else f"{receiver.name}: gets nothing"]
    parts += [f"it does not take {', '.join(refused)}"] if refused else []
    parts += [f"its setting 'send' leaves out {', '.join(left_out)}"] if left_out else []
    parts += [f"[results] does not make {', '.join(not_made)}, which its setting 'send' names"] if not_made else []
    text = "; ".join(parts)
    if not any(form.readable and form.kind in sent for form in FORMS):
        return problem(
            f"{text}: nothing that a person can read",
            "let the receiver accept SOP class Secondary Capture Image Storage (1.2.840.10008.5.1.4.1.1.7), which "
            "results.summary = true makes, or Comprehensive 3D SR Storage (1.2.840.10008.5.1.4.1.1.88.34)",
        )
    if "SEG" not in sent and "SC" not in sent:
        return warning(f"{text}: numbers, but no picture", "let the receiver accept Secondary Capture Image Storage")
    return ok(text)
