"""Frozen settings, read once from `config/node.toml` and the environment.

Every field's default stands here and, commented, in `config/node.toml`; a test keeps the two equal.
An unknown key, a wrong type or an impossible value is a `ConfigError` that names the key: there is no fallback.
Secrets come from the environment only: ``HYDROPS_ORTHANC_PASSWORD``, ``HYDROPS_DATABASE_URL``,
``HYDROPS_WORKFLOW_URL``, ``HYDROPS_WAKE_TOKEN`` and, per destination, ``HYDROPS_DESTINATION_<NAME>_PASSWORD``.
"""

from __future__ import annotations

import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, TypeVar

from dicom_node.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """Who this node is and where it keeps its state."""

    ae_title: str = "HYDROPS"
    state_dir: str = "state"
    worker_id: str = "worker-1"


@dataclass(frozen=True, kw_only=True)
class AllowedCaller:
    """One system that may send to us: AE title exactly as it calls itself, and the networks it may call from."""

    ae_title: str
    networks: tuple[str, ...] = ("127.0.0.1/32",)


@dataclass(frozen=True, kw_only=True)
class ListenerSettings:
    """The C-STORE SCP."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = 11112
    allowed: tuple[AllowedCaller, ...] = ()
    max_associations: int = 10
    max_pdu_bytes: int = 131072
    max_instance_bytes: int = 1073741824
    acse_timeout_s: float = 10.0
    dimse_timeout_s: float = 30.0
    network_timeout_s: float = 30.0
    min_free_bytes: int = 5000000000


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
    """When a study is taken as complete."""

    rules_file: str = "series_rules.toml"
    quiet_s: float = 30.0
    partner_wait_s: float = 1800.0
    max_frames_per_series: int = 2000
    max_series_per_study: int = 200


@dataclass(frozen=True, kw_only=True)
class ProcessingSettings:
    """Registration and segmentation. `model`: "shipped", "threshold" (no training), or a model folder."""

    model: str = "shipped"
    threads: int = 0
    max_shift_mm: float = 10.0
    max_rotation_deg: float = 10.0


@dataclass(frozen=True, kw_only=True)
class ResultSettings:
    """The objects we make."""

    send_not_computed: bool = True
    segmentation_series_number: int = 9901
    report_series_number: int = 9902
    device_name: str = "Hydrops Node"
    device_serial_number: str = "0"


@dataclass(frozen=True, kw_only=True)
class DestinationSettings:
    """One receiver of results; `kind` is "dicom" or "orthanc"."""

    name: str
    kind: str
    host: str = ""
    port: int = 0
    called_ae: str = ""
    url: str = ""
    username: str = ""
    timeout_s: float = 30.0


@dataclass(frozen=True, kw_only=True)
class DeliverySettings:
    """Retries of deliveries: first delay doubled with jitter up to the cap, then given up as dead letter."""

    first_retry_s: float = 30.0
    max_retry_s: float = 600.0
    give_up_after_h: float = 72.0


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """Health and wake-up over HTTP."""

    host: str = "127.0.0.1"
    port: int = 8080


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
    web: WebSettings = field(default_factory=WebSettings)


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


def read_settings(path: Path, environment: Mapping[str, str]) -> LoadedSettings:
    """Settings from a TOML file and the environment.

    Raises
    ------
    ConfigError
        If the file cannot be read or any key is unknown, of the wrong type or out of range; the message begins
        with the file or the key.
    """
    settings = _build(Settings, _read_toml(path), where="")
    secrets = {name: value for name, value in environment.items() if name.startswith("HYDROPS_")}
    for problem in _problems(settings, secrets):
        raise ConfigError(problem)
    return LoadedSettings(settings=settings, config_dir=path.resolve().parent, secrets=secrets)


def find_problems(path: Path, environment: Mapping[str, str]) -> list[str]:
    """Everything that `read_settings` would refuse, not only the first; empty when it would accept the file.

    Each sentence begins with the file or the key, and says what was expected and what was found.
    """
    try:
        raw = _read_toml(path)
    except ConfigError as error:
        return [str(error)]
    problems: list[str] = []
    settings = _build(Settings, _without_bad_values(Settings, raw, where="", problems=problems), where="")
    return problems + list(_problems(settings, environment))


def _read_toml(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; pass --config PATH or copy config/node.toml there") from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not readable as TOML: {error}") from None


def _without_bad_values(kind: type[Any], raw: Mapping[str, Any], *, where: str, problems: list[str]) -> dict[str, Any]:
    """The part of a table that `_build` accepts; what it does not accept is told in `problems` and left out."""
    hints = typing.get_type_hints(kind)
    good: dict[str, Any] = {}
    for key, value in raw.items():
        hint = hints.get(key)
        if isinstance(value, Mapping) and isinstance(hint, type) and is_dataclass(hint):
            good[key] = _without_bad_values(hint, value, where=_dotted(where, key), problems=problems)
            continue
        try:
            _build_one(kind, key, value, where=where)
        except ConfigError as error:
            problems.append(str(error))
        else:
            good[key] = value
    return good


def _build_one(kind: type[Any], key: str, value: Any, *, where: str) -> Any:
    """The value of one key of a table, or a ConfigError naming the key."""
    if key not in {f.name for f in fields(kind)}:
        known = ", ".join(sorted(f.name for f in fields(kind)))
        raise ConfigError(f"{_dotted(where, key)}: unknown key; known here: {known}")
    return _value(typing.get_type_hints(kind)[key], value, where=_dotted(where, key))


def _build(kind: type[T], raw: Any, *, where: str) -> T:
    """An instance of the dataclass `kind` from a TOML table; `where` is the dotted key for messages."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where or 'file'}: expected a table, found {raw!r}")
    built = {key: _build_one(kind, key, value, where=where) for key, value in raw.items()}
    for f in fields(kind):  # type: ignore[arg-type]
        if f.name not in raw and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{_dotted(where, f.name)}: missing; it has no default")
    return kind(**built)


def _value(hint: Any, raw: Any, *, where: str) -> Any:
    """`raw` as the annotated type, or a ConfigError naming the key."""
    if is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, raw, where=where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(raw, list):
            raise ConfigError(f"{where}: expected a list, found {raw!r}")
        item = typing.get_args(hint)[0]
        return tuple(_value(item, one, where=f"{where}[{n}]") for n, one in enumerate(raw))
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
    if hint is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if not isinstance(raw, hint) or (isinstance(raw, bool) and hint is not bool):
        raise ConfigError(f"{where}: expected {hint.__name__}, found {raw!r}")
    return raw


def _dotted(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


# What the checks below call: (is it good?, the key, what was expected, what was found).
Require = Callable[[bool, str, str, object], None]


def _problems(settings: Settings, secrets: Mapping[str, str]) -> Iterator[str]:
    """One sentence for every value that is of the right type but makes no sense."""
    found: list[str] = []

    def require(good: bool, key: str, expected: str, value: object) -> None:
        if not good:
            found.append(f"{key}: expected {expected}, found {value!r}")

    for check in (_check_node, _check_listener, _check_orthanc, _check_numbers, _check_results, _check_destinations):
        check(settings, require)
    _check_web(settings, secrets, require)
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


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


_AE_TITLE: Final = "an AE title of 1 to 16 printable characters"
_NAME: Final = "1 to 64 letters, digits, '-', '_' or '.'"
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
    titles = [caller.ae_title for caller in one.allowed]
    require(len(set(titles)) == len(titles), "listener.allowed", "every AE title once", titles)


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
        ("delivery.first_retry_s", s.delivery.first_retry_s),
        ("delivery.max_retry_s", s.delivery.max_retry_s),
        ("delivery.give_up_after_h", s.delivery.give_up_after_h),
    ]
    for key, value in positive:
        require(0 < value < float("inf"), key, "a finite number above 0", value)
    require(s.processing.threads >= 0, "processing.threads", "0 (all cores) or more", s.processing.threads)
    first, cap = s.delivery.first_retry_s, s.delivery.max_retry_s
    require(not first > cap, "delivery.max_retry_s", f"at least delivery.first_retry_s ({first:g} s)", cap)


def _check_results(s: Settings, require: Require) -> None:
    for key in ("segmentation_series_number", "report_series_number"):
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
        if one.kind == "dicom":
            require(bool(one.host), f"{where}.host", "a host name or address", one.host)
            require(0 < one.port < 65536, f"{where}.port", _PORT, one.port)
            require(_is_ae_title(one.called_ae), f"{where}.called_ae", _AE_TITLE, one.called_ae)
        elif one.kind == "orthanc":
            require(_is_http(one.url), f"{where}.url", "http://... or https://...", one.url)


def _check_web(s: Settings, secrets: Mapping[str, str], require: Require) -> None:
    require(0 < s.web.port < 65536, "web.port", _PORT, s.web.port)
    guarded = s.web.host in ("127.0.0.1", "::1", "localhost") or bool(secrets.get("HYDROPS_WAKE_TOKEN"))
    require(guarded, "web.host", "127.0.0.1, or HYDROPS_WAKE_TOKEN set so that not everybody can wake us", s.web.host)
