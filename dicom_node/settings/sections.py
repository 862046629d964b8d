"""Every section of `config/node.toml` as a frozen dataclass, and what was loaded.

Every field's default stands here and, commented, in `config/node.toml`; a test keeps the two equal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """Who this node is and where it keeps its state."""

    ae_title: str = "HYDROPS"
    state_dir: str = "state"
    worker_id: str = "worker-1"


@dataclass(frozen=True, kw_only=True)
class AllowedCaller:
    """One system that may send to us: AE title exactly as it calls itself, and the networks it may call from.

    `certificate_sha256` binds the title to one TLS certificate; colons and capitals do not matter.
    """

    ae_title: str
    networks: tuple[str, ...] = ("127.0.0.1/32",)
    certificate_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class ListenerSettings:
    """The C-STORE SCP."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = 11112
    allowed: tuple[AllowedCaller, ...] = ()
    max_associations: int = 10
    max_associations_per_ae: int = 5
    max_pdu_bytes: int = 131072
    max_instance_bytes: int = 1073741824
    acse_timeout_s: float = 10.0
    dimse_timeout_s: float = 30.0
    network_timeout_s: float = 30.0
    min_free_bytes: int = 5000000000
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""


@dataclass(frozen=True, kw_only=True)
class OrthancSettings:
    """The Orthanc whose new MR series we take. An empty `url` switches this entrance off."""

    url: str = ""
    username: str = ""
    poll_interval_s: float = 5.0
    reconcile_interval_s: float = 300.0
    reconcile_window_h: float = 72.0
    timeout_s: float = 30.0


@dataclass(frozen=True, kw_only=True)
class AssemblySettings:
    """When a study is taken as complete, and whose studies go before others (AE titles)."""

    rules_file: str = "series_rules.toml"
    quiet_s: float = 30.0
    partner_wait_s: float = 1800.0
    max_frames_per_series: int = 2000
    max_series_per_study: int = 200
    urgent_from: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProcessingSettings:
    """Registration and segmentation. `model`: "shipped", "threshold" (no training), or a model folder.

    `device` is "cpu", or "cuda" for a network on an NVIDIA card with the processor behind it.
    """

    model: str = "shipped"
    device: str = "cpu"
    threads: int = 0
    max_shift_mm: float = 10.0
    max_rotation_deg: float = 10.0
    time_limit_s: float = 600.0


@dataclass(frozen=True, kw_only=True)
class ResultSettings:
    """The objects we make."""

    send_not_computed: bool = True
    segmentation_series_number: int = 9901
    report_series_number: int = 9902
    summary: bool = True
    summary_series_number: int = 9903
    pdf: bool = False
    pdf_series_number: int = 9904
    device_name: str = "Hydrops Node"
    device_serial_number: str = "0"


@dataclass(frozen=True, kw_only=True)
class DestinationSettings:
    """One receiver of results; `kind` is "dicom" or "orthanc"; an empty `send` means all that it takes.

    `done`: a result is done when it was "sent" (the receiver said success) or "committed" (it vouches for keeping it).
    """

    name: str
    kind: str
    host: str = ""
    port: int = 0
    called_ae: str = ""
    url: str = ""
    username: str = ""
    timeout_s: float = 30.0
    tls: bool = False
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_name: str = ""
    send: tuple[str, ...] = ()
    done: str = "sent"


@dataclass(frozen=True, kw_only=True)
class DeliverySettings:
    """Retries of deliveries: first delay doubled with jitter up to the cap, then given up as dead letter."""

    first_retry_s: float = 30.0
    max_retry_s: float = 600.0
    give_up_after_h: float = 72.0


@dataclass(frozen=True, kw_only=True)
class RetentionSettings:
    """How many days what is kept; 0 keeps it for good."""

    inputs_days: int = 14
    results_days: int = 1825
    audit_days: int = 2190


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """Health, wake-up and the dashboard over HTTP. Relative file names start at the folder of the configuration."""

    host: str = "127.0.0.1"
    port: int = 8080
    dashboard: bool = True
    tls_certificate: str = ""
    tls_key: str = ""
    tls_elsewhere: bool = False
    proxies: tuple[str, ...] = ()
    session_idle_s: float = 1800.0
    session_lifetime_s: float = 43200.0


@dataclass(frozen=True, kw_only=True)
class ViewerSettings:
    """OHIF on a port of its own, in front of a DICOMweb archive. Certificate and sessions are those of [web]."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = 8081
    address: str = ""
    dicomweb_url: str = ""
    username: str = ""
    timeout_s: float = 30.0


NOTICE_SUBJECTS: Final = (
    "study_refused",
    "study_failed",
    "dead_letter",
    "disk_low",
    "worker_gone",
    "orthanc_unreachable",
)


@dataclass(frozen=True, kw_only=True)
class NoticeSettings:
    """Mails and webhook calls. An empty `mail_host` and `webhook_url` switch them off."""

    about: tuple[str, ...] = NOTICE_SUBJECTS
    every_s: float = 300.0
    include_patient: bool = False
    dashboard_url: str = ""
    mail_host: str = ""
    mail_port: int = 587
    mail_encryption: str = "starttls"
    mail_username: str = ""
    mail_from: str = ""
    mail_to: tuple[str, ...] = ()
    webhook_url: str = ""


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """The audit record repository that gets the trail by syslog over TLS (RFC 5425). An empty `syslog_host`: none."""

    syslog_host: str = ""
    syslog_port: int = 6514
    syslog_ca: str = ""
    syslog_certificate: str = ""
    syslog_key: str = ""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything, read once and passed by hand. `config_dir` is where the file lay; relative paths start there."""

    node: NodeSettings = field(default_factory=NodeSettings)
    listener: ListenerSettings = field(default_factory=ListenerSettings)
    orthanc: OrthancSettings = field(default_factory=OrthancSettings)
    assembly: AssemblySettings = field(default_factory=AssemblySettings)
    processing: ProcessingSettings = field(default_factory=ProcessingSettings)
    results: ResultSettings = field(default_factory=ResultSettings)
    destinations: tuple[DestinationSettings, ...] = ()
    delivery: DeliverySettings = field(default_factory=DeliverySettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    web: WebSettings = field(default_factory=WebSettings)
    viewer: ViewerSettings = field(default_factory=ViewerSettings)
    notices: NoticeSettings = field(default_factory=NoticeSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)


@dataclass(frozen=True, kw_only=True)
class LoadedSettings:
    """Settings, where they came from, and the secrets, which never appear in `repr` or dumps."""

    settings: Settings
    config_dir: Path
    secrets: Mapping[str, str] = field(repr=False, default_factory=dict)

    @property
    def state_dir(self) -> Path:
        """Absolute folder of spool, databases and outbox."""
        return (self.config_dir / self.settings.node.state_dir).resolve()

    @property
    def database_url(self) -> str:
        """Where spool index, ledger and outbox live."""
        return self.secrets.get("HYDROPS_DATABASE_URL") or f"sqlite:///{self.state_dir / 'node.db'}"

    @property
    def workflow_url(self) -> str:
        """Where the workflow engine keeps its steps: on SQLite a file of its own, because it locks differently."""
        return (
            self.secrets.get("HYDROPS_WORKFLOW_URL")
            or self.secrets.get("HYDROPS_DATABASE_URL")
            or f"sqlite:///{self.state_dir / 'workflow.db'}"
        )

    def destination_password(self, name: str) -> str:
        """The password of one destination, or an empty string."""
        return self.secrets.get(password_variable(name), "")


def password_variable(destination: str) -> str:
    """The environment variable that holds the password of one destination."""
    return f"HYDROPS_DESTINATION_{re.sub('[^A-Z0-9]', '_', destination.upper())}_PASSWORD"
