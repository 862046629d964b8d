"""The cohort's table: two rows for every study, right ear and left, whatever became of it.

Numbers are those of findings.json, unrounded; an empty cell is "not known", never zero. `COLUMNS` is the one list of
columns: file, types and documentation follow it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from dicom_node.cohort.outcome import SourceOutcome
from dicom_node.errors import UnusableInput
from inference.anatomy import EarSide

Cell = str | float | bool | None
Json = Mapping[str, Any]

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A text that begins so is run by spreadsheets as a formula; patient IDs and folder names come from outside."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One ear of one source. `ear` and `findings` are empty where there is no findings.json."""

    outcome: SourceOutcome
    side: EarSide
    findings: Json
    ear: Json


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its kind of value ("text", "number" or "flag"), what it means, and how it is read off a row."""

    name: str
    kind: str
    meaning: str
    read: Callable[[Row], Cell]


def _ratio(part: str) -> Callable[[Row], Cell]:
    return lambda row: row.ear.get("eh_ratio", {}).get(part)


def _level(part: str, key: str) -> Callable[[Row], Cell]:
    """One value of the ear's slice at the level of `part`."""
    return lambda row: next((one[key] for one in row.ear.get("levels", []) if one["part"] == part), None)


def _levels(part: str) -> tuple[Column, ...]:
    return (
        Column(
            name=f"{part}_area_ratio",
            kind="number",
            meaning=f"2D area ratio of one slice at the level of the {part}, 0..1; not a grade",
            read=_level(part, "ratio"),
        ),
        Column(
            name=f"{part}_total_fluid_mm2",
            kind="number",
            meaning="total fluid in that slice",
            read=_level(part, "total_fluid_mm2"),
        ),
        Column(
            name=f"{part}_endolymph_mm2",
            kind="number",
            meaning="endolymph in that slice",
            read=_level(part, "endolymph_mm2"),
        ),
    )


def _of_model(part: str) -> Callable[[Row], Cell]:
    return lambda row: (row.findings.get("model") or {}).get(part, "")


def _of_findings(key: str) -> Callable[[Row], Cell]:
    return lambda row: row.findings.get(key, "")


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _reasons(row: Row, part: str) -> str:
    return _joined(reason[part] for reason in row.findings.get("reasons", []))


def _remarks(row: Row, part: str) -> str:
    """Of the ear, then of the whole examination, then of the choice of series."""
    flags = [*row.ear.get("quality", []), *row.findings.get("quality", []), *row.findings.get("remarks", [])]
    return _joined(flag[part] for flag in flags)


def _series(row: Row) -> str:
    return "+".join(sorted(one["role"] for one in row.findings.get("series", []) if one["used"]))


def _computing_s(row: Row) -> Cell:
    seconds = row.findings.get("timings_s", {}).values()
    return float(sum(seconds)) if seconds else None


COLUMNS: Final = (
    Column(name="study", kind="text", meaning="name of its result folder", read=lambda row: row.outcome.name),
    Column(name="source", kind="text", meaning="folder of its files", read=lambda row: row.outcome.folder),
    Column(
        name="state",
        kind="text",
        meaning="`computed`, `refused` (with reasons), `unusable` (no report possible), `failed` (our fault)",
        read=lambda row: row.outcome.state.value,
    ),
    Column(
        name="study_instance_uid",
        kind="text",
        meaning="(0020,000D); made from the files' content if they are NIfTI",
        read=_of_findings("study_instance_uid"),
    ),
    Column(name="study_date", kind="text", meaning="(0008,0020), YYYYMMDD", read=lambda row: row.outcome.study_date),
    Column(name="scanner", kind="text", meaning="manufacturer and model", read=lambda row: row.outcome.scanner),
    Column(name="side", kind="text", meaning="`right` or `left`, the patient's own", read=lambda row: row.side.value),
    Column(
        name="evaluated",
        kind="flag",
        meaning="whether this ear has numbers",
        read=lambda row: bool(row.ear.get("evaluated", False)),
    ),
    Column(
        name="total_fluid_mm3",
        kind="number",
        meaning="total fluid space: endolymph and perilymph",
        read=lambda row: row.ear.get("total_fluid_mm3"),
    ),
    Column(
        name="endolymph_mm3",
        kind="number",
        meaning="endolymph, part of it",
        read=lambda row: row.ear.get("endolymph_mm3"),
    ),
    Column(name="eh_ratio", kind="number", meaning="endolymph / total fluid, 0..1", read=_ratio("value")),
    Column(name="eh_ratio_low", kind="number", meaning="lower end of the 95 % interval, 0..1", read=_ratio("low")),
    Column(name="eh_ratio_high", kind="number", meaning="upper end of the 95 % interval, 0..1", read=_ratio("high")),
    *_levels("vestibule"),
    *_levels("cochlea"),
    Column(
        name="remark_codes",
        kind="text",
        meaning="codes of the remarks on this ear and its examination, separated by `; `",
        read=lambda row: _remarks(row, "code"),
    ),
    Column(
        name="remarks",
        kind="text",
        meaning="the same in words; of an ear without numbers, why",
        read=lambda row: _remarks(row, "message"),
    ),
    Column(
        name="reason_codes",
        kind="text",
        meaning="why the study has no result; empty if it has one",
        read=lambda row: _reasons(row, "code"),
    ),
    Column(
        name="reasons",
        kind="text",
        meaning="the same in words; of an unusable or failed study, the problem",
        read=lambda row: row.outcome.problem or _reasons(row, "message"),
    ),
    Column(name="series_used", kind="text", meaning="roles of the series that went into the numbers", read=_series),
    Column(name="model_name", kind="text", meaning="the method that made the numbers", read=_of_model("name")),
    Column(name="model_version", kind="text", meaning="its version", read=_of_model("version")),
    Column(name="model_sha256", kind="text", meaning="of its weights or constants", read=_of_model("sha256")),
    Column(name="node_version", kind="text", meaning="of the program", read=_of_findings("node_version")),
    Column(
        name="input_digest",
        kind="text",
        meaning="SHA-256 over inputs, model and settings: equal digests, equal results",
        read=_of_findings("input_digest"),
    ),
    Column(
        name="computing_s",
        kind="number",
        meaning="seconds of computing, when it was computed",
        read=_computing_s,
    ),
    Column(
        name="research_use_only",
        kind="text",
        meaning="the text that must stay with these numbers",
        read=_of_findings("research_use_only"),
    ),
)

PATIENT_ID: Final = Column(
    name="patient_id",
    kind="text",
    meaning="(0010,0020); only with `--patient-id`",
    read=lambda row: row.outcome.patient_id,
)


def columns(*, patient_id: bool) -> tuple[Column, ...]:
    """The columns in their order; who the patient is only on demand, at the end."""
    return (*COLUMNS, PATIENT_ID) if patient_id else COLUMNS


def rows(outcomes: Iterable[SourceOutcome]) -> list[Row]:
    """Right ear and left of every source."""
    return [
        Row(outcome=outcome, side=side, findings=findings, ear=findings.get("ears", {}).get(side.value, {}))
        for outcome in outcomes
        for findings in [outcome.findings or {}]
        for side in (EarSide.RIGHT, EarSide.LEFT)
    ]


def csv_table(outcomes: Iterable[SourceOutcome], *, patient_id: bool = False) -> bytes:
    """The table as CSV in UTF-8; a text that a spreadsheet would run gets an apostrophe in front."""
    chosen = columns(patient_id=patient_id)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([column.name for column in chosen])
    writer.writerows([[_printed(column.read(row)) for column in chosen] for row in rows(outcomes)])
    return stream.getvalue().encode("utf-8")


def _printed(cell: Cell) -> str:
    """Numbers with every digit; texts on one line and inert."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float | int):
        return repr(float(cell))
    text = " ".join(_legible(cell).replace("\0", " ").splitlines())
    return f"'{text}" if text.lstrip().startswith(FORMULA_STARTS) else text


def _legible(cell: Cell) -> Any:
    """A text as UTF-8 can hold it; names of files need not be any."""
    return cell.encode("utf-8", "backslashreplace").decode() if isinstance(cell, str) else cell


def parquet_table(outcomes: Sequence[SourceOutcome], *, patient_id: bool = False) -> bytes:
    """The same table as Parquet: typed, so nothing in it can be taken for a formula.

    Raises
    ------
    UnusableInput
        If pyarrow is not installed.
    """
    arrow, parquet = arrow_modules()
    chosen = columns(patient_id=patient_id)
    types = {"text": arrow.string(), "number": arrow.float64(), "flag": arrow.bool_()}
    listed = rows(outcomes)
    schema = arrow.schema([arrow.field(one.name, types[one.kind], metadata={"meaning": one.meaning}) for one in chosen])
    arrays = [arrow.array([_legible(one.read(row)) for row in listed], type=types[one.kind]) for one in chosen]
    stream = io.BytesIO()
    parquet.write_table(arrow.Table.from_arrays(arrays, schema=schema), stream)
    return stream.getvalue()


def arrow_modules() -> tuple[ModuleType, ModuleType]:
    """pyarrow and its Parquet part, or UnusableInput with how to get them."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UnusableInput(
            f"{error.name} is missing; install the extra: pip install 'hydrops-node[tables]', or ask for a .csv table"
        ) from None
    return pyarrow, parquet
