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


@dataclass(frozen=True, kw_only=True)
class Doors:
    """Where the viewer listens, and where a person who is not signed in is sent.

    `dashboard_url` is called with the host's name as it stands in the browser's address.
    """

    host: str
    dashboard_url: Callable[[str], str]

    @property
    def on_this_machine_only(self) -> bool:
        """Whether no other machine can connect."""
        return self.host in LOOPBACK


class SessionGate:
    """Lets in whoever is signed in at the dashboard; while the node has no users, whoever sits at this machine.

    Parameters
    ----------
    open_without_users
        Whether a node without any user shows its viewer at all; only for a viewer on the loopback address.
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
        self._checked: dict[str, float] = {}
        self._lock = threading.Lock()

    def may_look(self, request: Request) -> bool:
        """Whether this request may see images; asks the database, so not for the event loop."""
        token, now = request.cookies.get(cookie_name(request), ""), self._clock()
        with self._lock:
            checked = self._checked.get(token)
        if checked is not None and 0 <= now - checked < TRUSTED_FOR_S:
            return True
        if not self._found(token, now):
            return False
        with self._lock:
            if len(self._checked) >= MAX_REMEMBERED:
                self._checked.clear()
            self._checked[token] = now
        return True

    def _found(self, token: str, now: float) -> bool:
        if token and self._sessions.visitor(token, at=now) is not None:
            return True
        return self._open_without_users and self._users.count() == 0
