"""How a message leaves: by mail (SMTP) or by a webhook (HTTP POST). Both raise one error, and both have time limits."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate
from enum import StrEnum
from typing import Final, Protocol

import requests

from dicom_node.errors import TransientError
from dicom_node.notices.digest import Digest

TIMEOUT_S: Final = 20.0


class NoticeNotSent(TransientError):
    """The receiver was not there or did not take it; the message says which one and what it answered, no content."""


class Channel(Protocol):
    """A way out. `name` keeps its place in the book, so it never changes."""

    @property
    def name(self) -> str:
        """Such as "mail"."""
        ...

    def send(self, message: Digest) -> None:
        """Send one message.

        Raises
        ------
        NoticeNotSent
            If the receiver did not confirm it.
        """
        ...


class MailEncryption(StrEnum):
    """STARTTLS upgrades a plain connection (port 587), TLS starts encrypted (port 465), NONE stays plain."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class MailChannel:
    """One mail server. With a `username` the node signs in."""

    host: str
    port: int
    encryption: MailEncryption
    sender: str
    recipients: tuple[str, ...]
    username: str = ""
    password: str = field(default="", repr=False)
    trust: ssl.SSLContext | None = None
    """Whose certificates count; None: the system's authorities."""

    @property
    def name(self) -> str:
        """Of this channel."""
        return "mail"

    def send(self, message: Digest) -> None:
        """Send one mail to all recipients; a server that refuses one of them refuses the message."""
        try:
            mail = written_mail(message, sender=self.sender, recipients=self.recipients)
            with self._connected() as server:
                if self.username:
                    server.login(self.username, self.password)
                refused = server.send_message(mail)
        except smtplib.SMTPResponseException as error:
            raise NoticeNotSent(f"mail server {self.host}:{self.port} answered {error.smtp_code}") from error
        except (smtplib.SMTPException, OSError, ValueError) as error:  # ValueError: a password that is not ASCII
            raise NoticeNotSent(f"mail server {self.host}:{self.port}: {type(error).__name__}") from error
        if refused:
            raise NoticeNotSent(f"mail server {self.host}:{self.port} refused {len(refused)} of the recipients")

    def _connected(self) -> smtplib.SMTP:
        context = self.trust or ssl.create_default_context()
        if self.encryption is MailEncryption.TLS:
            return smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_S, context=context)
        server = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S)
        if self.encryption is MailEncryption.STARTTLS:
            try:
                server.starttls(context=context)  # raises where it is not offered: never plain by accident
            except (smtplib.SMTPException, OSError):
                server.close()
                raise
        return server


def written_mail(message: Digest, *, sender: str, recipients: tuple[str, ...]) -> EmailMessage:
    """The mail. Headers are made of our own words and the configuration; `EmailMessage` refuses line ends in them."""
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    mail["Subject"] = message.subject
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = f"<{message.identification}@{sender.rpartition('@')[2].rstrip('>')}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers, please
    mail.set_content(message.text)
    return mail


@dataclass(frozen=True, kw_only=True)
class WebhookChannel:
    """One HTTP(S) address that takes a JSON document; `token` goes along as a bearer token."""

    url: str
    token: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """Of this channel."""
        return "webhook"

    def send(self, message: Digest) -> None:
        """POST the document once. Redirects are not followed: notices go to the configured host only."""
        headers = {"Idempotency-Key": message.identification}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        session = requests.Session()
        session.trust_env = False
        try:
            with (
                session,
                session.post(
                    self.url,
                    json=message.document,
                    headers=headers,
                    timeout=TIMEOUT_S,
                    allow_redirects=False,
                    stream=True,
                ) as answer,
            ):
                status = answer.status_code
        except (requests.RequestException, ValueError) as error:  # ValueError: a token that no header can hold
            raise NoticeNotSent(f"webhook: {type(error).__name__}") from error
        if not 200 <= status < 300:
            raise NoticeNotSent(f"webhook answered HTTP {status}")
