"""Settings to objects: the one place that knows which part gets which value."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node import __version__
from dicom_node.assembly.site_rules import SeriesRules, read_rules
from dicom_node.audit import AuditTrail
from dicom_node.audit.audit_repository import AuditRepository
from dicom_node.audit.forwarding import TrailForwarder, sent_up_to
from dicom_node.card_turn import CardTurn
from dicom_node.cli.tls_files import sender_tls
from dicom_node.delivery.capabilities import KINDS
from dicom_node.delivery.outbox import Outbox, RetryPolicy
from dicom_node.delivery.outcome import Destination
from dicom_node.errors import ConfigError
from dicom_node.intake.erased_images import ErasedImageIndex
from dicom_node.ledger import Ledger
from dicom_node.settings import LoadedSettings, Settings, read_settings
from dicom_node.study_actions import StudyActions
from dicom_node.study_requests import StudyRequests
from inference.method import METHOD

if TYPE_CHECKING:
    import torch
    from sqlalchemy import Engine

    from dicom_node.case import CaseOptions
    from inference.graphics_card import Turn
    from inference.segmentation import FluidSegmenter

log = logging.getLogger(__name__)


USUAL_RULES: Final = Path(__file__).with_name("usual_rules.toml")
"""What a node without a configuration goes by: the same rules and names as in `config/series_rules.toml`."""


def load_settings(path: Path | None) -> LoadedSettings:
    """Settings from `path`, or the built-in defaults (no peers, the shipped series rules) when there is none."""
    if path is not None:
        return read_settings(path, os.environ)
    return LoadedSettings(settings=Settings(), config_dir=Path.cwd())


def series_rules(loaded: LoadedSettings, *, from_file: bool) -> SeriesRules:
    """The site's rules, checked against their own examples; without a configuration file those that are shipped.

    Raises
    ------
    ConfigError
        If the rules file is missing or wrong; the message starts with the file.
    """
    if not from_file:
        return read_rules(USUAL_RULES.read_text(encoding="utf-8"))
    path = loaded.config_dir / loaded.settings.assembly.rules_file
    try:
        return read_rules(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"assembly.rules_file: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"assembly.rules_file: {path} is not UTF-8: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def case_options(loaded: LoadedSettings, *, from_file: bool) -> CaseOptions:
    """What this site chose that changes results, with its digest."""
    from dicom_node.case import CaseOptions
    from dicom_node.encoding.provenance import ResultOptions
    from dicom_node.pipeline import PipelineOptions
    from inference.registration import RegistrationOptions

    settings = loaded.settings
    threads = settings.processing.threads or os.cpu_count() or 1
    rules = series_rules(loaded, from_file=from_file)
    return CaseOptions(
        rules=rules,
        digest=settings_digest(settings, rules),
        max_frames_per_series=settings.assembly.max_frames_per_series,
        max_series_per_study=settings.assembly.max_series_per_study,
        pipeline=PipelineOptions(
            registration=RegistrationOptions(
                max_shift_mm=settings.processing.max_shift_mm,
                max_rotation_deg=settings.processing.max_rotation_deg,
            )
        ),
        results=ResultOptions(
            segmentation_series_number=settings.results.segmentation_series_number,
            report_series_number=settings.results.report_series_number,
            summary=settings.results.summary,
            summary_series_number=settings.results.summary_series_number,
            pdf=settings.results.pdf,
            document_series_number=settings.results.pdf_series_number,
            device_name=settings.results.device_name,
            device_serial_number=settings.results.device_serial_number,
        ),
        threads=threads,
    )


def settings_digest(settings: Settings, rules: SeriesRules) -> str:
    """SHA-256 over the node's version, its method and everything configured that can change a result."""
    processing = asdict(settings.processing)
    for key in ("device", "threads", "time_limit_s"):  # how fast, not what
        del processing[key]
    results = asdict(settings.results)
    for switch in ("summary", "pdf"):  # whether a page goes along, not what any object says
        del results[switch]
    parts = {
        "version": __version__,
        "method": METHOD,
        "processing": processing,
        "results": results,
        "rules": repr(rules),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


SHIPPED_MODEL: Final = "shipped"
THRESHOLD: Final = "threshold"


def make_segmenter(loaded: LoadedSettings) -> FluidSegmenter:
    """The method that makes the numbers, as configured; torch gets its threads, too.

    Raises
    ------
    ConfigError
        If the model folder cannot be used; says which file, what was expected and found.
    """
    import torch

    from inference.graphics_card import alone
    from inference.learned import NetworkSegmenter
    from inference.model_store import SHIPPED, ModelError, load_model
    from inference.segmentation import ThresholdSegmenter

    processing = loaded.settings.processing
    if processing.threads:
        torch.set_num_threads(processing.threads)
    chosen = processing.model
    if chosen == THRESHOLD:
        return ThresholdSegmenter()
    folder = SHIPPED if chosen == SHIPPED_MODEL else loaded.config_dir / chosen
    try:
        model = load_model(folder)
        card = _card(processing.device)
        turn = alone if card is None else _turn(loaded, card)
        return NetworkSegmenter(model=model, card=card, turn=turn, tell=_processor_steps_in)
    except ModelError as error:
        raise ConfigError(f"processing.model = {chosen!r}: {error}") from error


def _card(device: str) -> torch.device | None:
    """The graphics card that the network runs on, if one is wanted and torch sees it."""
    import torch

    if device == "cpu":
        return None
    if not torch.cuda.is_available():
        _processor_steps_in("torch sees none; the processor computes")
        return None
    return torch.device(device)


def _turn(loaded: LoadedSettings, card: torch.device) -> Turn:
    """Workers take turns at a card, on whatever machine or in whatever container they see it; it has one UUID."""
    import torch

    return CardTurn(loaded.state_dir / f"card-{torch.cuda.get_device_properties(card).uuid}.lock")


def _processor_steps_in(sentence: str) -> None:
    """Say so in the log: the result is the same but for rounding, so that the report says nothing."""
    log.warning("event=graphics_card_unused reason=%s", sentence)


def destinations(loaded: LoadedSettings) -> tuple[Destination, ...]:
    """Where results go, with the secrets that were found in the environment."""
    return tuple(
        Destination(
            name=one.name,
            kind=one.kind,
            host=one.host,
            port=one.port,
            called_ae=one.called_ae,
            calling_ae=loaded.settings.node.ae_title,
            url=one.url,
            username=one.username,
            password=loaded.destination_password(one.name),
            timeout_s=one.timeout_s,
            tls=sender_tls(loaded, one),
            send=one.send,
            to_commit=one.done == "committed",
        )
        for one in loaded.settings.destinations
    )


def retry_policy(settings: Settings) -> RetryPolicy:
    """When a delivery, or a question about one, goes again and when it is given up."""
    delivery = settings.delivery
    return RetryPolicy(
        first_retry_s=delivery.first_retry_s,
        max_retry_s=delivery.max_retry_s,
        give_up_after_s=delivery.give_up_after_h * 3600.0,
    )


def made_kinds(settings: Settings) -> tuple[str, ...]:
    """The kinds of objects that results are made of, as configured."""
    switched = {"SC": settings.results.summary, "PDF": settings.results.pdf}
    return tuple(kind for kind in KINDS if switched.get(kind, True))


def audit_trail(loaded: LoadedSettings) -> AuditTrail:
    """The trail of who did what, which every process of this node writes."""
    return AuditTrail(audit_folder(loaded), source=loaded.settings.node.ae_title)


def audit_forwarder(loaded: LoadedSettings) -> TrailForwarder | None:
    """What sends the trail on, or None when it stays here.

    Raises
    ------
    ConfigError
        If a TLS file is missing or unusable; names the file.
    """
    one = loaded.settings.audit
    if not one.syslog_host:
        return None
    repository = AuditRepository(
        host=one.syslog_host,
        port=one.syslog_port,
        ca=_beside(loaded, one.syslog_ca),
        certificate=_beside(loaded, one.syslog_certificate),
        key=_beside(loaded, one.syslog_key),
    )
    try:
        repository.context()  # a wrong file is told at the start, not in the log of the night
    except ConfigError as error:
        raise ConfigError(f"audit: {error}") from None
    return TrailForwarder(audit_trail(loaded), audit_folder(loaded), repository)


def audit_sent_up_to(loaded: LoadedSettings) -> int | None:
    """The number of the last audit entry that the syslog server has read; None when entries stay here.

    Raises
    ------
    OSError
        If our disk does not say.
    """
    return sent_up_to(audit_folder(loaded)) if loaded.settings.audit.syslog_host else None


def _beside(loaded: LoadedSettings, name: str) -> Path | None:
    """A file that the configuration names, as seen from its folder."""
    return loaded.config_dir / name if name else None


def audit_folder(loaded: LoadedSettings) -> Path:
    """Where the trail lies."""
    return loaded.state_dir / "audit"


def study_actions(loaded: LoadedSettings, engine: Engine) -> StudyActions:
    """What takes people's requests about studies, for the dashboard and the command line."""
    return StudyActions(
        ledger=Ledger(engine),
        requests=StudyRequests(engine),
        outbox=Outbox(loaded.state_dir / "outbox", engine),
        audit=audit_trail(loaded),
        destinations=[one.name for one in loaded.settings.destinations],
        erased=ErasedImageIndex(engine).of_study,
    )
