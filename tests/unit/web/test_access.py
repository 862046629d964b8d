"""Who may ask for what (S07, S09, S10): every route with every role, CSRF, cookies, headers, and what errors say."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dashboard_parts import PASSWORD, PEOPLE, Dashboard, hidden, make_parts, post, serving, sign_in
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from patience import PATIENCE_S
from planted_studies import STUDY, plant, plant_objects, work_of

from dicom_node import web
from dicom_node.accounts.roles import Role
from dicom_node.audit import AuditAction
from dicom_node.web.access import PUBLIC, check_every_route, least_role, require, routes_of
from dicom_node.web.app import create_app
from dicom_node.web.headers import MAX_BODY_BYTES


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    parts = make_parts(tmp_path_factory.mktemp("node"))
    plant(parts)
    plant_objects(parts)
    with serving(parts) as served:
        yield served


@pytest.fixture(scope="module")
def people(dashboard: Dashboard) -> dict[str, httpx.Client]:
    return {name: dashboard.client(name) for name in PEOPLE} | {"nobody": dashboard.client()}


STATIC = Path(web.__file__).with_name("static")


# --- Roles ------------------------------------------------------------------------------------------------------------

VALUES = {
    "uid": STUDY,
    "study_instance_uid": STUDY,
    "object_uid": "2.25.901",
    "action": "replay",
    "work_id": "0" * 64,
    "form": "csv",
}
"""What stands for the names in a path; any other name becomes "1"."""


def filled(path: str) -> str:
    return re.sub(r"{(\w+)(?::\w+)?}", lambda name: VALUES.get(name[1], "1"), path)


def every_route(folder: Path) -> list[tuple[str, str, Role | None]]:
    """Method, path with values, and the least role of every route."""
    app = create_app(make_parts(folder))
    return [
        (method, filled(route.path), least_role(route))
        for route in routes_of(app.routes)
        if isinstance(route, APIRoute)
        for method in sorted(route.methods)
    ]


def test_every_role_gets_what_it_may_and_nothing_else(
    dashboard: Dashboard, people: dict[str, httpx.Client], tmp_path: Path
) -> None:
    allowed: dict[tuple[str, str], list[str]] = {}
    routes = every_route(tmp_path)
    for method, path, least in routes:
        for name, client in people.items():
            # Without a CSRF token nothing changes: a role that is too low is refused before, the others after.
            answer = client.request(method, path, follow_redirects=False)
            denied = answer.status_code in (401, 403) or answer.headers.get("location", "").startswith("/sign-in")
            if method == "GET" and least is not None:
                may = PEOPLE.get(name, 0) >= least
                assert denied is not may, (method, path, name, answer.status_code)
            if method == "POST" and least is not None:
                assert denied, (method, path, name, answer.status_code)
            if not denied:
                allowed.setdefault((method, path), []).append(name)
    assert len(routes) > 15
    assert allowed["GET", "/studies"] == ["vera", "rita", "ada"]
    assert allowed["GET", f"/studies/{STUDY}/actions/replay"] == ["ada"]
    assert allowed["GET", "/reviews.csv"] == ["rita", "ada"]


@pytest.mark.parametrize(
    ("name", "path", "fields", "expected"),
    [
        ("vera", f"/studies/{STUDY}/reviews", {"work_id": work_of(STUDY), "verdict": "accepted"}, 403),
        ("rita", f"/studies/{STUDY}/reviews", {"work_id": work_of(STUDY), "verdict": "accepted"}, 303),
        ("vera", f"/studies/{STUDY}/actions/replay", {}, 403),
        ("rita", f"/studies/{STUDY}/actions/replay", {}, 403),
        ("ada", f"/studies/{STUDY}/actions/replay", {}, 303),
    ],
)
def test_with_a_good_token_the_role_decides(
    people: dict[str, httpx.Client], name: str, path: str, fields: dict[str, str], expected: int
) -> None:
    assert post(people[name], path, **fields).status_code == expected


def test_only_health_wake_up_metrics_and_signing_in_are_for_everybody(tmp_path: Path) -> None:
    public = {(method, path) for method, path, least in every_route(tmp_path) if least is None}
    assert public == {
        ("GET", "/live"),
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("POST", "/wake/orthanc"),
        ("GET", "/sign-in"),
        ("POST", "/sign-in"),
    }


def test_an_application_with_a_route_that_names_no_role_is_not_built() -> None:
    app, router = FastAPI(), APIRouter()
    router.add_api_route("/open", lambda: "", dependencies=[PUBLIC])
    router.add_api_route("/guarded", lambda: "", dependencies=[require(Role.ADMIN)])
    app.include_router(router)
    app.router.routes = [one for one in app.router.routes if getattr(one, "path", "") not in OF_FASTAPI]
    check_every_route(app)
    app.add_api_route("/forgotten", lambda: "")
    with pytest.raises(RuntimeError, match="/forgotten"):
        check_every_route(app)


OF_FASTAPI = ("/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc")


def test_no_route_changes_a_user_so_nobody_can_raise_a_role(tmp_path: Path) -> None:
    assert [path for _, path, _ in every_route(tmp_path) if "user" in path or "role" in path] == []


def test_a_refused_request_is_in_the_audit_trail(dashboard: Dashboard, people: dict[str, httpx.Client]) -> None:
    people["vera"].get(f"/studies/{STUDY}/actions/cancel")
    denied = [one for one in dashboard.parts.audit.entries() if one.action is AuditAction.ACCESS_DENIED]
    assert any(one.message["ActiveParticipant"][0]["UserID"] == "vera" for one in denied)


# --- CSRF and sessions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "0" * 64, None])
def test_a_change_without_the_sessions_token_is_refused(dashboard: Dashboard, token: str | None) -> None:
    client = dashboard.client("ada")
    fields = {} if token is None else {"csrf_token": token}
    assert client.post("/theme", data={"theme": "dark", **fields}).status_code == 403


def test_the_token_of_another_session_does_not_help(dashboard: Dashboard) -> None:
    foreign = hidden(dashboard.client("vera").get("/studies").text, "csrf_token")
    answer = dashboard.client("ada").post("/theme", data={"theme": "dark", "csrf_token": foreign})
    assert answer.status_code == 403


def test_the_token_may_come_as_a_header(dashboard: Dashboard) -> None:
    client = dashboard.client("ada")
    token = hidden(client.get("/studies").text, "csrf_token")
    assert client.post("/theme", data={"theme": "dark"}, headers={"X-CSRF-Token": token}).status_code == 303


def test_the_sessions_cookie_is_out_of_reach_for_scripts_and_other_sites(dashboard: Dashboard) -> None:
    answer = sign_in(dashboard.client(), "ada")
    (cookie,) = [one for one in answer.headers.get_list("set-cookie") if one.startswith("hydrops_session=")]
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= attributes


def test_signing_out_ends_the_session_on_the_server(dashboard: Dashboard) -> None:
    client = dashboard.client("vera")
    kept = client.cookies["hydrops_session"]
    assert post(client, "/sign-out").headers["location"] == "/sign-in"
    again = dashboard.client()
    again.cookies.set("hydrops_session", kept)
    assert again.get("/studies").headers["location"] == "/sign-in"


# --- Signing in -------------------------------------------------------------------------------------------------------


def test_a_wrong_name_and_a_wrong_password_get_the_same_answer(dashboard: Dashboard) -> None:
    unknown = sign_in(dashboard.client(), "nobody", PASSWORD)
    wrong = sign_in(dashboard.client(), "vera", "not the password")
    assert (unknown.status_code, wrong.status_code) == (401, 401)
    assert "Name or password is not right." in unknown.text
    assert re.sub(r'value="[^"]*"', "", unknown.text) == re.sub(r'value="[^"]*"', "", wrong.text)


def test_after_five_wrong_passwords_even_the_right_one_has_to_wait(tmp_path: Path) -> None:
    with serving(make_parts(tmp_path)) as dashboard:
        client = dashboard.client()
        answers = [sign_in(client, "vera", "not the password").status_code for _ in range(6)]
        assert answers == [401, 401, 401, 401, 401, 429]
        assert sign_in(client, "vera").status_code == 429
        assert sign_in(client, "rita").status_code == 303


def test_a_right_password_among_many_tries_at_once_waits_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = make_parts(tmp_path)
    verified = parts.users.verified

    def while_others_fail(name: str, password: str) -> object:
        for _ in range(5):
            parts.pauses.failed(name, "127.0.0.1", at=parts.clock())
        return verified(name, password)

    monkeypatch.setattr(parts.users, "verified", while_others_fail)
    with serving(parts) as dashboard:
        assert sign_in(dashboard.client(), "vera").status_code == 429


@pytest.mark.parametrize("name", ["a\x00b", "ada' OR '1'='1", "<script>", "\u202eada", "x" * 64])
def test_a_name_that_nobody_can_have_is_a_wrong_name(dashboard: Dashboard, name: str) -> None:
    assert sign_in(dashboard.client(), name).status_code == 401


def test_signing_in_needs_the_form_of_this_browser(dashboard: Dashboard) -> None:
    answer = dashboard.client().post("/sign-in", data={"name": "ada", "password": PASSWORD, "form_token": "guessed"})
    assert answer.status_code == 403
    assert "hydrops_session" not in answer.cookies


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/studies/2.25.1", "/studies/2.25.1"),
        ("//evil.example", "/studies"),
        ("/\\evil.example", "/studies"),
        ("https://evil.example", "/studies"),
        ("/a\r\nSet-Cookie: x=1", "/studies"),
    ],
)
def test_after_signing_in_one_stays_on_this_node(dashboard: Dashboard, target: str, expected: str) -> None:
    assert sign_in(dashboard.client(), "vera", next=target).headers["location"] == expected


def test_a_page_that_was_asked_for_comes_after_signing_in(dashboard: Dashboard) -> None:
    client = dashboard.client()
    form = client.get(f"/studies/{STUDY}").headers["location"]
    assert hidden(client.get(form).text, "next") == f"/studies/{STUDY}"


def test_after_a_form_that_was_sent_too_late_signing_in_leads_to_a_page(dashboard: Dashboard) -> None:
    answer = dashboard.client().post(f"/studies/{STUDY}/reviews", data={"comment": "written for long"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")


def test_a_node_without_users_says_how_to_make_one_and_lets_nobody_in(tmp_path: Path) -> None:
    with serving(make_parts(tmp_path, people={})) as dashboard:
        page = dashboard.client().get("/", follow_redirects=True)
        assert "hydrops-node user add NAME --role admin" in page.text
        assert 'type="password"' not in page.text
        form = {"name": "admin", "password": "admin", "form_token": dashboard.client().cookies.get("x", "")}
        assert dashboard.client().post("/sign-in", data=form).status_code in (401, 403)


def test_signing_in_and_out_and_failing_to_are_audited(dashboard: Dashboard) -> None:
    client = dashboard.client("rita")
    post(client, "/sign-out")
    sign_in(dashboard.client(), "rita", "not the password")
    entries = [
        one for one in dashboard.parts.audit.entries() if one.message["ActiveParticipant"][0]["UserID"] == "rita"
    ]
    outcomes = [(one.action, one.message["EventIdentification"]["EventOutcomeIndicator"]) for one in entries]
    assert (AuditAction.LOGIN, "0") in outcomes
    assert (AuditAction.LOGOUT, "0") in outcomes
    assert (AuditAction.LOGIN, "4") in outcomes


# --- What every answer carries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/studies", "/sign-in", "/nothing", "/static/node.css", "/live", f"/studies/{STUDY}"])
def test_every_answer_forbids_foreign_scripts_frames_and_guesses(people: dict[str, httpx.Client], path: str) -> None:
    headers = people["ada"].get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == ("public, max-age=300" if path.startswith("/static/") else "no-store")
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize("origin", ["http://elsewhere.example", "null"])
def test_no_other_origin_gets_permission(people: dict[str, httpx.Client], origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    answer = people["ada"].options("/theme", headers=asked)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_no_style_fades_words_below_the_contrast_of_their_colors() -> None:
    styles = "".join(file.read_text(encoding="utf-8") for file in STATIC.glob("*.css"))
    styles = re.sub(r"/\*.*?\*/", "", styles, flags=re.DOTALL)
    faded = {one.strip() for one in re.findall(r"([^{}]+)\{[^{}]*\bopacity:", styles)}
    assert faded == {".ear-right .bar-interval", ".ear-left .bar-interval", ".choice input", ".plot .interval"}


def test_no_page_has_an_inline_script_style_or_handler(people: dict[str, httpx.Client]) -> None:
    for path in ("/studies", f"/studies/{STUDY}", f"/studies/{STUDY}/actions/cancel", "/sign-in", "/nothing"):
        text = people["ada"].get(path).text
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), path
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text), path


PROGRAM = {"Accept": "*/*"}
EVIL = "/<script>alert(1)</script>"


def test_errors_for_programs_are_plain_text_and_repeat_nothing(dashboard: Dashboard) -> None:
    client = dashboard.client("ada")
    for path in (EVIL, f"/studies/{EVIL}", "/studies?page=<script>", "/studies?state=<script>", "/studies?search=<b>"):
        answer = client.get(path, headers=PROGRAM)
        assert answer.status_code in (400, 404), path
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert "script" not in answer.text


def test_errors_for_people_are_pages_that_repeat_nothing(dashboard: Dashboard) -> None:
    for path in (EVIL, "/studies?state=<script>alert(1)</script>"):
        answer = dashboard.client("ada").get(path)
        assert answer.status_code in (400, 404)
        assert "alert" not in answer.text
        assert "To the studies" in answer.text


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_a_fault_of_ours_is_answered_with_the_same_headers(tmp_path: Path, accept: str) -> None:
    class Faulty:
        def snapshot(self) -> None:
            raise KeyError("a bug of ours")

    with serving(make_parts(tmp_path, health=Faulty())) as dashboard:
        answer = httpx.get(f"{dashboard.url}/health", headers={"Accept": accept}, timeout=PATIENCE_S)
    assert answer.status_code == 500
    assert "a bug of ours" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_an_unknown_study_is_not_found(people: dict[str, httpx.Client]) -> None:
    assert people["vera"].get("/studies/2.25.404").status_code == 404


def test_a_program_without_session_is_told_so_and_not_sent_to_a_form(dashboard: Dashboard) -> None:
    answer = httpx.get(f"{dashboard.url}/studies", headers=PROGRAM, timeout=PATIENCE_S)
    assert (answer.status_code, answer.text) == (401, "Sign in first.\n")


def test_a_request_that_carries_too_much_is_turned_away_before_it_is_read(dashboard: Dashboard) -> None:
    client = dashboard.client("ada")
    answer = client.post("/theme", content=b"x" * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413
    endless = (b"x" * 65536 for _ in range(2 * MAX_BODY_BYTES // 65536))
    with contextlib.suppress(httpx.RemoteProtocolError):  # the node may hang up while we are still sending
        assert client.post("/theme", content=endless).status_code in (400, 403, 413)
