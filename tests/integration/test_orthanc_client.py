"""Orthanc's REST API when it misbehaves: every failure gets its class, nothing is followed, nothing hangs."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import certifi
import pytest
from certificates import Authority
from free_ports import free_port
from orthanc_parts import dicom_file
from patience import PATIENCE_S, wait_until

from dicom_node.database import open_database
from dicom_node.delivery.orthanc_rest import upload
from dicom_node.delivery.outcome import Destination, OutcomeKind
from dicom_node.errors import ConfigError, Reason, TransientError
from dicom_node.intake.orthanc_feed import FeedCondition, FeedOptions, OrthancFeed
from dicom_node.intake.orthanc_instance import InstanceOutcome, InstanceRefused, InstanceTaker, Taken
from dicom_node.intake.spool import Spool
from dicom_node.orthanc_client import OrthancClient
from dicom_node.orthanc_http import OrthancAccessDenied, OrthancAnswerInvalid, OrthancTooLarge, OrthancUnavailable

INSTANCE = "0a1b2c3d-0a1b2c3d-0a1b2c3d-0a1b2c3d-0a1b2c3d"
Answerer = Callable[["_Handler"], None]


class _Handler(BaseHTTPRequestHandler):
    """Answers as the test says; notes what was asked and with which headers."""

    server: StandIn

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.path, dict(self.headers)))
        self.server.answer(self)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


class StandIn(ThreadingHTTPServer):
    """Stands where Orthanc should."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answer: Answerer = lambda handler: handler.send(200, b"{}")
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(stand_in: StandIn) -> OrthancClient:
    return OrthancClient(stand_in.url, username="hydrops", password="pä", timeout_s=PATIENCE_S)


def test_a_redirect_is_not_followed(stand_in: StandIn, client: OrthancClient) -> None:
    with StandIn() as elsewhere:
        stand_in.answer = lambda handler: handler.send(302, Location=f"{elsewhere.url}/changes")
        with pytest.raises(OrthancAnswerInvalid, match="redirects elsewhere"):
            client.changes(since=0, limit=10)
        assert elsewhere.asked == []
    assert len(stand_in.asked) == 1


def test_pixels_are_asked_for_unzipped_and_the_password_goes_as_utf8(stand_in: StandIn, client: OrthancClient) -> None:
    client.instance_file(INSTANCE, limit_bytes=100)
    ((_, headers),) = stand_in.asked
    assert (headers["Accept-Encoding"], headers["Authorization"]) == ("identity", "Basic aHlkcm9wczpww6Q=")


def test_a_proxy_of_the_environment_is_not_used(
    stand_in: StandIn, client: OrthancClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "")
    assert client.instance_file(INSTANCE, limit_bytes=100) == b"{}"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, OrthancAccessDenied),
        (403, OrthancAccessDenied),
        (400, OrthancAnswerInvalid),
        (404, OrthancAnswerInvalid),
        (429, OrthancUnavailable),
        (500, OrthancUnavailable),
        (503, OrthancUnavailable),
    ],
)
def test_each_status_has_its_class_and_all_are_tried_again(
    stand_in: StandIn, client: OrthancClient, status: int, error: type[TransientError]
) -> None:
    stand_in.answer = lambda handler: handler.send(status)
    with pytest.raises(error) as raised:
        client.changes(since=0, limit=10)
    assert isinstance(raised.value, TransientError)


def test_an_image_that_is_gone_is_none_and_no_error(stand_in: StandIn, client: OrthancClient) -> None:
    stand_in.answer = lambda handler: handler.send(404)
    assert client.instance_file(INSTANCE, limit_bytes=100) is None
    assert client.instance_md5(INSTANCE) is None
    assert client.series(INSTANCE) is None


def test_a_body_cut_short_is_not_taken(stand_in: StandIn, client: OrthancClient) -> None:
    stand_in.answer = lambda handler: handler.send(200, b"half", Content_Length="1000")
    with pytest.raises(OrthancUnavailable):
        client.instance_file(INSTANCE, limit_bytes=2000)


def test_a_body_longer_than_allowed_is_not_read(stand_in: StandIn, client: OrthancClient) -> None:
    stand_in.answer = lambda handler: handler.send(200, b"x" * 1001)
    with pytest.raises(OrthancTooLarge, match="1001 bytes, at most 1000"):
        client.instance_file(INSTANCE, limit_bytes=1000)


def test_a_body_without_announced_length_is_cut_off_at_the_limit(stand_in: StandIn, client: OrthancClient) -> None:
    def endless(handler: _Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 65536)

    stand_in.answer = lambda handler: _until_closed(lambda: endless(handler))
    with pytest.raises(OrthancTooLarge, match="more than 1000000 bytes"):
        client.instance_file(INSTANCE, limit_bytes=1_000_000)


def _until_closed(write: Callable[[], None]) -> None:
    try:
        write()
    except (BrokenPipeError, ConnectionResetError):
        return


def test_silence_and_drops_are_given_up(stand_in: StandIn) -> None:
    client = OrthancClient(stand_in.url, username="hydrops", password="pä", timeout_s=1)
    given_up = threading.Event()  # until then the other side goes on, for ever

    def drip(handler: _Handler) -> None:
        handler.send(200, b"", Content_Length="100000")
        while not given_up.wait(0.2):
            handler.wfile.write(b".")
            handler.wfile.flush()

    for answer in (lambda handler: given_up.wait(), lambda handler: _until_closed(lambda: drip(handler))):
        given_up.clear()
        stand_in.answer = answer
        with pytest.raises(OrthancUnavailable):
            client.instance_file(INSTANCE, limit_bytes=200_000)
        given_up.set()


DIGEST = hashlib.md5(b"an image", usedforsecurity=False).hexdigest()


def answer_with_one_image(handler: _Handler, *, etag: str, asked_md5: str) -> None:
    if handler.path.endswith("/md5"):
        handler.send(200, asked_md5.encode())
    else:
        handler.send(200, b"an image", ETag=etag)


def take_it(client: OrthancClient, folder: Path, *, limit: int = 1000) -> Taken:
    engine = open_database(f"sqlite:///{folder / 'node.db'}")
    taker = InstanceTaker(
        client=client,
        spool=Spool(folder / "spool", engine),
        source="ORTHANC",
        max_instance_bytes=limit,
        transfer_syntaxes=None,
        clock=time.time,
    )
    return taker.take(INSTANCE)


def test_a_digest_that_comes_with_the_image_is_not_asked_for(
    stand_in: StandIn, client: OrthancClient, tmp_path: Path
) -> None:
    stand_in.answer = lambda handler: answer_with_one_image(handler, etag=f'"0-{DIGEST}"', asked_md5="")
    with pytest.raises(InstanceRefused, match="not a DICOM file"):
        take_it(client, tmp_path)
    assert [path.rpartition("/")[2] for path, _ in stand_in.asked] == ["data"]


@pytest.mark.parametrize("etag", ["", '"0-"', '"5f3-1f4"', f'W/"0-{DIGEST}"'], ids=["none", "empty", "other", "weak"])
def test_a_digest_that_does_not_come_with_the_image_is_asked_for(
    stand_in: StandIn, client: OrthancClient, tmp_path: Path, etag: str
) -> None:
    stand_in.answer = lambda handler: answer_with_one_image(handler, etag=etag, asked_md5="0" * 32)
    with pytest.raises(InstanceRefused, match="expected MD5 0000") as refused:
        take_it(client, tmp_path)
    assert refused.value.reason is Reason.SOURCE_CORRUPT


def test_an_image_is_refused_only_after_its_digest_was_asked_for_itself(
    stand_in: StandIn, client: OrthancClient, tmp_path: Path
) -> None:
    stand_in.answer = lambda handler: answer_with_one_image(handler, etag=f'"0-{"0" * 32}"', asked_md5=DIGEST)
    with pytest.raises(InstanceRefused, match="not a DICOM file"):
        take_it(client, tmp_path)
    assert [path.rpartition("/")[2] for path, _ in stand_in.asked] == ["data", "data", "md5"]


@pytest.mark.parametrize("page", ["<html>\nback soon\n</html>", "0" * 31, "g" * 32, "\0" * 32, "0" * 10_000])
def test_a_proxys_page_in_place_of_a_digest_says_nothing_against_the_image(
    stand_in: StandIn, client: OrthancClient, tmp_path: Path, page: str
) -> None:
    def answer(handler: _Handler) -> None:
        if handler.path.startswith("/changes"):
            handler.send(200, page_of())
        else:
            answer_with_one_image(handler, etag="", asked_md5=page)

    stand_in.answer = answer
    taken = take_it(client, tmp_path)
    assert taken.kind is InstanceOutcome.OWED
    assert len(taken.failure) < 200
    assert taken.failure.isprintable()


def test_an_archive_whose_certificate_no_known_authority_signed_is_not_spoken_to(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    own = authority.sign("orthanc")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    stand_in.socket = context.wrap_socket(stand_in.socket, server_side=True)
    url = stand_in.url.replace("http:", "https:")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))  # the environment names no authority of ours
    with pytest.raises(OrthancUnavailable, match="SSLError"):
        OrthancClient(url, timeout_s=PATIENCE_S).last_change()
    assert stand_in.asked == []
    monkeypatch.setattr(certifi, "where", lambda: str(authority.certificate))
    assert OrthancClient(url, timeout_s=PATIENCE_S).instance_file(INSTANCE, limit_bytes=100) == b"{}"


@pytest.mark.parametrize("length", ["\u00b2", "9" * 5000], ids=["sign", "digits"])
def test_a_length_that_is_no_number_says_nothing(stand_in: StandIn, client: OrthancClient, length: str) -> None:
    stand_in.answer = lambda handler: handler.send(200, b"0" * 200, Content_Length=length)
    with pytest.raises((OrthancTooLarge, OrthancUnavailable)):
        client.instance_file(INSTANCE, limit_bytes=100)


def test_a_zipped_answer_that_nobody_asked_for_is_refused(stand_in: StandIn, client: OrthancClient) -> None:
    stand_in.answer = lambda handler: handler.send(200, gzip.compress(b"0" * 10_000_000), Content_Encoding="gzip")
    with pytest.raises(OrthancAnswerInvalid, match="encoding 'gzip'"):
        client.instance_file(INSTANCE, limit_bytes=20_000_000)


@pytest.mark.parametrize(
    "body",
    [b"<html>It works!</html>", b"{}", b"[]", b"null", b'{"Changes": [{"Seq": "x"}], "Done": true, "Last": 1}'],
)
def test_an_answer_that_is_not_orthancs_is_named_as_such(stand_in: StandIn, client: OrthancClient, body: bytes) -> None:
    stand_in.answer = lambda handler: handler.send(200, body)
    with pytest.raises(OrthancAnswerInvalid):
        client.changes(since=0, limit=10)


def page_of(*numbers: str, last: str = "9", kind: str = "NewSeries") -> bytes:
    """A page of the change log whose rows have these numbers."""
    rows = [f'{{"Seq": {one}, "ChangeType": "{kind}", "ID": "{INSTANCE}", "Date": null}}' for one in numbers]
    return f'{{"Changes": [{", ".join(rows)}], "Done": true, "Last": {last}}}'.encode()


@pytest.mark.parametrize(
    "body",
    [
        page_of("0"),
        page_of("-1"),
        page_of("1e999"),
        page_of("Infinity"),
        page_of(str(2**63)),
        page_of("2", "2"),
        page_of("3", "2"),
        page_of(last="-1"),
        page_of(last="Infinity"),
        page_of("1", kind="x" * 65),
        b"[" * 200_000,
    ],
    ids=["zero", "negative", "too great", "infinite", "65 bits", "twice", "back", "last -1", "last", "kind", "deep"],
)
def test_numbers_of_changes_that_cannot_be_counted_by_end_the_look(
    stand_in: StandIn, client: OrthancClient, tmp_path: Path, body: bytes
) -> None:
    stand_in.answer = lambda handler: handler.send(200, body)
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    feed = OrthancFeed(client, Spool(tmp_path / "spool", engine), engine)
    with pytest.raises(OrthancAnswerInvalid):
        feed.look_once()
    assert len(stand_in.asked) == 1


def test_ids_that_would_lead_elsewhere_are_not_asked_for(stand_in: StandIn, client: OrthancClient) -> None:
    row = {"Seq": 1, "ChangeType": "NewSeries", "ID": "../tools/shutdown", "Date": "20260101T000000"}
    stand_in.answer = lambda handler: handler.send(
        200, json.dumps({"Changes": [row], "Done": True, "Last": 1}).encode()
    )
    with pytest.raises(OrthancAnswerInvalid):
        client.changes(since=0, limit=10)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc/passwd",
        "ftp://pacs/",
        "pacs:8042",
        "http://",
        "http://user:secret@pacs:8042",
        "-oProxyCommand=x",
    ],
)
def test_addresses_that_are_not_plain_http_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        OrthancClient(url)
    assert "secret" not in str(raised.value)


def answer_of_an_orthanc_that_fails_on_one_image(
    handler: _Handler, fail: Answerer, *, rows: Sequence[str] = ("NewSeries",), study: str = "1.2"
) -> None:
    """One MR series of one image, whose file is answered by `fail`."""
    series = {
        "ID": INSTANCE,
        "ParentStudy": INSTANCE,
        "Instances": [INSTANCE],
        "IsStable": True,
        "MainDicomTags": {"Modality": "MR", "SeriesInstanceUID": f"{study}.3"},
    }
    if handler.path.startswith("/changes"):
        since = int((parse_qs(urlsplit(handler.path).query).get("since") or ["0"])[0])
        log = [{"Seq": n, "ChangeType": kind, "ID": INSTANCE, "Date": None} for n, kind in enumerate(rows, start=1)]
        body: object = {"Changes": log[since:], "Done": True, "Last": len(log)}
    elif handler.path.endswith("/instances"):
        body = [{"ID": INSTANCE, "MainDicomTags": {"SOPInstanceUID": f"{study}.3.4"}}]
    elif handler.path.startswith("/series"):
        body = series
    elif handler.path.startswith("/studies"):
        body = {"MainDicomTags": {"StudyInstanceUID": study}}
    elif handler.path == f"/instances/{INSTANCE}":
        body = {"ParentSeries": INSTANCE}
    elif handler.path.startswith("/tools/find"):
        body = [series]
    else:
        fail(handler)
        return
    handler.send(200, json.dumps(body).encode())


def cut_short(handler: _Handler) -> None:
    """Half of what was announced."""
    handler.send(200, b"0" * 50, Content_Length="100")
    handler.close_connection = True


FAILURES: dict[str, Answerer] = {
    "500": lambda handler: handler.send(500),
    "504 of a proxy": lambda handler: handler.send(504),
    "an odd status": lambda handler: handler.send(418),
    "redirected": lambda handler: handler.send(302, Location="http://127.0.0.1:1/"),
    "cut short": cut_short,
}


@pytest.mark.parametrize("failure", FAILURES)
def test_one_image_that_always_fails_holds_the_cursor_only_for_a_while(
    stand_in: StandIn, client: OrthancClient, tmp_path: Path, failure: str
) -> None:
    stand_in.answer = lambda handler: answer_of_an_orthanc_that_fails_on_one_image(handler, FAILURES[failure])
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    options = FeedOptions(attempts_per_instance=3)
    feed = OrthancFeed(client, Spool(tmp_path / "spool", engine), engine, options=options)
    for _ in range(2):
        with pytest.raises(TransientError, match="failed on 1 instances"):
            feed.poll_once()
    assert feed.poll_once() == 0  # given up: later studies are read
    files_asked = [path for path, _ in stand_in.asked if path.endswith("/data")]
    assert len(files_asked) == 3
    feed.reconcile_once()  # but not forgotten
    assert len([path for path, _ in stand_in.asked if path.endswith("/data")]) == 4


def image_file(number: int = 1) -> Answerer:
    """The file of that one image, with its digest; another content for another number."""
    file = dicom_file("1.2", "1.2.3", number, sop_instance_uid="1.2.3.4")
    digest = hashlib.md5(file, usedforsecurity=False).hexdigest()
    return lambda handler: handler.send(200, file, ETag=f'"0-{digest}"')


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(
    ("path", "row"),
    [
        (f"/series/{INSTANCE}", "NewSeries"),
        (f"/series/{INSTANCE}", "NewInstance"),
        (f"/series/{INSTANCE}/instances", "NewSeries"),
        (f"/studies/{INSTANCE}", "NewSeries"),
        (f"/instances/{INSTANCE}", "NewInstance"),
    ],
)
def test_a_series_that_cannot_be_asked_about_holds_the_cursor_only_for_a_while(
    stand_in: StandIn, client: OrthancClient, tmp_path: Path, path: str, row: str, failure: str
) -> None:
    whole = partial(answer_of_an_orthanc_that_fails_on_one_image, fail=image_file(), rows=[row])
    stand_in.answer = lambda handler: FAILURES[failure](handler) if handler.path == path else whole(handler)
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    spool = Spool(tmp_path / "spool", engine)
    feed = OrthancFeed(client, spool, engine, options=FeedOptions(attempts_per_instance=3))
    for _ in range(2):
        with pytest.raises(TransientError, match="failed on 1 instances or series"):
            feed.poll_once()
    assert (feed.poll_once(), feed.poll_once()) == (0, 0)  # given up: later studies are read
    assert [one for one, _ in stand_in.asked].count(path) == 3
    stand_in.answer = whole
    assert feed.reconcile_once() == 1
    assert len(spool.instances("1.2")) == 1


@pytest.mark.parametrize("path", [f"/series/{INSTANCE}", f"/series/{INSTANCE}/instances", f"/instances/{INSTANCE}"])
def test_an_image_replaced_in_a_series_that_cannot_be_asked_about_is_taken_later(
    stand_in: StandIn, client: OrthancClient, tmp_path: Path, path: str
) -> None:
    row = "NewInstance"
    stand_in.answer = lambda handler: answer_of_an_orthanc_that_fails_on_one_image(handler, image_file(1), rows=[row])
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    spool = Spool(tmp_path / "spool", engine)
    feed = OrthancFeed(client, spool, engine, options=FeedOptions(attempts_per_instance=1))
    assert feed.look_once() == 1
    replaced = partial(answer_of_an_orthanc_that_fails_on_one_image, fail=image_file(2), rows=[row, row])
    stand_in.answer = lambda handler: handler.send(500) if handler.path == path else replaced(handler)
    feed.look_once()
    stand_in.answer = replaced
    feed.reconcile_once()
    assert [one.conflict for one in spool.instances("1.2")] == [True, True]


@pytest.mark.parametrize("study", ["1.2." + "3" * 70, "", "1.2\n3", "1.2.\0", "\ud800", "Marker^Name"])
def test_a_series_without_a_lawful_name_is_passed_over_with_one_line_in_the_log(
    stand_in: StandIn, client: OrthancClient, tmp_path: Path, study: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = ["NewSeries", "NewInstance"]
    stand_in.answer = lambda handler: answer_of_an_orthanc_that_fails_on_one_image(
        handler, image_file(), rows=rows, study=study
    )
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    spool = Spool(tmp_path / "spool", engine)
    feed = OrthancFeed(client, spool, engine)
    with caplog.at_level(logging.WARNING):
        assert (feed.poll_once(), feed.reconcile_once(), feed.poll_once()) == (0, 0, 0)
    (line,) = caplog.messages
    assert f"event=orthanc_series_passed_over id={INSTANCE}" in line
    assert "Marker" not in line
    assert line.isprintable()
    assert not any(path.endswith("/data") for path, _ in stand_in.asked)
    with engine.connect() as connection:
        for table in ("spool_series", "spool_refusal", "spool_study"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() == 0


def test_what_is_said_against_an_image_is_one_short_line_whatever_its_file_says(
    stand_in: StandIn, client: OrthancClient, tmp_path: Path
) -> None:
    file = b"\0" * 128 + b"DICM" + b"\x02\0\x10\0UI" + (3000).to_bytes(2, "little") + b"1.2\n\0." * 500
    stand_in.answer = lambda handler: handler.send(200, file, ETag=f'"0-{hashlib.md5(file).hexdigest()}"')
    with pytest.raises(InstanceRefused) as refused:
        take_it(client, tmp_path, limit=10_000)
    assert refused.value.reason is Reason.TS_UNSUPPORTED
    assert refused.value.detail.isprintable()
    assert len(refused.value.detail) <= 500


def test_a_comparison_that_fails_does_not_slow_the_reading_of_the_log_and_is_told(
    stand_in: StandIn, client: OrthancClient, tmp_path: Path
) -> None:
    whole = partial(answer_of_an_orthanc_that_fails_on_one_image, fail=image_file())
    stand_in.answer = lambda h: h.send(500) if h.path.startswith("/tools/find") else whole(h)
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    options = FeedOptions(poll_interval_s=0.02, reconcile_interval_s=PATIENCE_S)
    feed = OrthancFeed(client, Spool(tmp_path / "spool", engine), engine, options=options)
    stop = threading.Event()
    thread = threading.Thread(target=feed.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: sum(path.startswith("/changes") for path, _ in list(stand_in.asked)) >= 8)
        wait_until(lambda: feed.status().condition is FeedCondition.UNREACHABLE)
        assert "/tools/find: HTTP 500" in feed.status().detail
        assert sum(path == "/tools/find" for path, _ in list(stand_in.asked)) == 1
    finally:
        stop.set()
        thread.join(PATIENCE_S)


def gone_after(handler: _Handler, server: StandIn) -> None:
    """The file fails, and from then on so does all else."""
    server.answer = lambda later: later.send(502)
    handler.send(504)


@pytest.mark.parametrize("failure", ["busy", "gone"])
def test_no_image_is_given_up_where_the_whole_archive_is_busy_or_gone(
    stand_in: StandIn, client: OrthancClient, tmp_path: Path, failure: str
) -> None:
    fail: Answerer = (lambda h: h.send(503)) if failure == "busy" else (lambda h: gone_after(h, stand_in))
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    options = FeedOptions(attempts_per_instance=1)
    feed = OrthancFeed(client, Spool(tmp_path / "spool", engine), engine, options=options)
    for _ in range(3):
        stand_in.answer = lambda handler: answer_of_an_orthanc_that_fails_on_one_image(handler, fail)
        with pytest.raises(OrthancUnavailable, match=r"HTTP 50[23]"):
            feed.poll_once()
    assert len([path for path, _ in stand_in.asked if path.endswith("/data")]) == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, OutcomeKind.STOPPED),
        (400, OutcomeKind.STOPPED),
        (401, OutcomeKind.STOPPED),
        (403, OutcomeKind.STOPPED),
        (404, OutcomeKind.STOPPED),
        (413, OutcomeKind.STOPPED),
        (429, OutcomeKind.RETRY_LATER),
        (500, OutcomeKind.RETRY_LATER),
        (503, OutcomeKind.RETRY_LATER),
        (507, OutcomeKind.RETRY_LATER),
    ],
)
def test_each_answer_to_an_upload_is_sorted(stand_in: StandIn, status: int, kind: OutcomeKind) -> None:
    stand_in.answer = lambda handler: handler.send(status)
    to = Destination(name="pacs", kind="orthanc", url=stand_in.url, timeout_s=PATIENCE_S)
    outcome = upload(b"\0" * 128 + b"DICM", to)
    assert outcome.kind is kind
    assert outcome.detail


def test_an_upload_that_is_never_answered_is_tried_later(stand_in: StandIn) -> None:
    given_up = threading.Event()
    stand_in.answer = lambda handler: given_up.wait()
    outcome = upload(b"\0" * 132, Destination(name="pacs", kind="orthanc", url=stand_in.url, timeout_s=0.5))
    given_up.set()
    assert outcome.kind is OutcomeKind.RETRY_LATER
