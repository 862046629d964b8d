"""What settings must satisfy beyond their types: ranges, names that fit DICOM, keys that belong together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_network
from typing import Final

from dicom_node.settings.sections import (
    NOTICE_SUBJECTS,
    AllowedCaller,
    DestinationSettings,
    ListenerSettings,
    NoticeSettings,
    Settings,
)

# What the checks below call: (is it good?, the key, what was expected, what was found).
Require = Callable[[bool, str, str, object], None]


def problems_of(settings: Settings, secrets: Mapping[str, str]) -> Iterator[str]:
    """One sentence for every value that is of the right type but makes no sense."""
    found: list[str] = []

    def require(good: bool, key: str, expected: str, value: object) -> None:
        if not good:
            found.append(f"{key}: expected {expected}, found {value!r}")

    for check in _CHECKS:
        check(settings, require)
    _check_web(settings, secrets, require)
    _check_viewer(settings, require)
    yield from found


def _is_ae_title(text: str) -> bool:
    """PS3.5 6.2, VR AE: 1 to 16 characters of the default repertoire, no backslash or control, not only spaces."""
    return bool(re.fullmatch(r"[\x20-\x5b\x5d-\x7e]{1,16}", text)) and text == text.strip()


def _is_name(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text))


def _is_long_string(text: str) -> bool:
    """PS3.5 6.2, VR LO: at most 64 characters, no backslash, no control characters."""
    return len(text) <= 64 and text.isprintable() and "\\" not in text


def _is_http(text: str) -> bool:
    return bool(re.match(r"https?://[^/\s]", text))


def _is_mail_address(text: str) -> bool:
    """An address alone, without a name: letters that could end a header line have no place in it."""
    return bool(re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}", text))


def _is_sha256(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9A-Fa-f]{64}", text.replace(":", "")))


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


_AE_TITLE: Final = "an AE title of 1 to 16 printable characters"
_NAME: Final = "1 to 64 letters, digits, '-', '_' or '.'"
_OUTPUT_KINDS: Final = ("SEG", "SR", "SC", "PDF")
_PORT: Final = "1 to 65535"


def _check_node(s: Settings, require: Require) -> None:
    require(_is_ae_title(s.node.ae_title), "node.ae_title", _AE_TITLE, s.node.ae_title)
    require(bool(s.node.state_dir), "node.state_dir", "a folder", s.node.state_dir)
    require(_is_name(s.node.worker_id), "node.worker_id", _NAME, s.node.worker_id)
    require(bool(s.assembly.rules_file), "assembly.rules_file", "a file", s.assembly.rules_file)


def _check_listener(s: Settings, require: Require) -> None:
    one = s.listener
    require(bool(one.host), "listener.host", "an address of this machine, or 0.0.0.0 for all", one.host)
    require(0 < one.port < 65536, "listener.port", _PORT, one.port)
    require(1 <= one.max_associations <= 1000, "listener.max_associations", "1 to 1000", one.max_associations)
    per_ae = one.max_associations_per_ae
    require(1 <= per_ae <= 1000, "listener.max_associations_per_ae", "1 to 1000", per_ae)
    require(4096 <= one.max_pdu_bytes <= 1048576, "listener.max_pdu_bytes", "4096 to 1048576 bytes", one.max_pdu_bytes)
    enough = one.max_instance_bytes >= 1048576
    require(enough, "listener.max_instance_bytes", "at least 1048576 bytes", one.max_instance_bytes)
    require(one.min_free_bytes >= 0, "listener.min_free_bytes", "0 or more bytes", one.min_free_bytes)
    for key in ("acse_timeout_s", "dimse_timeout_s", "network_timeout_s"):
        _check_timeout(getattr(one, key), f"listener.{key}", require)
    for n, caller in enumerate(one.allowed):
        where = f"listener.allowed[{n}]"
        require(_is_ae_title(caller.ae_title), f"{where}.ae_title", _AE_TITLE, caller.ae_title)
        require(bool(caller.networks), f"{where}.networks", "at least one network", list(caller.networks))
        for network in caller.networks:
            require(_is_network(network), f"{where}.networks", "networks like 10.1.2.0/24", network)
        _check_binding(caller, where, one, require)
    titles = [caller.ae_title for caller in one.allowed]
    require(len(set(titles)) == len(titles), "listener.allowed", "every AE title once", titles)


def _check_binding(caller: AllowedCaller, where: str, listener: ListenerSettings, require: Require) -> None:
    """A certificate can be asked for only from a peer that has to show one."""
    text = caller.certificate_sha256
    if text:
        require(_is_sha256(text), f"{where}.certificate_sha256", "64 hexadecimal digits (SHA-256)", text)
        shown = bool(listener.tls_client_ca)
        require(shown, f"{where}.certificate_sha256", "listener.tls_client_ca, or no peer shows a certificate", text)


def _check_listener_tls(s: Settings, require: Require) -> None:
    one = s.listener
    together = bool(one.tls_certificate) == bool(one.tls_key)
    require(together, "listener.tls_key", "given together with listener.tls_certificate", one.tls_key)
    founded = not one.tls_client_ca or bool(one.tls_certificate)
    require(founded, "listener.tls_client_ca", "a listener.tls_certificate beside it", one.tls_client_ca)


def _check_timeout(value: float, key: str, require: Require) -> None:
    require(0 < value <= 3600, key, "more than 0 and at most 3600 s", value)


def _check_orthanc(s: Settings, require: Require) -> None:
    require(not s.orthanc.url or _is_http(s.orthanc.url), "orthanc.url", "http://... or https://...", s.orthanc.url)
    _check_timeout(s.orthanc.timeout_s, "orthanc.timeout_s", require)


def _check_numbers(s: Settings, require: Require) -> None:
    positive: list[tuple[str, float]] = [
        ("orthanc.poll_interval_s", s.orthanc.poll_interval_s),
        ("orthanc.reconcile_interval_s", s.orthanc.reconcile_interval_s),
        ("orthanc.reconcile_window_h", s.orthanc.reconcile_window_h),
        ("assembly.quiet_s", s.assembly.quiet_s),
        ("assembly.partner_wait_s", s.assembly.partner_wait_s),
        ("assembly.max_frames_per_series", s.assembly.max_frames_per_series),
        ("assembly.max_series_per_study", s.assembly.max_series_per_study),
        ("processing.max_shift_mm", s.processing.max_shift_mm),
        ("processing.max_rotation_deg", s.processing.max_rotation_deg),
        ("processing.time_limit_s", s.processing.time_limit_s),
        ("delivery.first_retry_s", s.delivery.first_retry_s),
        ("delivery.max_retry_s", s.delivery.max_retry_s),
        ("delivery.give_up_after_h", s.delivery.give_up_after_h),
    ]
    for key, value in positive:
        require(0 < value < float("inf"), key, "a finite number above 0", value)
    devices = ("cpu", "cuda")
    require(s.processing.device in devices, "processing.device", f"one of {', '.join(devices)}", s.processing.device)
    require(s.processing.threads >= 0, "processing.threads", "0 (all cores) or more", s.processing.threads)
    first, cap = s.delivery.first_retry_s, s.delivery.max_retry_s
    require(not first > cap, "delivery.max_retry_s", f"at least delivery.first_retry_s ({first:g} s)", cap)


def _check_results(s: Settings, require: Require) -> None:
    for key in ("segmentation_series_number", "report_series_number", "summary_series_number", "pdf_series_number"):
        number = getattr(s.results, key)
        require(0 < number < 2**31, f"results.{key}", "a number from 1 to 2147483647", number)
    for key in ("device_name", "device_serial_number"):
        text = getattr(s.results, key)
        require(bool(text) and _is_long_string(text), f"results.{key}", "1 to 64 characters, no '\\'", text)


def _check_destinations(s: Settings, require: Require) -> None:
    names = [one.name for one in s.destinations]
    require(len(set(names)) == len(names), "destinations", "every name once", names)
    for n, one in enumerate(s.destinations):
        where = f"destinations[{n}]"
        require(_is_name(one.name), f"{where}.name", _NAME, one.name)
        require(one.kind in ("dicom", "orthanc"), f"{where}.kind", '"dicom" or "orthanc"', one.kind)
        _check_timeout(one.timeout_s, f"{where}.timeout_s", require)
        for kind in one.send:
            require(kind in _OUTPUT_KINDS, f"{where}.send", " or ".join(_OUTPUT_KINDS), kind)
        require(len(set(one.send)) == len(one.send), f"{where}.send", "every kind once", list(one.send))
        require(one.done in ("sent", "committed"), f"{where}.done", '"sent" or "committed"', one.done)
        if one.kind == "dicom":
            require(bool(one.host), f"{where}.host", "a host name or address", one.host)
            require(0 < one.port < 65536, f"{where}.port", _PORT, one.port)
            require(_is_ae_title(one.called_ae), f"{where}.called_ae", _AE_TITLE, one.called_ae)
            _check_sender_tls(one, where, require)
        elif one.kind == "orthanc":
            require(_is_http(one.url), f"{where}.url", "http://... or https://...", one.url)
            require(one.done == "sent", f"{where}.done", '"sent": only a DICOM receiver can commit', one.done)


def _check_sender_tls(one: DestinationSettings, where: str, require: Require) -> None:
    together = bool(one.tls_certificate) == bool(one.tls_key)
    require(together, f"{where}.tls_key", "given together with tls_certificate", one.tls_key)
    for key in ("tls_ca", "tls_certificate", "tls_name"):
        value = getattr(one, key)
        require(one.tls or not value, f"{where}.{key}", "tls = true beside it", value)


MAX_DAYS: Final = 36500


def _check_retention(s: Settings, require: Require) -> None:
    one = s.retention
    for key in ("inputs_days", "results_days", "audit_days"):
        days = getattr(one, key)
        require(0 <= days <= MAX_DAYS, f"retention.{key}", f"0 (for good) to {MAX_DAYS} days", days)
    if one.inputs_days and s.orthanc.url:
        # A study that was erased inside the window would be fetched again, erased again, and so on.
        window = s.orthanc.reconcile_window_h
        beyond = f"0, or more days than orthanc.reconcile_window_h ({window:g} h) looks back for images to fetch again"
        require(one.inputs_days * 24 > window, "retention.inputs_days", beyond, one.inputs_days)
    if one.results_days:
        outlived = bool(one.inputs_days) and one.results_days >= one.inputs_days
        images = f"{one.inputs_days} days" if one.inputs_days else "for good"
        expected = f"0, or at least retention.inputs_days ({images}): images do not outlive their results"
        require(outlived, "retention.results_days", expected, one.results_days)


def _check_web(s: Settings, secrets: Mapping[str, str], require: Require) -> None:
    require(0 < s.web.port < 65536, "web.port", _PORT, s.web.port)
    guarded = s.web.host in ("127.0.0.1", "::1", "localhost") or bool(secrets.get("HYDROPS_WAKE_TOKEN"))
    require(guarded, "web.host", "127.0.0.1, or HYDROPS_WAKE_TOKEN set so that not everybody can wake us", s.web.host)
    together = bool(s.web.tls_certificate) == bool(s.web.tls_key)
    require(together, "web.tls_key", "both web.tls_certificate and web.tls_key, or neither", s.web.tls_key)
    for proxy in s.web.proxies:
        require(_is_network(proxy), "web.proxies", "addresses or networks like 10.1.2.3", proxy)
    for key in ("session_idle_s", "session_lifetime_s"):
        seconds = getattr(s.web, key)
        require(60 <= seconds <= 604800, f"web.{key}", "60 to 604800 s", seconds)


def _check_viewer(s: Settings, require: Require) -> None:
    one = s.viewer
    require(bool(one.host), "viewer.host", "an address of this machine, or 0.0.0.0 for all", one.host)
    require(0 < one.port < 65536, "viewer.port", _PORT, one.port)
    apart = not one.enabled or one.port != s.web.port
    require(apart, "viewer.port", f"another port than web.port ({s.web.port})", one.port)
    for key in ("address", "dicomweb_url"):
        url = getattr(one, key)
        require(not url or _is_http(url), f"viewer.{key}", "http://... or https://...", url)
    _check_timeout(one.timeout_s, "viewer.timeout_s", require)


def _check_notices(s: Settings, require: Require) -> None:
    one = s.notices
    for subject in one.about:
        require(subject in NOTICE_SUBJECTS, "notices.about", f"some of {', '.join(NOTICE_SUBJECTS)}", subject)
    require(10 <= one.every_s <= 86400, "notices.every_s", "10 to 86400 s", one.every_s)
    links = not one.dashboard_url or _is_http(one.dashboard_url)
    require(links, "notices.dashboard_url", "http://... or https://...", one.dashboard_url)
    hooks = not one.webhook_url or _is_http(one.webhook_url)
    require(hooks, "notices.webhook_url", "http://... or https://...", one.webhook_url)
    secret = not (one.include_patient and one.webhook_url.startswith("http://"))
    require(secret, "notices.webhook_url", "https://... where include_patient is true", one.webhook_url)
    if one.mail_host:
        _check_mail(one, require)


def _check_mail(one: NoticeSettings, require: Require) -> None:
    require(0 < one.mail_port < 65536, "notices.mail_port", _PORT, one.mail_port)
    known = one.mail_encryption in ("starttls", "tls", "none")
    require(known, "notices.mail_encryption", '"starttls", "tls" or "none"', one.mail_encryption)
    plain = one.mail_encryption == "none"
    require(not (plain and one.mail_username), "notices.mail_encryption", "one that hides the password", "none")
    require(not (plain and one.include_patient), "notices.mail_encryption", "one that hides the patient", "none")
    require(_is_mail_address(one.mail_from), "notices.mail_from", "one address like node@hospital.org", one.mail_from)
    require(bool(one.mail_to), "notices.mail_to", "at least one address", list(one.mail_to))
    for address in one.mail_to:
        require(_is_mail_address(address), "notices.mail_to", "addresses like admin@hospital.org", address)


def _check_audit(s: Settings, require: Require) -> None:
    one = s.audit
    require(0 < one.syslog_port < 65536, "audit.syslog_port", _PORT, one.syslog_port)
    together = bool(one.syslog_certificate) == bool(one.syslog_key)
    require(together, "audit.syslog_key", "given together with audit.syslog_certificate", one.syslog_key)


_CHECKS: Final = (
    _check_node,
    _check_listener,
    _check_listener_tls,
    _check_orthanc,
    _check_numbers,
    _check_results,
    _check_destinations,
    _check_retention,
    _check_notices,
    _check_audit,
)
