"""Mails over STARTTLS, and headers that nobody can add a line to."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from certificates import Authority
from notice_receivers import MailServer

from dicom_node.dicom_tls import client_context
from dicom_node.notices.channels import MailChannel, MailEncryption, NoticeNotSent, written_mail
from dicom_node.notices.digest import Digest, DigestOptions, digest
from dicom_node.notices.notice import Notice, NoticeKind

RECIPIENTS = ("admin@hospital.org",)


def message(**more: str) -> Digest:
    notice = Notice(number=1, kind=NoticeKind.STUDY_REFUSED, at=0.0, text="Refused.", study_instance_uid="2.25.1")
    return digest([notice], DigestOptions(node_name="Hydrops Node", **more))  # type: ignore[arg-type]


def channel(port: int, *, trust: Path | None = None, password: str = "s3cret") -> MailChannel:
    return MailChannel(
        host="localhost",
        port=port,
        encryption=MailEncryption.STARTTLS,
        sender="node@hospital.org",
        recipients=RECIPIENTS,
        username="node",
        password=password,
        trust=None if trust is None else client_context(ca=trust),
    )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("mail"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    signed = authority.sign("mail")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.certificate, signed.key)
    return context


def test_a_mail_goes_encrypted_and_signed_in(authority: Authority, tls: ssl.SSLContext) -> None:
    with MailServer().listening(tls=tls) as server:
        channel(server.port, trust=authority.certificate).send(message())
    assert [mail["To"] for mail in server.mails] == list(RECIPIENTS)
    assert server.users == ["node"]


def test_a_certificate_that_nobody_vouches_for_gets_no_password(tls: ssl.SSLContext) -> None:
    with MailServer().listening(tls=tls) as server, pytest.raises(NoticeNotSent, match="SSLCertVerificationError"):
        channel(server.port).send(message())
    assert server.users == []


def test_a_server_without_starttls_gets_no_password() -> None:
    with MailServer().listening() as server, pytest.raises(NoticeNotSent, match="SMTPNotSupportedError"):
        channel(server.port).send(message())
    assert server.users == []
    assert server.mails == []


def test_a_wrong_password_is_told_by_its_number_and_not_by_its_letters(
    authority: Authority, tls: ssl.SSLContext
) -> None:
    with MailServer().listening(tls=tls) as server, pytest.raises(NoticeNotSent, match="answered 535") as told:
        channel(server.port, trust=authority.certificate, password="wr0ng").send(message())
    assert "wr0ng" not in str(told.value)


def test_a_password_that_mail_cannot_carry_is_a_message_not_sent_and_no_end_of_all_messages(
    authority: Authority, tls: ssl.SSLContext
) -> None:
    with MailServer().listening(tls=tls) as server, pytest.raises(NoticeNotSent, match="UnicodeEncodeError"):
        channel(server.port, trust=authority.certificate, password="schlüssel").send(message())


def test_a_server_that_refuses_the_message_has_not_got_it(authority: Authority, tls: ssl.SSLContext) -> None:
    with (
        MailServer(answer="452 disk full").listening(tls=tls) as server,
        pytest.raises(NoticeNotSent, match="answered 452"),
    ):
        channel(server.port, trust=authority.certificate).send(message())


HOSTILE = "Evil^Name\r\nBcc: thief@evil.org\r\n\r\n<script>alert(1)</script>"


def test_a_hostile_name_in_the_body_adds_no_header_and_no_recipient() -> None:
    mail = written_mail(message(patient=lambda _uid: HOSTILE), sender="node@hospital.org", recipients=RECIPIENTS)
    assert mail["Bcc"] is None
    assert mail["To"] == "admin@hospital.org"
    head, _, body = mail.as_bytes().partition(b"\n\n")
    assert b"thief" not in head
    assert b"Evil" in body
    assert mail.get_content_type() == "text/plain"


@pytest.mark.parametrize("sender", ["node@hospital.org\r\nBcc: thief@evil.org", "node@hospital.org\nX: y"])
def test_a_line_end_in_a_header_is_refused(sender: str) -> None:
    with pytest.raises(ValueError, match="linefeed or carriage return"):
        written_mail(message(), sender=sender, recipients=RECIPIENTS)


def test_a_link_leads_to_the_study_and_nowhere_else() -> None:
    notice = Notice(number=1, kind=NoticeKind.STUDY_FAILED, at=0.0, text="x", study_instance_uid="1.2/../../x?y#z")
    made = digest([notice], DigestOptions(node_name="N", dashboard_url="https://hydrops.hospital.org/"))
    assert "https://hydrops.hospital.org/studies/1.2%2F..%2F..%2Fx%3Fy%23z" in made.text
