"""Frozen settings, read once from `config/node.toml` and the environment.

An unknown key, a wrong type or an impossible value is a `ConfigError` that names the key: there is no fallback.
Secrets come from the environment only: ``HYDROPS_ORTHANC_PASSWORD``, ``HYDROPS_DATABASE_URL``,
``HYDROPS_WORKFLOW_URL``, ``HYDROPS_WAKE_TOKEN``, ``HYDROPS_METRICS_TOKEN``, ``HYDROPS_MAIL_PASSWORD``,
``HYDROPS_WEBHOOK_TOKEN`` and, per destination, ``HYDROPS_DESTINATION_<NAME>_PASSWORD``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dicom_node.errors import ConfigError
from dicom_node.settings.checks import problems_of
from dicom_node.settings.sections import (
    AllowedCaller,
    AssemblySettings,
    AuditSettings,
    DeliverySettings,
    DestinationSettings,
    ListenerSettings,
    LoadedSettings,
    NodeSettings,
    NoticeSettings,
    OrthancSettings,
    ProcessingSettings,
    ResultSettings,
    RetentionSettings,
    Settings,
    ViewerSettings,
    WebSettings,
    password_variable,
)
from dicom_node.settings.toml_values import build, read_toml, without_bad_values

__all__ = [
    "AllowedCaller",
    "AssemblySettings",
    "AuditSettings",
    "DeliverySettings",
    "DestinationSettings",
    "ListenerSettings",
    "LoadedSettings",
    "NodeSettings",
    "NoticeSettings",
    "OrthancSettings",
    "ProcessingSettings",
    "ResultSettings",
    "RetentionSettings",
    "Settings",
    "ViewerSettings",
    "WebSettings",
    "find_problems",
    "password_variable",
    "read_settings",
]


def read_settings(path: Path, environment: Mapping[str, str]) -> LoadedSettings:
    """Settings from a TOML file and the environment.

    Raises
    ------
    ConfigError
        If the file cannot be read or any key is unknown, of the wrong type or out of range; the message begins
        with the file or the key.
    """
    settings = build(Settings, read_toml(path), where="")
    secrets = {name: value for name, value in environment.items() if name.startswith("HYDROPS_")}
    for problem in problems_of(settings, secrets):
        raise ConfigError(problem)
    return LoadedSettings(settings=settings, config_dir=path.resolve().parent, secrets=secrets)


def find_problems(path: Path, environment: Mapping[str, str]) -> list[str]:
    """Everything that `read_settings` would refuse, not only the first; empty when it would accept the file.

    Each sentence begins with the file or the key, and says what was expected and what was found.
    """
    try:
        raw = read_toml(path)
    except ConfigError as error:
        return [str(error)]
    problems: list[str] = []
    settings = build(Settings, without_bad_values(Settings, raw, where="", problems=problems), where="")
    return problems + list(problems_of(settings, environment))
