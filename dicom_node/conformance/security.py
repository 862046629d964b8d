"""Section 8 and annex A.C of the statement: what protects associations, and what does not."""

from __future__ import annotations

from dicom_node.audit.events import KINDS
from dicom_node.conformance.tables import paragraphs, table
from dicom_node.dicom_tls import CIPHERS
from dicom_node.settings.sections import ListenerSettings, ViewerSettings, WebSettings


def security_section() -> str:
    """Section 8."""
    ports = [
        ("Listener", str(ListenerSettings().port), "DICOM, in"),
        ("Health, wake-up and dashboard", str(WebSettings().port), "HTTP(S), in"),
        ("Viewer", str(ViewerSettings().port), "HTTP(S), in"),
        ("Sender", "the destination's", "DICOM or HTTP(S), out"),
        ("Notices, if there are any", "the mail server's or webhook's", "SMTP or HTTP(S), out"),
    ]
    profiles = [
        ("8.4.1 Secure Use, User Identity", "none"),
        ("8.4.2 Secure Transport Connection", "BCP 195 TLS (PS3.15 B.12), off by default; A.C.2"),
        ("8.4.3 Media Storage Security", "none"),
        ("8.4.4 Attribute Confidentiality (de-identification)", "none"),
        ("8.4.5 Digital Signature", "none"),
        ("8.4.6 Audit Trail Message Format (PS3.15 A.5)", "messages are kept locally; not transmitted by syslog"),
    ]
    return paragraphs(
        "## 8 Security",
        "### 8.1 Introduction",
        "By default associations are not encrypted and the node listens to its own machine alone. Whoever opens it to "
        "a network protects that network or switches TLS on.",
        "### 8.2 External network requirements",
        "Host names of destinations need DNS. The node keeps the system's time; let the system synchronize it (NTP).",
        "### 8.3 TCP port configuration",
        table(("Port of", "Default", "Use"), ports),
        "### 8.4 DICOM security profiles",
        table(("Profile", "Support"), profiles),
        "### 8.5 User Identity Negotiation",
        "Neither proposed nor accepted.",
        "### 8.6 Web services security features",
        "No DICOM web service is offered. Dashboard and viewer share accounts with roles and serve HTTPS "
        "([Configuration](configuration.md)).",
        "### 8.7 Other security features",
        "Callers are checked by calling AE title, address and called AE title before anything else of theirs is read; "
        "nobody is allowed by default. Sizes, nesting, time and number of connections are bounded. Logs hold UIDs and "
        "AE titles, no patient's name or ID.",
    )


def security_annex() -> str:
    """A.C: details of TLS and of the audit trail."""
    events = sorted({(kind.event.value, kind.event.meaning) for kind in KINDS.values()})
    types = {
        event: sorted(
            {
                f"{kind.type.meaning} ({kind.type.value})"
                for kind in KINDS.values()
                if kind.type and kind.event.value == event
            }
        )
        for event, _ in events
    }
    return paragraphs(
        "## A.C Security details",
        "### A.C.1 External network requirement details",
        "None of the profiles for network address management, time synchronization or application configuration.",
        "### A.C.2 DICOM security profile details",
        f"TLS, both ways: 1.2 at least, 1.3 preferred; for 1.2 the cipher suites {CIPHERS}. The sender checks chain, "
        "dates and name of the receiver's certificate, and shows its own where it has one. The listener demands a "
        "certificate of its peers when `listener.tls_client_ca` is set, and can bind an AE title to one certificate. "
        "Renewed certificates count from the next connection on.",
        "Audit messages (PS3.15 A.5.3) that the node writes; with `audit.syslog_host` it also sends them to an audit "
        "record repository, by syslog over TLS (PS3.15 A.6, RFC 5424, RFC 5425):",
        table(
            ("Event (CID 400)", "Meaning", "Types"), [(value, name, "; ".join(types[value])) for value, name in events]
        ),
    )
