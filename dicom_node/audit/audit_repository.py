"""The audit record repository: a syslog server that is reached by TLS (RFC 5425), as PS3.15 A.6 wants it.

Syslog has no acknowledgment. What comes closest is the end of the TLS session (`tls_session.py`): it tells whether the
server has read every byte before it. So a batch is one session, and only a session that ended so counts.
What a server loses after reading is beyond what this protocol can tell.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicom_node.audit.audit_xml import written_as_xml
from dicom_node.audit.entry import AuditEntry
from dicom_node.audit.tls_session import TlsSession
from dicom_node.dicom_tls import client_context
from dicom_node.errors import ConfigError, TransientError

TIMEOUT_S: Final = 20.0
MESSAGE_ID: Final = "DICOM+RFC3881"
"""What PS3.15 A.6 puts into MSGID."""

APPLICATION: Final = "hydrops-node"
_FACILITY: Final = 10  # security and authorization messages (RFC 5424 table 1)
_SEVERITIES: Final = {"0": 5, "4": 4, "8": 3, "12": 2}  # notice, warning, error, critical: by EventOutcomeIndicator
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"  # says that MSG is UTF-8 (RFC 5424 6.4)
_NAME_FORM: Final = re.compile(r"[!-~]{1,255}")


class RepositoryUnavailable(TransientError):
    """The server was not there, not who it should be, or did not read everything; the message says which."""


@dataclass(frozen=True, kw_only=True)
class AuditRepository:
    """One syslog server. `ca` None trusts the system's authorities; `certificate` and `key` are what we show."""

    host: str
    port: int
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def send(self, entries: Sequence[AuditEntry]) -> None:
        """Send entries in their order in one TLS session; returns when the server has read them all.

        Raises
        ------
        RepositoryUnavailable
            If it cannot be known that the server has read all of them; some of them it may have.
        """
        sender = machine_name()
        try:
            with socket.create_connection((self.host, self.port), timeout=TIMEOUT_S) as connection:
                session = TlsSession(connection, self.context(), server_name=self.host)
                session.send(b"".join(framed(syslog_message(one, host_name=sender)) for one in entries))
                session.end()
        except ssl.SSLCertVerificationError as error:
            raise RepositoryUnavailable(f"{self._name}: its certificate: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise RepositoryUnavailable(f"{self._name}: TLS: {error.reason or type(error).__name__}") from None
        except OSError as error:
            raise RepositoryUnavailable(f"{self._name}: {error.strerror or type(error).__name__}") from None
        except ConfigError as error:
            raise RepositoryUnavailable(str(error)) from None

    def context(self) -> ssl.SSLContext:
        """A fresh context, so that renewed files count from the next session on.

        Raises
        ------
        ConfigError
            If a file is missing or is no PEM, or certificate and key do not belong together; names the file.
        """
        return client_context(ca=self.ca, certificate=self.certificate, key=self.key)

    @property
    def _name(self) -> str:
        return f"audit repository {self.host}:{self.port}"


def framed(message: bytes) -> bytes:
    """One message behind its length in bytes (octet counting, RFC 5425 4.3)."""
    return b"%d " % len(message) + message


def syslog_message(entry: AuditEntry, *, host_name: str) -> bytes:
    """One entry as RFC 5424 wants it; `sequenceId` lets the repository see what is missing or came twice."""
    event = entry.message["EventIdentification"]
    priority = _FACILITY * 8 + _SEVERITIES[event["EventOutcomeIndicator"]]
    process = next(one["UserID"] for one in entry.message["ActiveParticipant"] if "AlternativeUserID" in one)
    header = (
        f"<{priority}>1 {event['EventDateTime']} {host_name} {APPLICATION} {process} {MESSAGE_ID} "
        f'[meta sequenceId="{entry.sequence}"] '
    )
    return header.encode("ascii") + _BYTE_ORDER_MARK + written_as_xml(entry.message)


def machine_name() -> str:
    """HOSTNAME of RFC 5424 6.2.4: printable ASCII without spaces, or "-" when there is no such name."""
    name = socket.gethostname()
    return name if _NAME_FORM.fullmatch(name) else "-"
