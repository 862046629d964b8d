"""Which forms of a result a destination takes: asked of the receiver itself, remembered, and obeyed.

An association request names each SOP class with the transfer syntax that we encode it in; the receiver's answer to
each presentation context is what it takes (PS3.8 7.1.1.13, 9.3.3.2). It is asked once a day, and again before an
object is held back because of an old answer, so that a receiver that learned something gets it with the next study.
Orthanc's REST API takes every DICOM file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, Engine, Float, String, Table, Text, delete, insert, select

from dicom_node.database import metadata, writing
from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind

EXPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
"""How every object that we make is encoded (PS3.5 A.2)."""


@dataclass(frozen=True, kw_only=True)
class OutputForm:
    """One kind of result object; `readable`: a person sees numbers or pictures in it without any other object."""

    kind: str
    sop_class_uid: str
    readable: bool

    @property
    def context(self) -> tuple[str, str]:
        """SOP class and transfer syntax: what is proposed for it."""
        return self.sop_class_uid, EXPLICIT_LITTLE_ENDIAN


FORMS: Final = (
    OutputForm(kind="SEG", sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4", readable=False),
    OutputForm(kind="SR", sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34", readable=True),
    OutputForm(kind="SC", sop_class_uid="1.2.840.10008.5.1.4.1.1.7", readable=True),
    OutputForm(kind="PDF", sop_class_uid="1.2.840.10008.5.1.4.1.1.104.1", readable=True),
)
KINDS: Final = tuple(form.kind for form in FORMS)

ASK_EVERY_S: Final = 24 * 3600.0
ASK_AGAIN_S: Final = 600.0
"""After a receiver that did not answer: it may be switched off over night."""


_LEFT_OUT: Final = "this destination is not to get {kind} (destinations[].send)"
_REFUSES: Final = "this destination does not take {kind}"
_NOT_MADE: Final = "this node does not make {kind} (results)"


@dataclass(frozen=True, kw_only=True)
class FormAnswer:
    """Whether one form goes to a destination; `reason` is a sentence where it does not."""

    kind: str
    sent: bool
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class DestinationForms:
    """What is known of a destination: for `status`, doctor and dashboard.

    `asked_at` is when it last answered (POSIX seconds), None if it never did; then nothing is known and everything
    that is to go there is tried. `problem` is why it did not answer when it was last asked.
    """

    destination: str
    asked_at: float | None
    answers: tuple[FormAnswer, ...]
    problem: str = ""

    @property
    def readable(self) -> bool:
        """Whether at least one form goes there that a person can read; if not, that is an alarm."""
        return any(form.readable and answer.sent for form, answer in zip(FORMS, self.answers, strict=True))

    @property
    def sentence(self) -> str:
        """What goes there, on one line."""
        sent = ", ".join(answer.kind for answer in self.answers if answer.sent) or "nothing"
        refused = ", ".join(one.kind for one in self.answers if one.reason == _REFUSES.format(kind=one.kind))
        left_out = ", ".join(one.kind for one in self.answers if one.reason == _LEFT_OUT.format(kind=one.kind))
        words = f"gets {sent}" if self.asked_at is not None else f"has not been asked yet, would get {sent}"
        alarm = "" if self.readable else "; NOTHING GOES THERE THAT A PERSON CAN READ (SR, SC or PDF)"
        problem = f"; when last asked: {self.problem}" if self.problem else ""
        held = (f"; does not take {refused}" if refused else "") + (f"; not to get {left_out}" if left_out else "")
        return words + held + alarm + problem


_answers = Table(
    "destination_form",
    metadata,
    Column("destination", String(64), primary_key=True),
    Column("kind", String(32), primary_key=True),
)
_asked = Table(
    "destination_asked",
    metadata,
    Column("destination", String(64), primary_key=True),
    Column("address", Text, nullable=False),
    Column("asked_at", Float),
    Column("tried_at", Float, nullable=False),
    Column("problem", Text, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class _Known:
    """The stored answer: the accepted kinds, when it was given, when the receiver was last tried."""

    kinds: frozenset[str]
    asked_at: float | None
    tried_at: float | None
    problem: str


_NOTHING: Final = _Known(kinds=frozenset(), asked_at=None, tried_at=None, problem="")


class Capabilities:
    """The remembered answers of all destinations, in the state database; `made` are the kinds that this node makes."""

    def __init__(self, engine: Engine, *, made: Sequence[str] = KINDS) -> None:
        self._engine = engine
        self._made = frozenset(made)
        with writing(engine) as connection:  # a database that was opened before this module was imported
            metadata.create_all(connection, tables=[_answers, _asked])

    def of(self, destination: Destination) -> DestinationForms:
        """What goes to a destination, by its own answer and by what its configuration leaves in."""
        known = self.known(destination)
        return DestinationForms(
            destination=destination.name,
            asked_at=known.asked_at,
            answers=tuple(_answer(form, destination, known, self._made) for form in FORMS),
            problem=known.problem,
        )

    def known(self, destination: Destination) -> _Known:
        """The stored answer; nothing if it came from another address than the destination has now."""
        if destination.kind == "orthanc":
            return _Known(kinds=frozenset(KINDS), asked_at=0.0, tried_at=0.0, problem="")
        query = select(_asked).where(_asked.c.destination == destination.name)
        kinds = select(_answers.c.kind).where(_answers.c.destination == destination.name)
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
            accepted = frozenset(connection.scalars(kinds))
        if row is None or row.address != _address(destination):
            return _NOTHING
        return _Known(kinds=accepted, asked_at=row.asked_at, tried_at=row.tried_at, problem=row.problem)

    def learn(self, destination: Destination, kinds: frozenset[str], *, at: float) -> None:
        """Remember what a receiver has just answered."""
        row = {"address": _address(destination), "asked_at": at, "tried_at": at, "problem": ""}
        with writing(self._engine) as connection:
            for table in (_answers, _asked):
                connection.execute(delete(table).where(table.c.destination == destination.name))
            connection.execute(insert(_asked).values(destination=destination.name, **row))
            if kinds:
                rows = [{"destination": destination.name, "kind": kind} for kind in sorted(kinds)]
                connection.execute(insert(_answers), rows)

    def failed(self, destination: Destination, problem: str, *, at: float) -> None:
        """Remember that a receiver did not answer; what it said before still stands."""
        known = self.known(destination)
        row = {
            "address": _address(destination),
            "asked_at": known.asked_at,
            "tried_at": at,
            "problem": problem,
        }
        with writing(self._engine) as connection:
            connection.execute(delete(_asked).where(_asked.c.destination == destination.name))
            connection.execute(insert(_asked).values(destination=destination.name, **row))


Ask = Callable[[Destination], frozenset[str] | DeliveryOutcome]
"""Asks a receiver: the kinds it accepts, or why it gave no answer."""


class FormChoice:
    """Decides before each object whether it goes to its destination; used by the destination's own thread.

    Parameters
    ----------
    ask
        How to ask a DICOM receiver.
    clock
        POSIX seconds.
    on_answer
        Called with what is known after a receiver was asked.
    """

    def __init__(
        self,
        capabilities: Capabilities,
        ask: Ask,
        *,
        clock: Callable[[], float],
        on_answer: Callable[[DestinationForms], None] = lambda _forms: None,
    ) -> None:
        self._capabilities = capabilities
        self._ask = ask
        self._clock = clock
        self._on_answer = on_answer

    def objection(self, destination: Destination, kind: str, *, queued_at: float) -> DeliveryOutcome | None:
        """Why an object is not sent now, or None if it is to be tried.

        An answer that speaks against sending counts only if it is younger than the object's queueing; an older one
        is asked for again.
        """
        if destination.send and kind not in destination.send:
            return _not_taken(_LEFT_OUT.format(kind=kind))
        if destination.kind == "orthanc" or kind not in KINDS:
            return None
        known = self._capabilities.known(destination)
        if kind in known.kinds:
            return None
        if known.asked_at is None or not queued_at <= known.asked_at <= self._clock():  # or before the clock was set
            problem = self.look(destination)
            if problem is not None:
                return problem
            known = self._capabilities.known(destination)
        return None if kind in known.kinds else _not_taken(_REFUSES.format(kind=kind))

    def look_daily(self, destination: Destination) -> None:
        """Ask a receiver whose answer is a day old, or that has not answered for a while."""
        if destination.kind == "orthanc":
            return
        known, now = self._capabilities.known(destination), self._clock()
        answered_lately = known.asked_at is not None and 0.0 <= now - known.asked_at < ASK_EVERY_S
        tried_lately = known.tried_at is not None and 0.0 <= now - known.tried_at < ASK_AGAIN_S
        if not answered_lately and not tried_lately:
            self.look(destination)

    def look(self, destination: Destination) -> DeliveryOutcome | None:
        """Ask a receiver now and remember its answer; why there is none, if so."""
        answer = self._ask(destination)
        if isinstance(answer, DeliveryOutcome):
            self._capabilities.failed(destination, answer.detail, at=self._clock())
            return answer
        self._capabilities.learn(destination, answer, at=self._clock())
        self._on_answer(self._capabilities.of(destination))
        return None

    def refused(self, destination: Destination, kind: str) -> None:
        """Ask a receiver anew that took no object of this kind; what it did counts more than what it says it does."""
        if self.look(destination) is not None:
            return
        kinds = self._capabilities.known(destination).kinds
        if kind in kinds:  # it accepts the kind in an association, and answers each object with "not supported"
            self._capabilities.learn(destination, kinds - {kind}, at=self._clock())
            self._on_answer(self._capabilities.of(destination))


def _answer(form: OutputForm, destination: Destination, known: _Known, made: frozenset[str]) -> FormAnswer:
    if destination.send and form.kind not in destination.send:
        return FormAnswer(kind=form.kind, sent=False, reason=_LEFT_OUT.format(kind=form.kind))
    if known.asked_at is not None and form.kind not in known.kinds:
        return FormAnswer(kind=form.kind, sent=False, reason=_REFUSES.format(kind=form.kind))
    if form.kind not in made:
        return FormAnswer(kind=form.kind, sent=False, reason=_NOT_MADE.format(kind=form.kind))
    return FormAnswer(kind=form.kind, sent=True)


def _not_taken(reason: str) -> DeliveryOutcome:
    return DeliveryOutcome(kind=OutcomeKind.NOT_TAKEN, detail=f"not sent: {reason}")


def _address(destination: Destination) -> str:
    """What an answer belongs to; after a change of it the receiver is another one."""
    secured = " TLS" if destination.tls else ""
    return f"{destination.calling_ae} > {destination.called_ae}@{destination.host}:{destination.port}{secured}"
