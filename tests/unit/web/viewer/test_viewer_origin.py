"""The viewer's server: OHIF's files, our configuration, a reading window to the archive, nobody without a session."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from fastapi import Request
from starlette.testclient import TestClient

from dicom_node.accounts.roles import Role
from dicom_node.accounts.sessions import SessionLimits, Sessions
from dicom_node.accounts.users import Users
from dicom_node.audit import AuditAction, AuditTrail
from dicom_node.database import open_database
from dicom_node.errors import TransientError
from dicom_node.web.viewer.access import NOBODY, TRUSTED_FOR_S, Doors, Onlooker, SessionGate
from dicom_node.web.viewer.archive import Archive
from dicom_node.web.viewer.installation import packed_file
from dicom_node.web.viewer.links import viewer_link
from dicom_node.web.viewer.origin import ViewerParts, create_viewer_app
from dicom_node.web.viewing_audit import ViewingAudit

SCRIPT = "window.PUBLIC_URL='/'"
STUDY = "studies/1.2.3"
INSTANCE = f"{STUDY}/series/1.2.4/instances/1.2.5"


class RecordingArchive(ThreadingHTTPServer):
    """A DICOMweb server that writes down what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[dict[str, str]] = []
        self.status = 200
        self.hang_ups = 0


class _Answer(BaseHTTPRequestHandler):
    server: RecordingArchive

    def do_GET(self) -> None:
        if self.server.hang_ups:
            self.server.hang_ups -= 1
            self.close_connection = True
            return
        self.server.asked.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        body = json.dumps({"path": self.path}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", "archive=1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def archive() -> Iterator[RecordingArchive]:
    server = RecordingArchive()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "ohif"
    folder.mkdir()
    (folder / "index.html").write_text(f"<html><script>{SCRIPT}</script></html>")
    (folder / "app.bundle.0f6159c501addfe9.js").write_text("1")
    (folder / "manifest.json").write_text("{}")
    (folder / "sw.js").write_text("importScripts('https://elsewhere.example')")
    (folder / "app-config.js").write_text("demonstration server")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


def viewer(
    files: Path,
    url: str,
    *,
    host: str = "127.0.0.1",
    may_look: bool = True,
    proxy_name: str = "",
    opened: Callable[[Onlooker, str, str], None] = lambda _who, _study, _address: None,
    searched: Callable[[Onlooker, str, str], None] = lambda _who, _query, _address: None,
) -> TestClient:
    parts = ViewerParts(
        files=files,
        archive=Archive(url=f"{url}/dicom-web", username="hydrops", password="pass"),
        doors=Doors(
            host=host,
            dashboard_url=lambda name: "" if proxy_name else f"http://{name}:8080/",
            proxy_name=proxy_name,
        ),
        onlooker=lambda _request: Onlooker(name="vera", session_id="1") if may_look else None,
        opened=opened,
        searched=searched,
    )
    return TestClient(create_viewer_app(parts), base_url="http://127.0.0.1:8081", follow_redirects=False)


@pytest.fixture
def client(files: Path, archive: RecordingArchive) -> Iterator[TestClient]:
    with viewer(files, f"http://127.0.0.1:{archive.server_port}") as opened:
        yield opened


@pytest.mark.parametrize(
    "path",
    [
        "studies",
        f"{STUDY}/metadata",
        f"{STUDY}/series",
        f"{STUDY}/series/1.2.4/metadata",
        INSTANCE,
        f"{INSTANCE}/frames/1,2,3",
        f"{INSTANCE}/bulk/7FE00010",
        f"{INSTANCE}/bulk/52009230/1/7FE00010",
    ],
)
def test_what_ohif_reads_passes_with_our_password_and_its_own_address(
    client: TestClient, archive: RecordingArchive, path: str
) -> None:
    answer = client.get(f"/dicom-web/{path}", headers={"Accept": "multipart/related", "Cookie": "session=secret"})
    assert answer.json() == {"path": f"/dicom-web/{path}"}
    (asked,) = archive.asked
    assert asked["authorization"] == "Basic " + base64.b64encode(b"hydrops:pass").decode()
    assert asked["forwarded"] == "host=127.0.0.1:8081;proto=http"
    assert (asked["accept"], asked["accept-encoding"]) == ("multipart/related", "identity")
    assert "cookie" not in asked
    assert "set-cookie" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "",
        STUDY,
        f"{STUDY}/series/1.2.4",
        "../system",
        "%2e%2e/system",
        "studies/..%2f..%2finstances",
        "studies/1.2.3%3Fx=1/metadata",
        "studies/1.2.3/../../system",
        f"studies/{'1' * 65}/metadata",
        f"{INSTANCE}/frames/1,",
        f"{INSTANCE}/bulk/7FE00010/../../x",
        "studies/%2e%2e/instances",
        "studies/%2e%2e/series/%2e%2e/metadata",
        "studies/%2e/series",
        "servers",
    ],
)
def test_no_other_path_reaches_the_archive(client: TestClient, archive: RecordingArchive, path: str) -> None:
    assert client.get(f"/dicom-web/{path}").status_code in (200, 404)
    assert archive.asked == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_the_archive_is_read_only(client: TestClient, archive: RecordingArchive, method: str) -> None:
    assert client.request(method, "/dicom-web/studies").status_code == 405
    assert archive.asked == []


def test_a_search_passes_and_an_endless_one_does_not(client: TestClient, archive: RecordingArchive) -> None:
    client.get("/dicom-web/studies?PatientID=7&limit=10")
    assert [one["path"] for one in archive.asked] == ["/dicom-web/studies?PatientID=7&limit=10"]
    assert client.get(f"/dicom-web/studies?PatientID={'7' * 3000}").status_code == 414
    client.get(f"/dicom-web/{INSTANCE}/frames/1?accept=text/html")
    assert archive.asked[-1]["path"].endswith("/frames/1")


@pytest.mark.parametrize("status", [401, 403])
def test_a_password_that_the_archive_refuses_is_our_fault_and_asks_nobody_for_one(
    client: TestClient, archive: RecordingArchive, status: int
) -> None:
    archive.status = status
    answer = client.get("/dicom-web/studies")
    assert answer.status_code == 502
    assert "viewer.username" in answer.text
    assert "www-authenticate" not in answer.headers


def test_a_connection_that_the_archive_just_closed_costs_no_image(
    client: TestClient, archive: RecordingArchive
) -> None:
    archive.hang_ups = 1
    assert client.get(f"/dicom-web/{INSTANCE}/frames/1").status_code == 200
    archive.hang_ups = 2
    assert client.get(f"/dicom-web/{INSTANCE}/frames/1").status_code == 502
    assert len(archive.asked) == 1


def test_an_archive_that_is_not_there_is_said_to_be_unreachable(files: Path) -> None:
    with viewer(files, "http://127.0.0.1:9") as client:
        answer = client.get("/dicom-web/studies")
    assert (answer.status_code, "cannot be reached" in answer.text) == (502, True)


def test_pages_of_ohif_are_its_index_and_missing_files_are_missing(client: TestClient) -> None:
    for path in ("/", "/viewer?StudyInstanceUIDs=1.2.3", "/local"):
        assert SCRIPT in client.get(path).text
    assert client.get("/nothing.js").status_code == 404
    for path in ("/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt"):
        assert "secret" not in client.get(path).text


@pytest.mark.parametrize("path", ["a%00b.js", "x" * 300])
def test_a_path_that_no_file_can_have_is_missing(client: TestClient, path: str) -> None:
    assert client.get(f"/{path}").status_code == 404


def test_browsers_keep_only_files_whose_name_changes_with_their_content(client: TestClient) -> None:
    assert "immutable" in client.get("/app.bundle.0f6159c501addfe9.js").headers["cache-control"]
    for path in ("/", "/manifest.json", "/app-config.js", "/init-service-worker.js"):
        assert client.get(path).headers["cache-control"] == "no-cache"


def test_a_browser_that_has_a_file_already_does_not_get_it_again(client: TestClient) -> None:
    for path in ("/", "/manifest.json", "/app-config.js", "/app.bundle.0f6159c501addfe9.js"):
        had = client.get(path).headers["etag"]
        again = client.get(path, headers={"If-None-Match": had})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(path, headers={"If-None-Match": '"another"'}).status_code == 200


def test_large_files_travel_packed_to_browsers_that_take_it(files: Path, archive: RecordingArchive) -> None:
    program = "const a = 1;\n" * 5000
    bundle = files / "app.bundle.0f6159c501addfe9.js"
    bundle.write_text(program)
    packed_file(bundle).write_bytes(gzip.compress(program.encode()))
    with viewer(files, f"http://127.0.0.1:{archive.server_port}") as client:
        for taken, encoding in [
            ("gzip, deflate, br", "gzip"),
            ("br;q=1, gzip;q=0.5", "gzip"),
            ("gzip;q=0", ""),
            ("", ""),
        ]:
            answer = client.get(f"/{bundle.name}", headers={"Accept-Encoding": taken})
            assert (answer.text, answer.headers.get("content-encoding", "")) == (program, encoding)
            assert answer.headers["content-type"].partition(";")[0] == "text/javascript"
            assert answer.headers["vary"] == "Accept-Encoding"
            assert "immutable" in answer.headers["cache-control"]


def test_ohifs_own_configuration_and_service_worker_are_replaced(client: TestClient) -> None:
    assert "demonstration server" not in client.get("/app-config.js").text.replace("* demonstration server.", "")
    assert "/dicom-web" in client.get("/app-config.js").text
    assert client.get("/sw.js").status_code == 404
    assert "importScripts" not in client.get("/init-service-worker.js").text


def test_the_policy_names_no_other_host_and_the_pages_scripts_by_digest(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "http" not in policy
    assert "*" not in policy
    assert f"'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    for directive in ("default-src 'none'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"):
        assert directive in policy


def test_another_name_that_leads_to_this_machine_reads_nothing(client: TestClient, archive: RecordingArchive) -> None:
    for path in ("/", "/dicom-web/studies"):
        assert client.get(path, headers={"Host": "evil.example:8081"}).status_code == 421
    assert archive.asked == []


def test_a_proxy_on_this_machine_shows_the_viewer_under_the_name_that_is_configured(
    files: Path, archive: RecordingArchive
) -> None:
    url, name = f"http://127.0.0.1:{archive.server_port}", "viewer.hospital.example"
    with viewer(files, url, proxy_name=name) as client:
        assert client.get("/dicom-web/studies", headers={"Host": name}).status_code == 200
        assert client.get("/dicom-web/studies", headers={"Host": f"evil.{name}"}).status_code == 421
    with viewer(files, url, proxy_name=name, may_look=False) as client:
        page = client.get("/", headers={"Host": name, "Accept": "text/html"})
    assert (page.status_code, page.text) == (401, "Sign in at the dashboard first.")


def test_opening_a_study_stands_in_the_audit_trail_once_for_each_session(
    files: Path, archive: RecordingArchive, tmp_path: Path
) -> None:
    trail = AuditTrail(tmp_path / "audit")
    viewing = ViewingAudit(trail, where="in the viewer")

    def opened(who: Onlooker, study: str, address: str) -> None:
        viewing.note(
            name=who.name, session_id=who.session_id, address=address, study_instance_uid=study, find_card=lambda: None
        )

    with viewer(files, f"http://127.0.0.1:{archive.server_port}", opened=opened) as client:
        client.get("/dicom-web/studies?limit=101")
        client.get(f"/dicom-web/{STUDY}/series")
        assert list(trail.entries()) == []  # a list of studies is no study's images
        for path in (f"{STUDY}/metadata", f"{INSTANCE}/frames/1", "studies/9.9/metadata", INSTANCE):
            assert client.get(f"/dicom-web/{path}").status_code == 200
    written = [entry.message for entry in trail.entries()]
    assert [one["ActiveParticipant"][0]["UserID"] for one in written] == ["vera", "vera"]
    assert [one["ParticipantObjectIdentification"][0]["ParticipantObjectID"] for one in written] == ["1.2.3", "9.9"]
    assert {one["EventIdentification"]["EventOutcomeDescription"] for one in written} == {"in the viewer"}


def test_s24_a_search_stands_in_the_audit_trail_without_whom_it_was_for(
    files: Path, archive: RecordingArchive, tmp_path: Path
) -> None:
    trail = AuditTrail(tmp_path / "audit")
    viewing = ViewingAudit(trail, where="in the viewer")

    def searched(who: Onlooker, query: str, address: str) -> None:
        viewing.note_search(
            name=who.name, session_id=who.session_id, address=address, query=query, archive="archive.example:8042"
        )

    by_name = "studies?PatientName=Secret%5EPerson*&PatientID=4711&StudyDate=20260301-&limit=101&fuzzymatching=true"
    with viewer(files, f"http://127.0.0.1:{archive.server_port}", searched=searched) as client:
        for path in (by_name, by_name, f"{STUDY}/series", "studies", f"{INSTANCE}/frames/1"):
            assert client.get(f"/dicom-web/{path}").status_code == 200
    assert {entry.action for entry in trail.entries()} == {AuditAction.ARCHIVE_SEARCHED}
    written = [entry.message for entry in trail.entries()]
    queries = [one["ParticipantObjectIdentification"][0]["ParticipantObjectQuery"] for one in written]
    assert [base64.b64decode(one).decode() for one in queries] == [
        "studies?PatientName=*&PatientID=*&StudyDate=20260301-&limit=101&fuzzymatching=true",
        "studies/1.2.3/series",
        "studies",
    ]
    assert [one["UserID"] for one in written[0]["ActiveParticipant"][::2]] == ["vera", "archive.example:8042"]


@pytest.mark.parametrize("path", [f"{INSTANCE}/frames/1", "studies?limit=101", f"{STUDY}/series"])
def test_what_cannot_be_audited_is_not_shown(files: Path, archive: RecordingArchive, path: str) -> None:
    def disk_is_full(_who: Onlooker, _what: str, _address: str) -> None:
        raise TransientError("audit trail: no space left on device")

    url = f"http://127.0.0.1:{archive.server_port}"
    with viewer(files, url, opened=disk_is_full, searched=disk_is_full) as client:
        answer = client.get(f"/dicom-web/{path}")
    assert (answer.status_code, "audit trail" in answer.text) == (503, True)
    assert archive.asked == []


def test_who_is_not_signed_in_is_sent_to_the_dashboard_and_gets_no_image(
    files: Path, archive: RecordingArchive
) -> None:
    with viewer(files, f"http://127.0.0.1:{archive.server_port}", may_look=False) as client:
        page = client.get("/viewer?StudyInstanceUIDs=1.2.3", headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["location"]) == (303, "http://127.0.0.1:8080/")
        page = client.get("/", headers={"Accept": "text/html", "Host": "[::1]:8081"})
        assert page.headers["location"] == "http://[::1]:8080/"
        assert client.get("/dicom-web/studies", headers={"Accept": "text/html"}).status_code == 401
        assert client.get("/app.bundle.0f6159c501addfe9.js").status_code == 401
    assert archive.asked == []


class Clock:
    """A time that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def request_with(token: str) -> Request:
    headers = [(b"cookie", f"hydrops_session={token}".encode())] if token else []
    return Request({"type": "http", "scheme": "http", "path": "/", "query_string": b"", "headers": headers})


def test_the_dashboards_session_opens_the_viewer_until_it_ends(tmp_path: Path) -> None:
    engine, clock = open_database(f"sqlite:///{tmp_path / 'node.db'}"), Clock()
    users, sessions = (
        Users(engine, hasher=PasswordHasher(time_cost=1, memory_cost=64)),
        Sessions(engine, SessionLimits()),
    )
    gate = SessionGate(users, sessions, open_without_users=True, clock=clock)
    assert gate.onlooker(request_with("")) == Onlooker(name=NOBODY, session_id="")  # nobody can sign in yet
    clock.now += TRUSTED_FOR_S + 1
    users.add("vera", Role.VIEWER, "correct horse battery", at=clock.now)
    assert not gate.onlooker(request_with(""))
    assert not gate.onlooker(request_with("guessed"))
    clock.now += 1
    token = sessions.open("vera", at=clock.now)
    for _ in range(2):
        found = gate.onlooker(request_with(token))
        assert found is not None
        assert (found.name, len(found.session_id)) == ("vera", 64)
    sessions.close(token)
    clock.now += TRUSTED_FOR_S + 1
    assert not gate.onlooker(request_with(token))


def test_a_viewer_for_other_machines_shows_nothing_without_users(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    gate = SessionGate(Users(engine), Sessions(engine, SessionLimits()), open_without_users=False)
    assert not gate.onlooker(request_with(""))


@pytest.mark.parametrize(
    ("url", "host", "expected"),
    [
        ("http://{host}:8081", "node.example", "http://node.example:8081/viewer?StudyInstanceUIDs=1.2.3"),
        ("http://{host}:8081", "::1", "http://[::1]:8081/viewer?StudyInstanceUIDs=1.2.3"),
        ("https://view.example", "node", "https://view.example/viewer?StudyInstanceUIDs=1.2.3"),
        ("", "node", ""),
    ],
)
def test_the_link_keeps_the_name_under_which_the_dashboard_was_reached(url: str, host: str, expected: str) -> None:
    assert viewer_link(url, host, "1.2.3") == expected
