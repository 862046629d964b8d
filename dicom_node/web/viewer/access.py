"""Who may look: the dashboard's session opens the viewer too, for cookies are shared between the ports of a host."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastapi import Request

from dicom_node.accounts.sessions import Sessions
from dicom_node.accounts.users import Users
from dicom_node.web.access import cookie_name

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

TRUSTED_FOR_S: Final = 2.0
"""A study is some hundred requests within seconds; each asks the database again only after this long."""

MAX_REMEMBERED: Final = 1000


NOBODY: Final = "nobody signed in"
"""Who looks, in the audit trail, while the node has no users."""


@dataclass(frozen=True, kw_only=True)
class Onlooker:
    """Who looks: a user's name and the session, which is no secret."""

    name: str
    session_id: str


@dataclass(frozen=True, kw_only=True)
class Doors:
    """Where the viewer listens, and where a person who is not signed in is sent.

    `dashboard_url` is called with the host's name as it stands in the browser's address; where the answer is empty,
    that person gets a sentence instead. `proxy_name` is the name under which a proxy on this machine shows the viewer.
    """

    host: str
    dashboard_url: Callable[[str], str]
    proxy_name: str = ""

    def are_for(self, name: str) -> bool:
        """Whether the viewer answers under this name. On the loopback address another site's name could lead to it, and
        that site would read images through its visitor's browser."""
        return self.host not in LOOPBACK or name in LOOPBACK or (bool(name) and name == self.proxy_name)


class SessionGate:
    """Lets in whoever is signed in at the dashboard; while the node has no users, whoever sits at this machine.

    Parameters
    ----------
    open_without_users
        Whether a node without any user shows its viewer at all; only for a viewer that nobody else can reach.
    clock
        Seconds since 1970.
    """

    def __init__(
        self,
        users: Users,
        sessions: Sessions,
        *,
        open_without_users: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._open_without_users = open_without_users
        self._clock = clock
        self._checked: dict[str, tuple[float, Onlooker]] = {}
        self._lock = threading.Lock()

    def onlooker(self, request: Request) -> Onlooker | None:
        """Who may see images by this request, or None; asks the database, so not for the event loop."""
        token, now = request.cookies.get(cookie_name(request), ""), self._clock()
        with self._lock:
            checked = self._checked.get(token)
        if checked is not None and 0 <= now - checked[0] < TRUSTED_FOR_S:
            return checked[1]
        found = self._found(token, now)
        if found is None:
            return None
        with self._lock:
            if len(self._checked) >= MAX_REMEMBERED:
                self._checked.clear()
            self._checked[token] = now, found
        return found

    def _found(self, token: str, now: float) -> Onlooker | None:
        visitor = self._sessions.visitor(token, at=now) if token else None
        if visitor is not None:
            return Onlooker(name=visitor.name, session_id=visitor.session_id)
        if self._open_without_users and self._users.count() == 0:
            return Onlooker(name=NOBODY, session_id="")
        return None
