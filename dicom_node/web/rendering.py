"""Pages from templates. Everything is escaped; nothing that came with an image is ever a template or a markup."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from dicom_node import __version__
from dicom_node.web.access import Role, parts_of
from dicom_node.web.plain_words import plain

THEMES: Final = ("auto", "light", "dark")
THEME_COOKIE: Final = "hydrops_theme"
_DATE: Final = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")


def page(request: Request, template: str, *, status_code: int = 200, **context: Any) -> HTMLResponse:
    """The page that `template` (a file in web/templates) makes of `context`.

    Every template also knows `visitor` (None when nobody is signed in), `csrf_token`, `theme`, `path`, `node_name`,
    `version`, `now` (POSIX seconds) and `Role`.
    """
    parts = parts_of(request)
    visitor = getattr(request.state, "visitor", None)
    theme = request.cookies.get(THEME_COOKIE, "")
    text = (
        templates()
        .get_template(template)
        .render(
            visitor=visitor,
            csrf_token="" if visitor is None else visitor.csrf_token,
            theme=theme if theme in THEMES else THEMES[0],
            path=request.url.path,
            node_name=parts.node_name,
            version=__version__,
            now=parts.clock(),
            Role=Role,
            **context,
        )
    )
    return HTMLResponse(text, status_code=status_code)


@cache
def templates() -> Environment:
    """All templates of the dashboard, with their filters."""
    environment = Environment(
        loader=PackageLoader("dicom_node.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(when=when, age=age, iso=iso, day=day, plain=plain, whole_dates=whole_dates)
    return environment


def when(at: float) -> str:
    """POSIX seconds as local date and time."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def iso(at: float) -> str:
    """POSIX seconds for the `datetime` attribute of <time>."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def day(date: str) -> str:
    """A DICOM date as 2026-11-22; anything else as it is."""
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdecimal() else date


def whole_dates(text: str) -> Markup:
    """A sentence as HTML whose dates are not broken after a hyphen at the end of a line."""
    return Markup(_DATE.sub(r'<span class="whole">\g<0></span>', str(escape(text))))  # noqa: S704 - escaped just here


def age(seconds: float) -> str:
    """How long ago, in the largest unit that is at least one: "8 s", "5 min", "3 h", "12 d"."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"
