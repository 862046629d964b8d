"""What is proposed and accepted on associations, read from the listener's and the sender's own objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from pydicom.uid import UID

from dicom_node.conformance.example_objects import MAKERS, Family, families
from dicom_node.intake.listener import VERIFICATION, ListenerOptions, application_entity

__all__ = [
    "LOSSY",
    "VERIFICATION",
    "Context",
    "accepted_contexts",
    "created_objects",
    "proposed_contexts",
]

LOSSY: Final = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81"})
"""Kept, then refused as input: volumes of such images would not be trustworthy. JPEG 2000 (.91) may be lossless."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """One abstract syntax with the transfer syntaxes that go with it."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the SOP class (PS3.6 A)."""
        return UID(self.abstract_syntax).name


def accepted_contexts() -> tuple[Context, ...]:
    """What the listener accepts: the contexts of the very entity that it is started with."""
    entity = application_entity(ListenerOptions(ae_title="HYDROPS"))
    return tuple(
        Context(
            abstract_syntax=str(one.abstract_syntax),
            transfer_syntaxes=tuple(str(syntax) for syntax in one.transfer_syntax or ()),
        )
        for one in entity.supported_contexts
    )


def proposed_contexts() -> tuple[Context, ...]:
    """What the sender proposes: class and transfer syntax of each kind of object, as it is encoded."""
    first = [one[0][0].dataset for one in created_objects().values()]
    return tuple(
        Context(abstract_syntax=str(dataset.SOPClassUID), transfer_syntaxes=(str(dataset.file_meta.TransferSyntaxUID),))
        for dataset in first
    )


@cache
def created_objects() -> Mapping[str, Sequence[Family]]:
    """Examples of every kind of object that the node makes, by kind of the outbox."""
    return {kind: families(kind) for kind in MAKERS}
