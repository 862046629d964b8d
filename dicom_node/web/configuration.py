"""The configuration pages: forms, raw files, dry run, saving with a backup, restoring. For admins."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter, HTTPException, Request, status
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from dicom_node.errors import ConfigError
from dicom_node.web.access import Role, parts_of, require, visitor_of
from dicom_node.web.configuration_desk import (
    ConfigurationDesk,
    ConfigurationProblem,
    ConfigurationTexts,
    FoundConfiguration,
    Verdict,
)
from dicom_node.web.configuration_sheet import (
    MAX_ROWS,
    PLACES,
    ROWS,
    SCALARS,
    Row,
    Sheet,
    SheetError,
    read_sheet,
    write_sheet,
)
from dicom_node.web.parts import WebParts
from dicom_node.web.rendering import page

MAX_CHARACTERS: Final = 262_144
"""Longest text of one file; a real one has a tenth of it."""

TITLES: Final = {"peers": "Who may send", "destinations": "Where results go", "rules": "Series rules"}


def router(_parts: WebParts) -> APIRouter:
    """GET /configuration, /configuration/files and /configuration/backups; POST what is entered there."""
    found = APIRouter(prefix="/configuration", dependencies=[require(Role.ADMIN)])
    found.add_api_route("", show_forms, methods=["GET"])
    found.add_api_route("/files", show_files, methods=["GET"])
    found.add_api_route("/backups", show_backups, methods=["GET"])
    found.add_api_route("/forms", take_forms, methods=["POST"])
    found.add_api_route("/files", take_files, methods=["POST"])
    found.add_api_route("/restore", take_backup, methods=["POST"])
    found.add_api_route("/save", save, methods=["POST"])
    return found


def show_forms(request: Request) -> Response:
    """The forms as the files fill them; the raw files where these are no TOML."""
    found = _found(_desk(request))
    try:
        sheet = read_sheet(found.texts)
    except SheetError as error:
        return _files_page(request, found.texts, found, problems=error.problems)
    return _forms_page(request, sheet, found, saved=request.query_params.get("saved") == "yes")


def show_files(request: Request) -> Response:
    """Both files as text."""
    found = _found(_desk(request))
    return _files_page(request, found.texts, found)


def show_backups(request: Request) -> Response:
    """What can be restored."""
    return page(request, "configuration_backups.html", backups=_desk(request).backups())


async def take_forms(request: Request) -> Response:
    """Add or remove a row, or judge what was entered."""
    form, desk = await request.form(), _desk(request)
    found = await run_in_threadpool(_found, desk)
    sheet, pressed = _sheet(form), _text(form, "do")
    if pressed.startswith("add-") and (table := pressed.removeprefix("add-")) in ROWS:
        sheet.rows[table].append(Row(values={kind.key: kind.absent for kind in ROWS[table]}))
        return _forms_page(request, sheet, found, digest=_text(form, "digest"))
    try:
        texts = write_sheet(found.texts, sheet)
    except SheetError as error:
        return _forms_page(request, sheet, found, problems=error.problems, digest=_text(form, "digest"))
    verdict = await run_in_threadpool(desk.judge, texts)
    if verdict.problems:
        return _forms_page(request, sheet, found, problems=verdict.problems, digest=_text(form, "digest"))
    return _review(request, texts, found, verdict, moved_on=_text(form, "digest") != found.digest)


async def take_files(request: Request) -> Response:
    """Judge both files as they were entered as text."""
    form, desk = await request.form(), _desk(request)
    found = await run_in_threadpool(_found, desk)
    texts = _texts(form)
    verdict = await run_in_threadpool(desk.judge, texts)
    if verdict.problems:
        return _files_page(request, texts, found, problems=verdict.problems, digest=_text(form, "digest"))
    return _review(request, texts, found, verdict, moved_on=_text(form, "digest") != found.digest)


async def take_backup(request: Request) -> Response:
    """Judge a backup, to be saved in place of the files."""
    form, desk = await request.form(), _desk(request)
    found = await run_in_threadpool(_found, desk)
    try:
        texts = await run_in_threadpool(desk.backup, _text(form, "name"))
    except KeyError:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no backup of this name.") from None
    except ConfigError as error:
        raise HTTPException(status.HTTP_409_CONFLICT, f"{error}.") from None
    verdict = await run_in_threadpool(desk.judge, texts)
    if verdict.problems:
        return _files_page(request, texts, found, problems=verdict.problems)
    return _review(request, texts, found, verdict)


async def save(request: Request) -> Response:
    """Write what was reviewed."""
    form, desk = await request.form(), _desk(request)
    texts, actor = _texts(form), visitor_of(request).name

    def attempt() -> Response:
        outcome = desk.save(texts, digest=_text(form, "digest"), actor=actor)
        if outcome.done:
            return RedirectResponse("/configuration?saved=yes", status_code=status.HTTP_303_SEE_OTHER)
        found = _found(desk)
        if outcome.moved_on:
            return _review(request, texts, found, desk.judge(texts), moved_on=True)
        problems = (ConfigurationProblem(key="", sentence=outcome.sentence),)
        digest, code = _text(form, "digest"), status.HTTP_409_CONFLICT
        return _files_page(request, texts, found, problems=problems, digest=digest, code=code)

    return await run_in_threadpool(attempt)


def _forms_page(
    request: Request,
    sheet: Sheet,
    found: FoundConfiguration,
    *,
    problems: tuple[ConfigurationProblem, ...] = (),
    digest: str = "",
    saved: bool = False,
) -> Response:
    """The forms; `digest` is of the files that the page was first made from, if that was another one."""
    return page(
        request,
        "configuration.html",
        status_code=status.HTTP_422_UNPROCESSABLE_CONTENT if problems else status.HTTP_200_OK,
        sheet=sheet,
        scalars=SCALARS,
        tables={name: (TITLES[name], PLACES[name], kinds) for name, kinds in ROWS.items()},
        found=found,
        digest=digest or found.digest,
        by_key=_by_key(problems),
        problems=problems,
        running=_desk(request).running(),
        saved=saved,
    )


def _files_page(
    request: Request,
    texts: ConfigurationTexts,
    found: FoundConfiguration,
    *,
    problems: tuple[ConfigurationProblem, ...] = (),
    digest: str = "",
    code: int = 0,
) -> Response:
    """Both files as text; `digest` as with the forms."""
    usual = status.HTTP_422_UNPROCESSABLE_CONTENT if problems else status.HTTP_200_OK
    return page(
        request,
        "configuration_files.html",
        status_code=code or usual,
        texts=texts,
        found=found,
        digest=digest or found.digest,
        problems=problems,
        running=_desk(request).running(),
    )


def _review(
    request: Request, texts: ConfigurationTexts, found: FoundConfiguration, verdict: Verdict, *, moved_on: bool = False
) -> Response:
    """What would come of the change, and the button that makes it; `moved_on`: the files changed meanwhile."""
    return page(
        request,
        "configuration_review.html",
        status_code=status.HTTP_409_CONFLICT if moved_on else status.HTTP_200_OK,
        texts=texts,
        found=found,
        verdict=verdict,
        moved_on=moved_on,
        differences=_differences(found, texts),
    )


def _differences(found: FoundConfiguration, texts: ConfigurationTexts) -> list[tuple[str, str]]:
    """Changed lines of both files as (sort, line); the sort is "+", "-", "@" or " "."""
    lines: list[str] = []
    for path, old, new in (
        (found.settings_path, found.texts.settings, texts.settings),
        (found.rules_path, found.texts.rules, texts.rules),
    ):
        lines += difflib.unified_diff(old.splitlines(), new.splitlines(), path, path, lineterm="", n=2)
    return [(line[0] if line[:3] not in ("+++", "---") else "@", line) for line in lines]


def _by_key(problems: tuple[ConfigurationProblem, ...]) -> Mapping[str, list[str]]:
    """Sentences by the field they belong to, without the key that they begin with."""
    found: dict[str, list[str]] = {}
    for one in problems:
        found.setdefault(one.key, []).append(one.sentence.removeprefix(f"{one.key}: "))
    return found


def _sheet(form: FormData) -> Sheet:
    """What stands in the fields; a row whose "remove" was pressed or checked is left out."""
    sheet = Sheet(scalars={kind.key: _text(form, kind.key) for kind in SCALARS})
    for table, kinds in ROWS.items():
        rows = []
        for number in range(_count(form, table)):
            if _text(form, f"{table}-{number}-remove") or _text(form, "do") == f"remove-{table}-{number}":
                continue
            origin = _text(form, f"{table}-{number}-origin")
            values = {kind.key: _text(form, f"{table}-{number}-{kind.key}") for kind in kinds}
            rows.append(Row(origin=int(origin) if origin.isdecimal() and len(origin) < 6 else None, values=values))
        sheet.rows[table] = rows
    return sheet


def _count(form: FormData, table: str) -> int:
    """How many rows the form has. One that does not say so, or has too many, would remove the others from the file."""
    text = _text(form, f"{table}-count")
    if not text.isdecimal() or len(text) > 5:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "The form is not whole; open the page anew.")
    if int(text) > MAX_ROWS:
        sentence = f"{TITLES[table]}: a form takes at most {MAX_ROWS} entries; edit the files instead."
        raise HTTPException(status.HTTP_413_CONTENT_TOO_LARGE, sentence)
    return int(text)


def _texts(form: FormData) -> ConfigurationTexts:
    """Both files from the form, with the line ends of a text file: browsers send CR LF."""
    return ConfigurationTexts(settings=_text(form, "settings"), rules=_text(form, "rules"))


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    if not isinstance(value, str) or len(value) > MAX_CHARACTERS:
        raise HTTPException(status.HTTP_413_CONTENT_TOO_LARGE, "That is more text than a configuration file has.")
    return value.replace("\r\n", "\n")


def _found(desk: ConfigurationDesk) -> FoundConfiguration:
    """The files now; a page that says why not, in words, where they cannot be read."""
    try:
        return desk.found()
    except ConfigError as error:
        raise HTTPException(status.HTTP_409_CONFLICT, f"{error}.") from None


def _desk(request: Request) -> ConfigurationDesk:
    desk = parts_of(request).configuration
    if desk is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "This node was started without a configuration file.")
    return desk
