"""The documents are true: links resolve, commands and settings exist, tables equal those of the program."""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import STUDY_S

from dicom_node.cli import COMMANDS, _parser
from dicom_node.cohort.result_folder import FINDINGS, IMAGE_FILES, OBJECTS
from dicom_node.cohort.table import columns
from dicom_node.delivery import peer_answers
from dicom_node.delivery.outcome import OutcomeKind
from dicom_node.errors import Reason
from dicom_node.intake import admission, wire_status
from dicom_node.ledger import StudyState
from dicom_node.settings import read_settings

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (".", "docs", "docs/decisions", "orthanc_plugin", "changelog.d")
PAGES = {str(path.relative_to(ROOT)): path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.md"))}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block of one language; a block inside a list is indented."""
    fence = re.compile(rf"^( *)```{language}\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
    return [
        (name, re.sub(rf"(?m)^{indent}", "", text))
        for name, page in TEXTS.items()
        for indent, text in fence.findall(page)
    ]


def prose(page: str) -> str:
    """A page without its fenced blocks, in which ``#`` is no heading and brackets are no links."""
    return re.sub(r"^ *```.*?^ *```", "", page, flags=re.DOTALL | re.MULTILINE)


def rows(page: str, columns: int) -> list[list[str]]:
    """Cells of every table row with so many columns."""
    lines = [line.strip().strip("|").split("|") for line in TEXTS[page].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in cells] for cells in lines if len(cells) == columns]


# --- Links ------------------------------------------------------------------------------------------------------------


def anchors(page: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links() -> Iterator[tuple[str, str]]:
    for name, page in TEXTS.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            if not re.match(r"[a-z]+:", target):
                yield name, target


@pytest.mark.parametrize(("page", "target"), [pytest.param(*one, id=f"{one[0]}-{one[1]}") for one in links()])
def test_every_link_leads_somewhere(page: str, target: str) -> None:
    file, _, anchor = target.partition("#")
    path = (PAGES[page].parent / file).resolve() if file else PAGES[page]
    assert path.exists()
    if anchor:
        assert anchor in anchors(path.read_text(encoding="utf-8"))


def test_the_readme_leads_to_every_page() -> None:
    reached = {target.partition("#")[0] for _, target in links()}
    pages = {name for name in TEXTS if name.startswith("docs/") and "/decisions/" not in name}
    assert {name.removeprefix("docs/") for name in pages} <= {target.removeprefix("docs/") for target in reached}


def test_the_index_leads_to_every_page_beside_it() -> None:
    reached = {target.partition("#")[0] for name, target in links() if name == "docs/README.md"}
    pages = {name.removeprefix("docs/") for name in TEXTS if name.startswith("docs/")}
    assert pages - {"README.md"} <= reached
    assert "docs/README.md" in {target for name, target in links() if name == "README.md"}


# --- Commands ---------------------------------------------------------------------------------------------------------


def command_lines() -> Iterator[tuple[str, str]]:
    """Every `hydrops-node ...` of a shell block, with what precedes it (a path, sudo) and comments taken off."""
    for name, text in blocks("sh"):
        for line in text.splitlines():
            found = re.search(r"hydrops-node (?=[a-z])([^#]*)", line)
            if found and "useradd" not in line:
                yield name, found[1].strip()


def known_commands(words: list[str]) -> bool:
    return bool(words) and words[0] in COMMANDS


@pytest.mark.parametrize(
    ("page", "line"),
    [pytest.param(*one, id=f"{one[0]}-{one[1]}") for one in command_lines() if known_commands(shlex.split(one[1]))],
)
def test_every_command_in_a_shell_block_is_accepted(page: str, line: str) -> None:
    words = shlex.split(line)
    assert _parser(words[0]).parse_args(words).command == words[0]


def test_shell_blocks_name_no_command_that_does_not_exist() -> None:
    named = {shlex.split(line)[0] for _, line in command_lines()}
    assert len(named) >= 6
    assert named <= set(COMMANDS)


def test_every_command_and_option_named_in_the_text_exists() -> None:
    named = [
        (name, words.split())
        for name, page in TEXTS.items()
        for words in re.findall(r"`hydrops-node ([a-z][^`]*)`", prose(page))
    ]
    assert len(named) > 15
    wrong = [(name, words) for name, words in named if words[0] not in COMMANDS]
    assert wrong == []
    for name, words in named:
        options = {word for word in words if word.startswith("--")}
        assert options <= options_of(words[0]), (name, words)


def options_of(command: str) -> set[str]:
    """The option strings of one command."""
    (commands,) = (one for one in _parser(command)._actions if isinstance(one, argparse._SubParsersAction))
    return {option for action in commands.choices[command]._actions for option in action.option_strings}


def test_the_readme_lists_every_command() -> None:
    listed = set(re.findall(r"^\| `hydrops-node ([a-z-]+)|, `hydrops-node ([a-z-]+)", TEXTS["README.md"], re.MULTILINE))
    assert {one or other for one, other in listed} == set(COMMANDS)


def test_every_make_target_that_a_page_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {word for page in TEXTS.values() for word in re.findall(r"(?m)(?:^|`)make ([a-z]+)\b", page)}
    assert {"demo", "test", "setup"} <= named <= targets


def test_the_demo_gets_the_choices_that_its_text_promises() -> None:
    make = ["make", "-n", "demo", "KEEP=1", "ENTRANCE=dicom"]
    planned = subprocess.run(make, cwd=ROOT, check=True, capture_output=True, text=True, timeout=STUDY_S).stdout
    assert "demo/run_demo.py --keep --entrance dicom" in planned


# --- Configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "text"), blocks("toml"))
def test_every_configuration_in_a_page_is_accepted(page: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(text, encoding="utf-8")
    assert read_settings(path, {}).config_dir == tmp_path.resolve()


def test_every_setting_that_a_page_names_exists() -> None:
    raw = tomllib.loads((ROOT / "config" / "node.toml").read_text(encoding="utf-8"))
    keys = {f"{table}.{key}" for table, content in raw.items() for key in content}
    tables = "|".join(raw)
    named = {
        one
        for name, page in TEXTS.items()
        for one in re.findall(rf"`((?:{tables})\.[a-z_]+)`", prose(page))
        if not one.endswith((".py", ".toml", ".db"))
    }
    assert len(named) > 15
    assert named <= keys


# --- Tables that must equal the program's -----------------------------------------------------------------------------


def test_every_reason_is_listed_with_its_sentence() -> None:
    table = {
        cells[0]: cells[1:] for cells in rows("docs/reading-the-result.md", 3) if re.match(r"`[A-Z_]+`$", cells[0])
    }
    assert {code: said[0] for code, said in table.items()} == {f"`{one.value}`": one.sentence for one in Reason}
    plain = {code: re.sub(r"`|\]\([^)]*\)|\[", "", said[1]) for code, said in table.items()}
    assert [code for code, advice in plain.items() if not advice.startswith(Reason(code.strip("`")).next_step)] == []


def keys_of(schema: Any) -> Iterator[str]:
    """Every key that a JSON Schema names under `properties`."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for part in schema.values():
            yield from keys_of(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from keys_of(part)


def test_every_key_of_the_findings_schema_is_explained() -> None:
    schema = json.loads((ROOT / "dicom_node/encoding/findings.schema.json").read_text(encoding="utf-8"))
    explained = set(re.findall(r"`([a-z_0-9]+)`", TEXTS["docs/findings-json.md"]))
    assert set(keys_of(schema)) <= explained


def test_troubleshooting_explains_every_answer_of_a_receiver() -> None:
    page = TEXTS["docs/troubleshooting.md"]
    said = [one.words for one in peer_answers.C_STORE_STATUSES if one.kind is not OutcomeKind.DELIVERED]
    said += [re.split(r"[;,] ", words)[0] for words in peer_answers._REJECTIONS.values()]
    pieces = [
        piece.strip() for words in said for piece in re.split(r"\{.*?\}|(?=by the receiver's association)", words)
    ]
    assert [piece for piece in pieces if piece not in page] == []


def what_the_program_can_say() -> str:
    """Every text in the code, one after the other; NUL stands where a value is put in."""
    texts = []
    for path in [*(ROOT / "dicom_node").rglob("*.py"), *(ROOT / "inference").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\1".join(texts)


def test_every_message_in_troubleshooting_is_one_that_the_program_can_say() -> None:
    said = what_the_program_can_say()
    messages = [
        message
        for columns in (2, 3)
        for cells in rows("docs/troubleshooting.md", columns)
        for cell in cells[:-1]
        for message in re.findall(r"`([^`]* [^`]*)`", cell)
    ]
    pieces = {piece.strip() for message in messages for piece in message.split("...")}
    assert len(messages) > 50
    assert sorted(piece for piece in pieces if piece not in said) == []


def test_every_column_of_a_cohorts_table_is_explained() -> None:
    told = {cells[0]: cells[1] for cells in rows("docs/cohorts.md", 2) if re.match(r"`[a-z_0-9]+`$", cells[0])}
    assert told == {f"`{column.name}`": column.meaning for column in columns(patient_id=True)}


def test_every_file_of_a_result_folder_is_explained() -> None:
    page = TEXTS["docs/cohorts.md"].split("## What comes out")[1].split("## The table")[0]
    named = set(re.findall(r"`([a-z_]+\.(?:nii\.gz|dcm|json))`", page))
    assert {*IMAGE_FILES, *OBJECTS[:2], FINDINGS} <= named


def test_troubleshooting_explains_every_state_status_and_reject() -> None:
    page = TEXTS["docs/troubleshooting.md"]
    assert [one.value for one in StudyState if f"| `{one.value}` |" not in page] == []
    for one in wire_status.WireReason:
        assert any(
            f"{one.status:04X}H" in cells[0] and one.value in cells[1] for cells in rows("docs/troubleshooting.md", 3)
        )
    judge = admission.Admission("HYDROPS", [admission.AllowedPeer(ae_title="A", networks=("10.0.0.0/8",))])
    calls = [("B", "HYDROPS", "10.0.0.1"), ("A", "HYDROPS", "11.0.0.1"), (None, "HYDROPS", ""), ("A", "X", "10.0.0.1")]
    rejects = [admission.LIMIT_REACHED]
    for calling, called, address in calls:
        request = admission.AssociateRequest(pdu=b"", called_ae=called, calling_ae=calling)
        rejection = judge.judge(request, address)
        assert rejection is not None
        rejects.append(rejection)
    for one in rejects:
        assert f"| {one.result}/{one.source}/{one.reason} | `{one.words}` |" in page


def test_the_floors_of_the_architecture_page_are_those_of_the_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (one for one in project["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    drawn = TEXTS["docs/architecture.md"].split("## Floors")[1].split("A module imports")[0]
    assert [line.strip() for line in drawn.splitlines() if line.strip()] == contract["layers"]


# --- The service ------------------------------------------------------------------------------------------------------


def service_lines() -> list[tuple[str, str]]:
    text = (ROOT / "setup" / "hydrops-node.service").read_text(encoding="utf-8")
    return [(key, value) for key, _, value in (line.partition("=") for line in text.splitlines() if "=" in line)]


def test_the_service_starts_commands_that_exist_and_may_write_its_state_only() -> None:
    settings = dict(service_lines())
    for key in ("ExecStartPre", "ExecStart"):
        words = shlex.split(settings[key])[1:]
        assert _parser(words[0]).parse_args(words).command == words[0]
    assert settings["ProtectSystem"] == "strict"
    assert settings["StateDirectory"] == "hydrops"
    assert "ReadWritePaths" not in settings
    assert f"/var/lib/{settings['StateDirectory']}" in TEXTS["docs/install.md"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_accepts_the_service_and_finds_little_exposed(tmp_path: Path) -> None:
    text = (ROOT / "setup" / "hydrops-node.service").read_text(encoding="utf-8")
    unit = tmp_path / "hydrops-node.service"
    unit.write_text(re.sub(r"/opt/hydrops-node/\S+/hydrops-node", sys.executable, text), encoding="utf-8")
    environment = os.environ | {"SYSTEMD_COLORS": "0"}
    for arguments in (["verify", unit], ["security", "--offline=true", "--threshold=20", unit]):
        checked = subprocess.run(
            ["systemd-analyze", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=STUDY_S,
        )
        assert checked.returncode == 0, checked.stdout[-2000:] + checked.stderr
        assert "hydrops-node.service:" not in checked.stderr, checked.stderr
