"""Settings: the file, the program and the reference say the same; whatever is wrong is refused by its key."""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dicom_node.errors import ConfigError
from dicom_node.settings import Settings, find_problems, read_settings

ROOT = Path(__file__).parents[2]
NODE_TOML = ROOT / "config" / "node.toml"
REFERENCE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

DICOM_DESTINATION = '[[destinations]]\nname = "pacs"\nkind = "dicom"\nhost = "h"\nport = 104\ncalled_ae = "PACS"\n'
ORTHANC_DESTINATION = '[[destinations]]\nname = "pacs"\nkind = "orthanc"\nurl = "http://h"\n'


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(text, encoding="utf-8")
    return path


def every_key(kind: type[Any] = Settings, where: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and default of every key; keys of list entries are written ``list[].key``."""
    hints = typing.get_type_hints(kind)
    for f in fields(kind):
        hint, name = hints[f.name], f"{where}.{f.name}" if where else f.name
        entry = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
        if is_dataclass(hint):
            yield from every_key(hint, name)
            continue
        if entry is None or not is_dataclass(entry) or where:
            yield name, MISSING if f.default is MISSING and f.default_factory is MISSING else f.default
        if is_dataclass(entry):
            yield from every_key(entry, f"{name}[]")


def test_the_file_that_we_ship_holds_every_key_with_its_default() -> None:
    assert read_settings(NODE_TOML, {}).settings == Settings()
    raw = tomllib.loads(NODE_TOML.read_text(encoding="utf-8"))
    in_file = {f"{table}.{key}" for table, content in raw.items() for key in content}
    assert in_file == {name for name, _ in every_key() if "[]" not in name}


def test_every_key_of_the_file_is_explained_above_it() -> None:
    lines = NODE_TOML.read_text(encoding="utf-8").splitlines()
    unexplained = [line for above, line in pairwise(lines) if re.match(r"\w+ = ", line) and above[:2] != "# "]
    assert unexplained == []


def test_the_examples_in_the_file_are_accepted_as_they_stand(tmp_path: Path) -> None:
    text = NODE_TOML.read_text(encoding="utf-8")
    in_use = re.sub(r"(?m)^# (?=\[\[destinations|(name|kind|host|port|called_ae|timeout_s|url|username) +=)", "", text)
    (allowed,) = re.findall(r"For example: (allowed = .*)", text)
    in_use = in_use.replace("\nallowed = []\n", f"\n{allowed}\n")
    loaded = read_settings(write(tmp_path, in_use), {})
    assert [one.kind for one in loaded.settings.destinations] == ["dicom", "orthanc"]
    assert loaded.settings.listener.allowed[0].networks == ("10.1.2.0/24",)


@pytest.mark.parametrize(("key", "default"), [*every_key()])
def test_the_reference_has_a_line_for_every_key_with_its_default(key: str, default: Any) -> None:
    line = re.search(rf"(?m)^\| `{re.escape(key)}` \| (.+?) \| (.+) \|$", REFERENCE)
    assert line, f"docs/configuration.md has no line for {key}"
    written = line[1].strip("`")
    if default is MISSING:
        assert written == "required"
    else:
        value = tomllib.loads(f"value = {written}")["value"]
        assert (tuple(value) if isinstance(value, list) else value) == default
        assert isinstance(value, list) or type(value) is type(default)
    assert len(line[2]) > 10


def test_the_reference_names_no_key_that_does_not_exist() -> None:
    documented = set(re.findall(r"(?m)^\| `([a-z0-9_\[\].]+)` \|", REFERENCE))
    assert documented == {key for key, _ in every_key()}


MAIL = """[notices]
mail_host = "h"
mail_port = 587
mail_encryption = "starttls"
mail_from = "node@h.org"
mail_to = ["a@h.org"]
"""

BAD = [
    ("colour = 1", "colour"),
    ("[node]\nae = 'X'", "node.ae"),
    ("node = 3", "node"),
    ("[node]\nae_title = 3", "node.ae_title"),
    ("[node]\nae_title = ''", "node.ae_title"),
    ("[node]\nae_title = ' HYDROPS'", "node.ae_title"),
    ("[node]\nae_title = 'SEVENTEEN_LETTERS'", "node.ae_title"),
    ("[node]\nae_title = 'BACK\\SLASH'", "node.ae_title"),
    ("[node]\nae_title = 'GRÜN'", "node.ae_title"),
    ("[node]\nstate_dir = ''", "node.state_dir"),
    ("[node]\nworker_id = 'a b'", "node.worker_id"),
    ("[listener]\nenabled = 1", "listener.enabled"),
    ("[listener]\nhost = ''", "listener.host"),
    ("[listener]\nport = '11112'", "listener.port"),
    ("[listener]\nport = true", "listener.port"),
    ("[listener]\nport = 0", "listener.port"),
    ("[listener]\nport = 65536", "listener.port"),
    ("[listener]\nmax_associations = 0", "listener.max_associations"),
    ("[listener]\nmax_associations = 1001", "listener.max_associations"),
    ("[listener]\nmax_pdu_bytes = 4095", "listener.max_pdu_bytes"),
    ("[listener]\nmax_pdu_bytes = 1048577", "listener.max_pdu_bytes"),
    ("[listener]\nmax_instance_bytes = 1048575", "listener.max_instance_bytes"),
    ("[listener]\nmin_free_bytes = -1", "listener.min_free_bytes"),
    ("[listener]\nacse_timeout_s = 0", "listener.acse_timeout_s"),
    ("[listener]\ndimse_timeout_s = -1.0", "listener.dimse_timeout_s"),
    ("[listener]\nnetwork_timeout_s = 3601", "listener.network_timeout_s"),
    ("[listener]\nnetwork_timeout_s = nan", "listener.network_timeout_s"),
    ("[listener]\nallowed = 'MR'", "listener.allowed"),
    ("[listener]\nallowed = ['MR']", "listener.allowed[0]"),
    ("[listener]\nallowed = [{networks = ['10.0.0.0/8']}]", "listener.allowed[0].ae_title"),
    ("[listener]\nallowed = [{ae_title = 'MR', host = 'h'}]", "listener.allowed[0].host"),
    ("[listener]\nallowed = [{ae_title = ''}]", "listener.allowed[0].ae_title"),
    ("[listener]\nallowed = [{ae_title = 'MR', networks = []}]", "listener.allowed[0].networks"),
    ("[listener]\nallowed = [{ae_title = 'MR', networks = [1]}]", "listener.allowed[0].networks[0]"),
    ("[listener]\nallowed = [{ae_title = 'MR', networks = ['10.1.2.3/24']}]", "listener.allowed[0].networks"),
    ("[listener]\nallowed = [{ae_title = 'MR'}, {ae_title = 'MR'}]", "listener.allowed"),
    ("[orthanc]\nurl = 'localhost:8042'", "orthanc.url"),
    ("[orthanc]\nurl = 'file:///etc/passwd'", "orthanc.url"),
    ("[orthanc]\nurl = 'http://'", "orthanc.url"),
    ("[orthanc]\npassword = 'x'", "orthanc.password"),
    ("[orthanc]\npoll_interval_s = 0", "orthanc.poll_interval_s"),
    ("[orthanc]\nreconcile_interval_s = inf", "orthanc.reconcile_interval_s"),
    ("[orthanc]\nreconcile_window_h = -1", "orthanc.reconcile_window_h"),
    ("[orthanc]\ntimeout_s = 0", "orthanc.timeout_s"),
    ("[assembly]\nrules_file = ''", "assembly.rules_file"),
    ("[assembly]\nquiet_s = 0", "assembly.quiet_s"),
    ("[assembly]\npartner_wait_s = nan", "assembly.partner_wait_s"),
    ("[assembly]\nmax_frames_per_series = 0", "assembly.max_frames_per_series"),
    ("[assembly]\nmax_frames_per_series = 1.5", "assembly.max_frames_per_series"),
    ("[assembly]\nmax_series_per_study = 0", "assembly.max_series_per_study"),
    ("[processing]\nthreads = -1", "processing.threads"),
    ("[processing]\nmax_shift_mm = 0", "processing.max_shift_mm"),
    ("[processing]\nmax_rotation_deg = inf", "processing.max_rotation_deg"),
    ("[results]\nsend_not_computed = 'no'", "results.send_not_computed"),
    ("[results]\nsegmentation_series_number = 0", "results.segmentation_series_number"),
    ("[results]\nreport_series_number = 2147483648", "results.report_series_number"),
    ("[results]\ndevice_name = ''", "results.device_name"),
    ("[results]\ndevice_serial_number = 'a\\b'", "results.device_serial_number"),
    ("[[destinations]]\nname = 'pacs'", "destinations[0].kind"),
    ("[[destinations]]\nname = 'a b'\nkind = 'orthanc'\nurl = 'http://h'", "destinations[0].name"),
    (DICOM_DESTINATION.replace("dicom", "ftp"), "destinations[0].kind"),
    (DICOM_DESTINATION.replace('"h"', '""'), "destinations[0].host"),
    (DICOM_DESTINATION.replace("104", "0"), "destinations[0].port"),
    (DICOM_DESTINATION.replace("PACS", ""), "destinations[0].called_ae"),
    (DICOM_DESTINATION + "timeout_s = 0", "destinations[0].timeout_s"),
    (DICOM_DESTINATION + "done = 'stored'", "destinations[0].done"),
    (ORTHANC_DESTINATION + "done = 'committed'", "destinations[0].done"),
    (DICOM_DESTINATION + "password = 'x'", "destinations[0].password"),
    (ORTHANC_DESTINATION.replace("http://h", "h"), "destinations[0].url"),
    (DICOM_DESTINATION + ORTHANC_DESTINATION, "destinations"),
    ("[delivery]\nfirst_retry_s = 0", "delivery.first_retry_s"),
    ("[delivery]\nfirst_retry_s = 700", "delivery.max_retry_s"),
    ("[delivery]\nmax_retry_s = 0", "delivery.max_retry_s"),
    ("[retention]\ninputs_days = -1", "retention.inputs_days"),
    ("[retention]\ninputs_days = 1.5", "retention.inputs_days"),
    ("[retention]\ninputs_days = 3\n[orthanc]\nurl = 'http://h'", "retention.inputs_days"),
    ("[retention]\nresults_days = 13", "retention.results_days"),
    ("[retention]\ninputs_days = 0", "retention.results_days"),
    ("[retention]\naudit_days = 36501", "retention.audit_days"),
    ("[delivery]\ngive_up_after_h = inf", "delivery.give_up_after_h"),
    ("[web]\nport = 0", "web.port"),
    ("[web]\nhost = '0.0.0.0'", "web.host"),
    ("[viewer]\nport = 8080", "viewer.port"),
    ("[viewer]\ndicomweb_url = 'archive'", "viewer.dicomweb_url"),
    ("[notices]\nabout = ['birthday']", "notices.about"),
    ("[notices]\nevery_s = 1", "notices.every_s"),
    ("[notices]\ndashboard_url = 'hospital'", "notices.dashboard_url"),
    ("[notices]\nwebhook_url = 'file:///etc/passwd'", "notices.webhook_url"),
    ("[notices]\nwebhook_url = 'http://h'\ninclude_patient = true", "notices.webhook_url"),
    (MAIL.replace("587", "0"), "notices.mail_port"),
    (MAIL.replace("starttls", "ssl"), "notices.mail_encryption"),
    (MAIL.replace("starttls", "none") + "mail_username = 'x'", "notices.mail_encryption"),
    (MAIL.replace("starttls", "none") + "include_patient = true", "notices.mail_encryption"),
    (MAIL.replace("node@h.org", "node@h.org\\r\\nBcc: x@y"), "notices.mail_from"),
    (MAIL.replace('["a@h.org"]', "[]"), "notices.mail_to"),
    (MAIL.replace("a@h.org", "a@h.org\\nBcc: x@y"), "notices.mail_to"),
    ("[audit]\nsyslog_port = 0", "audit.syslog_port"),
    ("[audit]\nsyslog_certificate = 'node.pem'", "audit.syslog_key"),
    ("[listener]\nmax_associations_per_ae = 0", "listener.max_associations_per_ae"),
]


@pytest.mark.parametrize(("text", "key"), BAD)
def test_a_bad_value_is_refused_by_its_key(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_settings(write(tmp_path, text), {})
    assert str(refused.value).split(":")[0] == key
    assert any(problem.split(":")[0] == key for problem in find_problems(write(tmp_path, text), {}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[listener]\nalowed = []",
            "listener.alowed: unknown key (did you mean `allowed`?); known here: acse_timeout_s, ",
        ),
        ("[Listner]\nport = 1", "Listner: unknown key (did you mean `listener`?); known here: assembly, "),
        ("[assembly]\nquiet-s = 1", "assembly.quiet-s: unknown key (did you mean `quiet_s`?); known here: "),
        (
            "[[listener.allowed]]\naetitle = 'A'",
            "listener.allowed[0].aetitle: unknown key (did you mean `ae_title`?); ",
        ),
        ("[node]\ncolour = 1", "node.colour: unknown key; known here: ae_title, state_dir, worker_id"),
    ],
)
def test_an_unknown_key_is_told_with_the_one_that_was_meant(tmp_path: Path, text: str, said: str) -> None:
    (problem,) = find_problems(write(tmp_path, text), {})
    assert problem.startswith(said)


def test_every_section_has_a_bad_value_above() -> None:
    assert {f.name for f in fields(Settings)} <= {re.split(r"[.\[]", key)[0] for _, key in BAD}


def test_all_problems_are_found_at_once(tmp_path: Path) -> None:
    text = (
        "[node]\nae_title = ''\ncolour = 1\n[listener]\nport = 'x'\nmax_associations = 0\n"
        + DICOM_DESTINATION.replace("104", "0")
    )
    keys = [problem.split(":")[0] for problem in find_problems(write(tmp_path, text), {})]
    assert sorted(keys) == [
        "destinations[0].port",
        "listener.max_associations",
        "listener.port",
        "node.ae_title",
        "node.colour",
    ]


def test_a_whole_number_is_taken_where_a_decimal_one_is_meant(tmp_path: Path) -> None:
    loaded = read_settings(write(tmp_path, "[assembly]\nquiet_s = 12"), {})
    assert loaded.settings.assembly.quiet_s == 12.0
    assert isinstance(loaded.settings.assembly.quiet_s, float)


@pytest.mark.parametrize("text", ["[node\n", "\x00", "a = 1\na = 2"])
def test_what_is_not_toml_is_refused_with_the_file(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=re.escape(f"{path}: not readable as TOML")):
        read_settings(path, {})
    assert len(find_problems(path, {})) == 1


def test_a_missing_file_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; pass --config PATH"):
        read_settings(tmp_path / "none.toml", {})


def test_an_open_web_address_is_accepted_with_a_token(tmp_path: Path) -> None:
    path = write(tmp_path, "[web]\nhost = '0.0.0.0'")
    assert read_settings(path, {"HYDROPS_WAKE_TOKEN": "t"}).settings.web.host == "0.0.0.0"


def test_images_that_would_be_fetched_again_are_not_erased(tmp_path: Path) -> None:
    retention, orthanc = "[retention]\ninputs_days = {}\nresults_days = 0\n", "[orthanc]\nurl = 'http://h'\n"
    (problem,) = find_problems(write(tmp_path, retention.format(3) + orthanc), {})
    assert "more days than orthanc.reconcile_window_h (72 h) looks back" in problem
    for accepted in (retention.format(4) + orthanc, retention.format(0) + orthanc, retention.format(1)):
        assert find_problems(write(tmp_path, accepted), {}) == []


SECRETS = {
    "HYDROPS_ORTHANC_PASSWORD": "marker-1",
    "HYDROPS_DATABASE_URL": "postgresql+psycopg://u:marker-2@h/n",
    "HYDROPS_WAKE_TOKEN": "marker-3",
    "HYDROPS_DESTINATION_MAIN_PACS_2_PASSWORD": "marker-4",
    "PATH": "marker-5",
}


def test_secrets_come_from_the_environment_and_show_nowhere(tmp_path: Path) -> None:
    loaded = read_settings(write(tmp_path, ""), SECRETS)
    assert loaded.secrets["HYDROPS_ORTHANC_PASSWORD"] == "marker-1"
    assert loaded.destination_password("main-pacs.2") == "marker-4"
    assert loaded.destination_password("other") == ""
    assert loaded.database_url == SECRETS["HYDROPS_DATABASE_URL"]
    assert loaded.workflow_url == SECRETS["HYDROPS_DATABASE_URL"]
    assert "marker" not in repr(loaded)
    assert "marker" not in str(loaded.settings)
    assert "PATH" not in loaded.secrets


def test_without_a_database_url_state_lies_beside_the_configuration(tmp_path: Path) -> None:
    loaded = read_settings(write(tmp_path, "[node]\nstate_dir = 'here'"), {})
    assert loaded.state_dir == tmp_path / "here"
    assert loaded.database_url == f"sqlite:///{tmp_path / 'here' / 'node.db'}"
    assert loaded.workflow_url == f"sqlite:///{tmp_path / 'here' / 'workflow.db'}"
