"""Real receivers of notices on loopback ports: a mail server and an HTTP server that keep what they get."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP as SMTP_POLICY
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from free_ports import free_port


@dataclass
class MailServer:
    """What a mail server got, and how it answers: `answer` is its reply to the message."""

    answer: str = "250 OK"
    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        if self.answer.startswith("2"):
            content = envelope.content
            assert isinstance(content, bytes)
            self.raw.append(content)
            self.mails.append(BytesParser(policy=SMTP_POLICY).parsebytes(content))
            self.recipients += envelope.rcpt_tos
        return self.answer

    def sign_in(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, login: LoginPassword) -> AuthResult:
        self.users.append(login.login.decode())
        return AuthResult(success=login.password == b"s3cret", handled=False)

    @contextmanager
    def listening(self, *, tls: ssl.SSLContext | None = None) -> Iterator[MailServer]:
        self.port = self.port or free_port()
        controller = Controller(
            self,
            hostname="localhost",
            port=self.port,
            tls_context=tls,
            require_starttls=tls is not None,
            authenticator=self.sign_in,
            auth_required=tls is not None,
        )
        controller.start()
        try:
            yield self
        finally:
            controller.stop()


@dataclass
class HookServer:
    """What an HTTP server got, and the status it answers with."""

    status: int = 200
    port: int = 0
    documents: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @contextmanager
    def listening(self) -> Iterator[HookServer]:
        keeper = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                keeper.documents.append(json.loads(body))
                keeper.headers.append(dict(self.headers.items()))
                self.send_response(keeper.status)
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()

            def log_message(self, *_words: Any) -> None:
                """Say nothing."""

        self.port = self.port or free_port()
        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
