"""A dashboard on a real server and a real SQLite database, and people who are signed in."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
from argon2 import PasswordHasher
from patience import PATIENCE_S, wait_until

from dicom_node.accounts.pauses import SignInPauses
from dicom_node.accounts.roles import Role
from dicom_node.accounts.searches import Searches
from dicom_node.accounts.sessions import SessionLimits, Sessions
from dicom_node.accounts.users import Users
from dicom_node.audit import AuditTrail
from dicom_node.database import open_database
from dicom_node.delivery.outbox import Outbox
from dicom_node.ledger import Ledger
from dicom_node.reviews import Reviews
from dicom_node.study_actions import StudyActions
from dicom_node.study_cards import StudyCards
from dicom_node.study_requests import StudyRequests
from dicom_node.web.app import create_app
from dicom_node.web.node_health import HealthSnapshot
from dicom_node.web.parts import WebParts

PASSWORD: Final = "correct horse battery"
PEOPLE: Final[Mapping[str, Role]] = {"vera": Role.VIEWER, "rita": Role.READER, "ada": Role.ADMIN}

QUICK_HASHES: Final = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
"""Argon2id all the same, but not a tenth of a second for each of many sign-ins."""

WELL: Final = HealthSnapshot(
    listener_up=True,
    database_ok=True,
    disk_free_bytes=10_000_000_000,
    min_free_bytes=5_000_000_000,
    worker_heartbeat_age_s=1.0,
)


class WellNode:
    """A node without problems."""

    def snapshot(self) -> HealthSnapshot:
        return WELL


def make_parts(folder: Path, *, people: Mapping[str, Role] = PEOPLE, **changes: Any) -> WebParts:
    """The parts of a dashboard on a fresh SQLite database in `folder`; `changes` replaces any of them."""
    engine = open_database(f"sqlite:///{folder / 'node.db'}")
    users = Users(engine, hasher=QUICK_HASHES)
    for name, role in people.items():
        users.add(name, role, PASSWORD, at=0.0)
    ledger, outbox, audit = Ledger(engine), Outbox(folder / "outbox", engine), AuditTrail(folder / "audit")
    destinations = changes.get("destinations", ("pacs",))
    actions = StudyActions(
        ledger=ledger, requests=StudyRequests(engine), outbox=outbox, audit=audit, destinations=destinations
    )
    found: dict[str, Any] = {
        "engine": engine,
        "state_dir": folder,
        "ledger": ledger,
        "outbox": outbox,
        "cards": StudyCards(engine),
        "reviews": Reviews(engine),
        "searches": Searches(engine),
        "audit": audit,
        "actions": actions,
        "destinations": destinations,
        "users": users,
        "sessions": Sessions(engine, SessionLimits()),
        "pauses": SignInPauses(engine),
        "health": WellNode(),
        "wake": lambda: None,
        "wake_token": "",
    }
    return WebParts(**found | changes)


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """A dashboard that runs: its address, and what it was built from."""

    url: str
    parts: WebParts

    def client(self, name: str | None = None, password: str = PASSWORD) -> httpx.Client:
        """A client as a browser would be; signed in as `name` unless that is None."""
        client = httpx.Client(base_url=self.url, headers={"Accept": "text/html"}, timeout=PATIENCE_S)
        if name is not None:
            answer = sign_in(client, name, password)
            assert answer.status_code == 303, answer.text
        return client


@contextmanager
def serving(parts: WebParts) -> Iterator[Dashboard]:
    """The dashboard over HTTP on a free port of the loopback."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(parts), log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield Dashboard(url=f"http://127.0.0.1:{listening.getsockname()[1]}", parts=parts)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listening.close()
        parts.engine.dispose()


def sign_in(client: httpx.Client, name: str, password: str = PASSWORD, **fields: str) -> httpx.Response:
    """Fill in the sign-in form and send it; does not follow where it leads."""
    form = client.get("/sign-in")
    token = hidden(form.text, "form_token")
    return client.post("/sign-in", data={"name": name, "password": password, "form_token": token, **fields})


def hidden(html: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', html)
    assert found, f"no hidden field {name!r}"
    return found[1]


def post(client: httpx.Client, path: str, page: str = "/studies", **fields: str) -> httpx.Response:
    """Send a form with the CSRF token that `page` carries."""
    token = hidden(client.get(page).text, "csrf_token")
    return client.post(path, data={"csrf_token": token, **fields})


def text_of(html: str) -> str:
    """What a person reads, in one line."""
    body = html[html.index("<main") : html.index("</main>")]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())
