"""Who and what every study is, and each ear's numbers over time: the card index behind the list, history and drift.

Cards repeat what the sender wrote, so they are patient data and hostile input at once. Text is decoded here, once;
control characters and characters that turn the reading direction become visible marks, and the length is capped.
What is left is plain text for every view to escape. Nothing of a card is ever logged.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

import pydicom
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Integer,
    Select,
    String,
    Table,
    Text,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from dicom_node.assembly.attributes import CONVERSION_ERRORS
from dicom_node.database import metadata, writing
from dicom_node.drift_rows import owe_point
from dicom_node.encoding.patient_module import attribute_text
from dicom_node.encoding.person_names import written_name
from dicom_node.ledger import StudyState, ledger_studies
from dicom_node.urgency import Urgency, urgency_rows
from inference.findings import EarFindings, StudyFindings

MAX_CHARACTERS: Final = 256
"""Of one value on a card. Legal values have 64; a name of 3 groups has 194; more is a sender's error or an attack."""

NO_REMARK: Final = "[]"
"""How the codes of an ear without any are written."""

_ACTING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
"""Embeddings, overrides and isolates of reading direction, and line ends; LRM and RLM stay: Hebrew names need them."""

_VISIBLE_MARK: Final = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, kw_only=True)
class StudyCard:
    """Whose study it is and where it was made, as text for people; `patient_name` is a DICOM PN value in Unicode.

    `patient_key` joins the studies of one patient; empty if the study names no PatientID, and then has no history.
    """

    study_instance_uid: str
    patient_key: str
    patient_name: str
    patient_id: str
    birth_date: str
    sex: str
    study_date: str
    study_time: str
    accession_number: str
    description: str
    scanner: str
    institution: str

    @property
    def written_name(self) -> str:
        """The patient's name as people write it; "" if there is none."""
        return written_name(self.patient_name)


@dataclass(frozen=True, kw_only=True)
class EarResult:
    """One ear of one finished piece of work. Ratios are 0..1; None means "not evaluated", never zero.

    `quality` holds codes (`inference.findings.QualityCode`), `model` name and version, `study_date` is YYYYMMDD,
    `computed_at` POSIX seconds, `seconds` how long the whole study took to compute.
    """

    study_instance_uid: str
    work_id: str
    side: str
    ratio: float | None
    low: float | None
    high: float | None
    total_fluid_mm3: float | None
    endolymph_mm3: float | None
    quality: tuple[str, ...]
    model: str
    scanner: str
    study_date: str
    computed_at: float
    seconds: float


@dataclass(kw_only=True, slots=True)
class WorkEars:
    """What drift looks at of the ears of one piece of work; `is_flagged` if any has a remark on its quality."""

    scanner: str
    ratios: list[float] = field(default_factory=list)
    is_flagged: bool = False


@dataclass(frozen=True, kw_only=True)
class ListedStudy:
    """One line of a list of studies: what the ledger says of it now, and its card if it has one."""

    study_instance_uid: str
    work_id: str
    state: StudyState
    step: str
    reason: str
    detail: str
    first_seen_at: float
    updated_at: float
    card: StudyCard | None
    urgency: Urgency = Urgency.ROUTINE


_cards = Table(
    "study_card",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("patient_key", String(64), nullable=False, index=True),
    *(
        Column(one.name, Text, nullable=False)
        for one in fields(StudyCard)
        if one.name not in ("study_instance_uid", "patient_key")
    ),
    Column("searched", Text, nullable=False),
)

_ear_results = Table(
    "ear_result",
    metadata,
    Column("work_id", String(128), primary_key=True),
    Column("side", String(5), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("ratio", Float),
    Column("low", Float),
    Column("high", Float),
    Column("total_fluid_mm3", Float),
    Column("endolymph_mm3", Float),
    Column("quality", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("scanner", Text, nullable=False),
    Column("study_date", String(MAX_CHARACTERS), nullable=False),
    Column("computed_at", Float, nullable=False, index=True),
    Column("seconds", Float, nullable=False),
    Column("position", Integer, nullable=False),
)


def card_of(study_instance_uid: str, header: pydicom.Dataset) -> StudyCard:
    """The card of a study, from the header of one of its images; whatever is unreadable is empty."""
    read = {
        keyword: readable_text(header, keyword)
        for keyword in (
            "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientName", "PatientSex", "StudyDate", "StudyTime",
            "AccessionNumber", "StudyDescription", "InstitutionName", "Manufacturer", "ManufacturerModelName",
            "StationName",
        )
    }  # fmt: skip
    shown = {keyword: inert_text(text) for keyword, text in read.items()}
    make = " ".join(filter(None, (shown["Manufacturer"], shown["ManufacturerModelName"])))
    return StudyCard(
        study_instance_uid=study_instance_uid,
        patient_key=patient_key(read["PatientID"], read["IssuerOfPatientID"], read["PatientBirthDate"]),
        patient_name=shown["PatientName"],
        patient_id=shown["PatientID"],
        birth_date=shown["PatientBirthDate"],
        sex=shown["PatientSex"],
        study_date=shown["StudyDate"],
        study_time=shown["StudyTime"],
        accession_number=shown["AccessionNumber"],
        description=shown["StudyDescription"],
        scanner=", ".join(filter(None, (make, shown["StationName"])))[:MAX_CHARACTERS],
        institution=shown["InstitutionName"],
    )


def ear_results(work_id: str, card: StudyCard, findings: StudyFindings, *, at: float) -> list[EarResult]:
    """What the index keeps of each ear's numbers, for history and drift; an ear without a number is kept as such."""
    return [_ear_result_of(ear, work_id, card, findings, at) for ear in findings.ears.values()]


def _ear_result_of(ear: EarFindings, work_id: str, card: StudyCard, findings: StudyFindings, at: float) -> EarResult:
    ratio = ear.ratio
    return EarResult(
        study_instance_uid=card.study_instance_uid,
        work_id=work_id,
        side=ear.side.value,
        ratio=None if ratio is None else ratio.value,
        low=None if ratio is None else ratio.low,
        high=None if ratio is None else ratio.high,
        total_fluid_mm3=None if ratio is None else ratio.total_fluid_mm3,
        endolymph_mm3=None if ratio is None else ratio.endolymph_mm3,
        quality=tuple(dict.fromkeys(flag.code.value for flag in (*ear.quality, *findings.quality))),
        model=f"{findings.model.name} {findings.model.version}",
        scanner=card.scanner,
        study_date=card.study_date,
        computed_at=at,
        seconds=round(sum(findings.timings_s.values()), 3),
    )


def patient_key(patient_id: str, issuer: str, birth_date: str) -> str:
    """SHA-256 over what tells one patient from another; empty without a PatientID.

    The name is left out: it is spelled in several ways, and changes. The birth date is in: two hospitals without an
    issuer may give the same number to two people.
    """
    if not patient_id:
        return ""
    return hashlib.sha256("\x1f".join((patient_id, issuer, birth_date)).encode("utf-8", "replace")).hexdigest()


def inert_text(text: str) -> str:
    """`text` on one line of at most `MAX_CHARACTERS`, without characters that act instead of being shown."""
    kept = (
        _VISIBLE_MARK if char in _ACTING or unicodedata.category(char) in ("Cc", "Cs") else char
        for char in text[:MAX_CHARACTERS]
    )
    return "".join(kept)


def readable_text(header: pydicom.Dataset, keyword: str) -> str:
    """The text of an attribute as the sender wrote it; "" where it is absent or unreadable."""
    try:
        return attribute_text(header, keyword)[0]
    except CONVERSION_ERRORS:
        return ""


class StudyCards:
    """The card index on one state database; every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, card: StudyCard, *, within: Connection | None = None) -> None:
        """Keep the card of a study; it replaces an earlier one, and an equal one costs no write."""
        if self.get(card.study_instance_uid) == card:
            return
        values = asdict(card) | {"searched": _searched(card)}
        # Both dialects spell ON CONFLICT alike; SQLAlchemy's generic INSERT does not know it.
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        upsert = dialect.insert(_cards).values(**values)
        with nullcontext(within) if within is not None else writing(self._engine) as connection:
            connection.execute(upsert.on_conflict_do_update(index_elements=["study_instance_uid"], set_=values))
            owe_point(connection, card.study_instance_uid)

    def get(self, study_instance_uid: str) -> StudyCard | None:
        """The card of one study."""
        query = select(_cards).where(_cards.c.study_instance_uid == study_instance_uid)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else _card(row)

    def of_patient(self, key: str) -> list[StudyCard]:
        """The cards of one patient's studies, the oldest study first; none for an empty key."""
        if not key:
            return []
        query = select(_cards).where(_cards.c.patient_key == key)
        query = query.order_by(_cards.c.study_date, _cards.c.study_time, _cards.c.study_instance_uid)
        with self._engine.connect() as connection:
            return [_card(row) for row in connection.execute(query).mappings()]

    def search(
        self, text: str = "", *, state: StudyState | None = None, limit: int = 50, offset: int = 0
    ) -> list[ListedStudy]:
        """Studies whose card or UID contains every word of `text`, whatever its case; what changed last comes first."""
        names = ("work_id", "state", "step", "reason", "detail", "first_seen_at", "updated_at")
        listed = (ledger_studies.c[name] for name in names)
        urgent = select(urgency_rows.c.urgency).where(
            urgency_rows.c.study_instance_uid == ledger_studies.c.study_instance_uid
        )
        shown = (ledger_studies.c.study_instance_uid.label("uid"), urgent.scalar_subquery().label("urgency"))
        query = _matching(select(*shown, *listed, _cards), text, state)
        query = query.order_by(ledger_studies.c.updated_at.desc(), ledger_studies.c.study_instance_uid)
        with self._engine.connect() as connection:
            return [_listed(row) for row in connection.execute(query.limit(limit).offset(offset)).mappings()]

    def counts(self, text: str = "") -> dict[StudyState, int]:
        """How many studies `search` would list in each state."""
        query = select(ledger_studies.c.state, func.count()).group_by(ledger_studies.c.state)
        query = _matching(query, text, None) if text.strip() else query  # everything is counted from the index alone
        with self._engine.connect() as connection:
            found = {row[0]: int(row[1]) for row in connection.execute(query)}
        return {state: found.get(state.value, 0) for state in StudyState}

    def with_patient_id(self, patient_id: str) -> list[StudyCard]:
        """The cards of every study under this Patient ID, which may be that of several people, the oldest first."""
        query = select(_cards).where(_cards.c.patient_id == inert_text(patient_id))
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(_cards.c.study_date, _cards.c.study_instance_uid)).mappings()
            return [_card(row) for row in rows]

    def put_results(self, results: Sequence[EarResult], *, within: Connection | None = None) -> None:
        """Keep each ear's numbers of one piece of work; the first outcome of a piece of work stays."""
        with nullcontext(within) if within is not None else writing(self._engine) as connection:
            for position, result in enumerate(results):
                known = select(_ear_results.c.work_id).where(
                    _ear_results.c.work_id == result.work_id, _ear_results.c.side == result.side
                )
                if connection.execute(known).first() is None:
                    values = asdict(result) | {"quality": json.dumps(list(result.quality)), "position": position}
                    connection.execute(insert(_ear_results).values(**values))
                    owe_point(connection, result.study_instance_uid)

    def results_of_studies(self, study_instance_uids: Iterable[str]) -> list[EarResult]:
        """Every result of these studies, in the order in which they were computed, also of earlier models."""
        return self._results(_ear_results.c.study_instance_uid.in_(list(study_instance_uids)))

    def standing_results(self, study_instance_uids: Iterable[str]) -> list[EarResult]:
        """Of each of these studies that is measured now, the result that holds now, in the order of computing.

        A study that was refused since, or is examined again, has none; the numbers of before are of images or rules
        that count no more.
        """
        measured = select(ledger_studies.c.work_id).where(
            ledger_studies.c.study_instance_uid.in_(list(study_instance_uids)),
            ledger_studies.c.state == StudyState.COMPUTED.value,
        )
        return self._results(_ear_results.c.work_id.in_(measured))

    def ears_of(self, work_ids: Sequence[str], *, within: Connection) -> dict[str, WorkEars]:
        """By work: what was measured in these pieces of work; no more is read than drift looks at."""
        columns = _ear_results.c
        read = select(columns.work_id, columns.scanner, columns.ratio, columns.quality != NO_REMARK)
        read = read.where(columns.work_id.in_(work_ids)).order_by(columns.work_id, columns.position)
        found: dict[str, WorkEars] = {}
        for work_id, scanner, ratio, flagged in within.execute(read):
            ears = found.setdefault(work_id, WorkEars(scanner=scanner))
            ears.is_flagged |= bool(flagged)
            if ratio is not None:
                ears.ratios.append(ratio)
        return found

    def scanners(self, study_instance_uids: Sequence[str], *, within: Connection) -> dict[str, str]:
        """The scanner of each of these studies that has a card, by Study Instance UID."""
        of_these = _cards.c.study_instance_uid.in_(study_instance_uids)
        rows = within.execute(select(_cards.c.study_instance_uid, _cards.c.scanner).where(of_these))
        return {row.study_instance_uid: row.scanner for row in rows}

    def _results(self, *where: ColumnElement[bool]) -> list[EarResult]:
        query = select(_ear_results).where(*where)
        query = query.order_by(_ear_results.c.computed_at, _ear_results.c.work_id, _ear_results.c.position)
        with self._engine.connect() as connection:
            return [_ear_result(row) for row in connection.execute(query).mappings()]


def _matching(query: Select[Any], text: str, state: StudyState | None) -> Select[Any]:
    """The query over studies and their cards, narrowed to what matches."""
    joined = ledger_studies.outerjoin(_cards, _cards.c.study_instance_uid == ledger_studies.c.study_instance_uid)
    query = query.select_from(joined)
    if state is not None:
        query = query.where(ledger_studies.c.state == state.value)
    for word in _folded(inert_text(text)).split():
        in_card = _cards.c.searched.contains(word, autoescape=True)
        query = query.where(in_card | ledger_studies.c.study_instance_uid.contains(word, autoescape=True))
    return query


def _searched(card: StudyCard) -> str:
    """What a search looks through: everything on the card a person may type. The dates also as 2026-11-22."""
    dates = (card.study_date, _with_dashes(card.study_date), card.birth_date, _with_dashes(card.birth_date))
    name = card.patient_name.replace("^", " ").replace("=", " ")
    return _folded(
        " ".join(
            (name, card.patient_id, card.accession_number, card.description, card.scanner, card.institution, *dates)
        )
    )


def _folded(text: str) -> str:
    """Text in the one form in which it is compared: full-width and half-width, capital and small letters alike."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _with_dashes(date: str) -> str:
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 else ""


def _card(row: Any) -> StudyCard:
    return StudyCard(**{one.name: row[one.name] for one in fields(StudyCard)})


def _listed(row: Any) -> ListedStudy:
    return ListedStudy(
        study_instance_uid=row["uid"],
        work_id=row["work_id"],
        state=StudyState(row["state"]),
        step=row["step"],
        reason=row["reason"],
        detail=row["detail"],
        first_seen_at=row["first_seen_at"],
        updated_at=row["updated_at"],
        card=None if row["study_instance_uid"] is None else _card(row),
        urgency=Urgency(row["urgency"] or Urgency.ROUTINE),
    )


def _ear_result(row: Any) -> EarResult:
    values = {one.name: row[one.name] for one in fields(EarResult)}
    return EarResult(**values | {"quality": tuple(json.loads(values["quality"]))})
