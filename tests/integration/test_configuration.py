"""A running node takes over a changed configuration, from the dashboard and from an editor, and survives a bad one."""

from __future__ import annotations

import html
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from chromium import chromium, needs_chromium, signed_in
from dashboard_parts import PASSWORD, hidden, sign_in
from desk_parts import series_of
from exact_sender import associated
from local_node import LocalNode
from patience import PATIENCE_S, STUDY_S, wait_until
from playwright.sync_api import expect
from scanned_series import HYDROPS, MRC, Scan, write_files

from dicom_node.accounts.roles import Role
from dicom_node.accounts.users import Users
from dicom_node.audit import AuditAction, AuditTrail
from dicom_node.database import open_database
from dicom_node.web.configuration_sheet import ROWS, SCALARS
from dicom_node.web.node_health import FOR_ADMINS

pytestmark = pytest.mark.dcmtk

PEOPLE = {"ada": Role.ADMIN, "alan": Role.ADMIN, "rita": Role.READER}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    """One receiving node for all tests that need no worker."""
    with started(tmp_path_factory.mktemp("node"), "listen") as one:
        yield one


@pytest.fixture
def node(running: LocalNode) -> Iterator[LocalNode]:
    """The node with the files that it was started with, and these taken over, before and after each test."""
    rules = running.config.with_name("series_rules.toml")
    texts = {path: path.read_bytes() for path in (running.config, rules)}
    yield running
    for path, text in texts.items():
        path.write_bytes(text)
    wait_until(lambda: echo(running, "SCANNER") and not echo(running, "MR_VIDA"))
    wait_until(lambda: not left_to_tell(running))


def left_to_tell(node: LocalNode) -> list[str]:
    """What the health says of files that are not, or not wholly, what runs."""
    told = httpx.get(node.health_url, timeout=PATIENCE_S).json()
    return [key for key in ("configuration_problem", "configuration_restart_needed") if told[key]]


@contextmanager
def started(folder: Path, command: str) -> Iterator[LocalNode]:
    """A node with people who may use its dashboard."""
    with LocalNode(folder, callers=("SCANNER",), command=command) as one:
        users = Users(open_database(f"sqlite:///{one.state_dir / 'node.db'}"))
        for name, role in PEOPLE.items():
            users.add(name, role, PASSWORD, at=0.0)
        wait_until(lambda: answers(httpx.Client(base_url=f"http://127.0.0.1:{one.web_port}")))
        yield one


def browser(node: LocalNode, name: str = "ada") -> httpx.Client:
    """Somebody who is signed in."""
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{node.web_port}", headers={"Accept": "text/html"}, timeout=PATIENCE_S
    )
    assert sign_in(client, name).status_code == 303
    return client


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/live", timeout=PATIENCE_S).status_code == 200
    except httpx.TransportError:
        return False


def echo(node: LocalNode, calling: str) -> bool:
    command = ["echoscu", "-aet", calling, "-aec", "HYDROPS", "127.0.0.1", str(node.dicom_port)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def store(node: LocalNode, calling: str, folder: Path) -> bool:
    command = ["storescu", "-aet", calling, "-aec", "HYDROPS", "+sd", "127.0.0.1", str(node.dicom_port), str(folder)]
    environment = os.environ | {"TCP_NODELAY": "1"}
    return subprocess.run(command, check=False, capture_output=True, env=environment).returncode == 0


def images_in(folder: Path, *scans: Scan) -> Path:
    """A folder with the images of one study."""
    folder.mkdir()
    write_files([one for scan in scans for one in series_of(scan)], folder)
    return folder


def fields(page: str) -> dict[str, str]:
    """Every field of the forms page as a browser would send it."""
    found = {
        name: html.unescape(value) for name, value in re.findall(r'<input[^>]*? name="([^"]+)" value="([^"]*)"', page)
    }
    checked = re.findall(r'type="checkbox" id="[^"]*" name="([^"]+)" value="yes"( checked)?', page)
    for name, is_checked in checked:
        if not is_checked:
            found.pop(name, None)
    for name, text in re.findall(r'<textarea[^>]* name="([^"]+)"[^>]*>\n?(.*?)</textarea>', page, re.DOTALL):
        found[name] = html.unescape(text)
    for name, options in re.findall(r'<select[^>]* name="([^"]+)"[^>]*>(.*?)</select>', page, re.DOTALL):
        chosen = re.search(r"<option[^>]* selected>([^<]*)", options)
        found[name] = html.unescape(chosen[1]) if chosen else ""
    return {name: value for name, value in found.items() if not name.endswith("-remove")}


def with_sender(page: str, **values: str) -> dict[str, str]:
    """The forms page with one sender more."""
    entered = fields(page)
    number = int(entered["peers-count"])
    row = {kind.key: kind.absent for kind in ROWS["peers"]} | values
    entered |= {f"peers-{number}-{key}": value for key, value in row.items()} | {"peers-count": str(number + 1)}
    return entered | {"do": "check"}


def reviewed(page: str) -> dict[str, str]:
    """What the button "Save" of a review page sends."""
    return {
        name: value for name, value in fields(page).items() if name in ("settings", "rules", "digest", "csrf_token")
    }


def add_sender(client: httpx.Client, ae_title: str) -> httpx.Response:
    review = client.post("/configuration/forms", data=with_sender(client.get("/configuration").text, ae_title=ae_title))
    assert review.status_code == 200, review.text
    return client.post("/configuration/save", data=reviewed(review.text))


def test_the_form_has_every_field(node: LocalNode) -> None:
    entered = fields(browser(node).get("/configuration").text)
    assert {kind.key for kind in SCALARS} <= set(entered)
    assert {f"peers-0-{kind.key}" for kind in ROWS["peers"]} <= set(entered)
    assert {f"rules-0-{kind.key}" for kind in ROWS["rules"]} <= set(entered)


@needs_chromium
def test_a_destination_shows_the_fields_that_its_kind_has_use_for(node: LocalNode) -> None:
    with chromium() as drawn, signed_in(drawn, f"http://127.0.0.1:{node.web_port}", "ada") as watched:
        watched.go("/configuration")
        page = watched.page
        page.get_by_role("button", name="Add a destination").click()
        only = {"dicom": ("Host", "Its AE title"), "orthanc": ("Address", "User")}
        row = page.get_by_role("group", name="New")
        for chosen, other in (("orthanc", "dicom"), ("dicom", "orthanc")):
            row.get_by_label("Kind").select_option(chosen)
            for label in only[chosen]:
                expect(row.get_by_label(label, exact=True)).to_be_visible()
            for label in only[other]:
                expect(row.get_by_label(label, exact=True)).to_be_hidden()
        watched.assert_quiet()


def test_a_new_sender_gets_in_after_saving_and_an_open_association_goes_on(node: LocalNode, tmp_path: Path) -> None:
    node.config.write_text(f"# our node\n{node.config.read_text()}", encoding="utf-8")
    client = browser(node)
    images = images_in(tmp_path / "images", MRC)
    assert not echo(node, "MR_VIDA")
    assert not store(node, "MR_VIDA", images)
    with associated(node.dicom_port) as before:
        saved = add_sender(client, "MR_VIDA")
        assert (saved.status_code, saved.headers["location"]) == (303, "/configuration?saved=yes")
        assert echo(node, "MR_VIDA")
        assert store(node, "MR_VIDA", images)
        assert before.echo() == 0x0000
    written = node.config.read_text(encoding="utf-8")
    assert written.startswith("# our node\n")
    assert [one["ae_title"] for one in tomllib.loads(written)["listener"]["allowed"]] == ["SCANNER", "MR_VIDA"]
    changes = AuditAction.CONFIGURATION_CHANGED  # who was turned away before is told of beside it
    *_, entry = (one for one in AuditTrail(node.state_dir / "audit").entries() if one.action is changes)
    assert "listener.allowed" in str(entry)
    assert "'ada'" in str(entry)


def test_a_restored_backup_is_the_file_as_it_was_and_shuts_the_sender_out_again(node: LocalNode) -> None:
    before = node.config.read_bytes()
    client = browser(node)
    add_sender(client, "MR_VIDA")
    page = client.get("/configuration/backups").text
    chosen = {"name": hidden(page, "name"), "csrf_token": hidden(page, "csrf_token")}
    review = client.post("/configuration/restore", data=chosen)
    assert "would be refused" in review.text
    assert client.post("/configuration/save", data=reviewed(review.text)).status_code == 303
    assert node.config.read_bytes() == before
    assert not echo(node, "MR_VIDA")
    assert len(re.findall('name="name" value="([^"]+)"', client.get("/configuration/backups").text)) >= 2


def test_of_two_admins_the_second_is_shown_what_the_first_changed(node: LocalNode) -> None:
    ada, alan = browser(node, "ada"), browser(node, "alan")
    old_page = alan.get("/configuration").text
    reviewed_early = alan.post("/configuration/forms", data=with_sender(old_page, ae_title="CT_1"))
    assert add_sender(ada, "MR_VIDA").status_code == 303
    for answer in (
        alan.post("/configuration/save", data=reviewed(reviewed_early.text)),
        alan.post("/configuration/forms", data=with_sender(old_page, ae_title="CT_1")),
    ):
        assert answer.status_code == 409
        assert "changed on disk since you opened them" in answer.text
    assert "MR_VIDA" in node.config.read_text()
    assert "CT_1" not in node.config.read_text()


def test_a_bad_file_leaves_the_old_configuration_running_and_is_told(node: LocalNode) -> None:
    client = browser(node)
    good = node.config.read_text()
    node.config.write_text(good.replace("quiet_s = 5.0", "quiet_s = -5.0"))
    wait_until(lambda: "assembly.quiet_s" in client.get("/health").json()["configuration_problem"])
    assert httpx.get(node.health_url, timeout=PATIENCE_S).json()["configuration_problem"] == FOR_ADMINS
    assert httpx.get(node.health_url, timeout=PATIENCE_S).status_code == 200
    assert echo(node, "SCANNER")
    assert "The file on disk is not used" in client.get("/configuration").text
    wait_until(lambda: "event=configuration_kept" in node.log_tail(100_000))
    node.config.write_text(good.replace("SCANNER", "MR_VIDA"))
    wait_until(lambda: echo(node, "MR_VIDA"))
    wait_until(lambda: client.get("/health").json()["configuration_problem"] == "")
    assert not echo(node, "SCANNER")


def test_what_needs_a_restart_is_named(node: LocalNode) -> None:
    node.config.write_text(node.config.read_text().replace("min_free_bytes = 500000000", "min_free_bytes = 400000000"))
    wait_until(lambda: bool(httpx.get(node.health_url, timeout=PATIENCE_S).json()["configuration_restart_needed"]))
    assert browser(node).get("/health").json()["configuration_restart_needed"] == ["listener.min_free_bytes"]
    assert "With the next start take effect: listener.min_free_bytes" in browser(node).get("/configuration").text


def test_the_worker_begins_anew_for_a_new_rule_and_keeps_its_process(tmp_path: Path) -> None:
    with started(tmp_path / "node", "serve") as node:
        wait_until(lambda: "event=worker_ready" in node.log_tail(100_000), seconds=STUDY_S)
        (worker,) = node.worker_pids()
        rules = node.config.with_name("series_rules.toml")
        rules.write_text(
            rules.read_text()
            + '\n[[rule]]\nname = "none of ours"\nrole = "OTHER"\nwhen = { inversion_time_ms = { min = 2200.0 } }\n'
            "examples = [{ inversion_time_ms = 2250.0 }]\ncounterexamples = [{ inversion_time_ms = 2050.0 }]\n"
        )
        wait_until(lambda: node.log_tail(100_000).count("event=worker_ready") == 2, seconds=STUDY_S)
        assert node.worker_pids() == [worker]
        assert "worker_died" not in node.log_tail(100_000)
        assert store(node, "SCANNER", images_in(tmp_path / "images", MRC, HYDROPS))
        wait_until(lambda: any("none of ours" in str(one) for one in decisions(node)), seconds=STUDY_S)


def decisions(node: LocalNode) -> list[object]:
    record = node.ledger.get("2.25.100")
    return list(record.decisions) if record is not None else []


def test_the_dry_run_shows_what_a_rule_would_do_to_a_past_study_and_changes_nothing(
    node: LocalNode, tmp_path: Path
) -> None:
    assert store(node, "SCANNER", images_in(tmp_path / "images", MRC, HYDROPS))
    client = browser(node)
    entered = fields(client.get("/configuration").text) | {"do": "check", "rules-count": "2"}
    entered |= {
        "rules-1-name": "not ours",
        "rules-1-role": "OTHER",
        "rules-1-when": "{ inversion_time_ms = { min = 2200.0 } }",
        "rules-1-examples": "[{ inversion_time_ms = 2250.0 }]",
        "rules-1-counterexamples": "[{ inversion_time_ms = 2050.0 }]",
    }
    review = client.post("/configuration/forms", data=entered)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", review.text))
    assert "would be taken otherwise" in text
    assert "HYDROPS, used OTHER" in text
    assert "not ours" in text
    assert '[[rule]]\nname = "not ours"' not in node.config.with_name("series_rules.toml").read_text()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("listener.port", "99999", "expected 1 to 65535, found 99999"),
        ("peers-0-networks", "10.1.2.3/24", "networks like 10.1.2.0/24"),
        ("peers-0-ae_title", '"><script>alert(1)</script>', "an AE title of 1 to 16 printable characters"),
        ("node.ae_title", "A\\B\n[web]\nport = 1", "an AE title of 1 to 16 printable characters"),
        ("rules-0-when", "{ sequence_name = { pattern = '(' } }", "not a regular expression"),
    ],
)
def test_hostile_and_wrong_input_is_told_in_words_and_written_nowhere(
    node: LocalNode, key: str, value: str, words: str
) -> None:
    before = node.config.read_bytes()
    client = browser(node)
    answer = client.post(
        "/configuration/forms", data=fields(client.get("/configuration").text) | {"do": "check", key: value}
    )
    assert answer.status_code == 422
    assert words in html.unescape(answer.text)
    assert "<script>alert" not in answer.text
    assert fields(answer.text)[key] == value
    assert node.config.read_bytes() == before


def test_only_admins_see_or_change_the_configuration(node: LocalNode) -> None:
    reader = browser(node, "rita")
    assert reader.get("/configuration").status_code == 403
    token = hidden(reader.get("/studies").text, "csrf_token")
    sent = {"csrf_token": token, "settings": "", "rules": "", "digest": ""}
    assert reader.post("/configuration/save", data=sent).status_code == 403
    admin = browser(node)
    assert admin.post("/configuration/save", data=sent).status_code == 403  # another session's token


def test_secrets_stand_on_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDROPS_DESTINATION_PACS_PASSWORD", "marker-secret")
    with started(tmp_path, "listen") as node:
        client = browser(node)
        pages = [client.get(path).text for path in ("/configuration", "/configuration/files", "/configuration/backups")]
        pages.append(client.post("/configuration/forms", data=fields(pages[0]) | {"do": "check"}).text)
    assert all("marker-secret" not in page for page in pages)
