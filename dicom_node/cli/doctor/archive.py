"""Every Orthanc that we talk to: its version, its plug-ins, and settings that lose images or let strangers in.

What it tells nobody is found out by trying: a request without a password, with the default one, a C-ECHO to a wrong
name and from a stranger. The rest stands in its configuration file, which `--orthanc-config` lets us read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from dicom_node.cli.doctor.archive_settings import judge_file
from dicom_node.cli.doctor.checkup import Line, Site, ok, problem, warning
from dicom_node.delivery.outcome import Destination, OutcomeKind
from dicom_node.delivery.store_scu import echo
from dicom_node.errors import NodeError
from dicom_node.orthanc_client import OrthancClient, OrthancSystem
from dicom_node.orthanc_http import OrthancAccessDenied
from dicom_node.settings import LoadedSettings

OLDEST: Final = (1, 10, 1)
"""Debian 12's; what our tests run with."""

DEFAULT_USERS: Final = (("orthanc", "orthanc"), ("admin", "admin"), ("admin", "password"), ("demo", "demo"))
"""Pairs that installers and tutorials leave behind."""

DICOMWEB: Final = "dicom-web"
WRONG_NAME: Final = "NOT_THIS_ONE"
STRANGER: Final = "HYDROPS_DOCTOR"
TIMEOUT_S: Final = 10.0
OK: Final = 200
FORBIDDEN: Final = 403


@dataclass(frozen=True, kw_only=True)
class KnownOrthanc:
    """One Orthanc of the configuration, and who we are there."""

    url: str
    username: str
    password: str = field(repr=False)

    def client(self) -> OrthancClient:
        """With our user and password."""
        return OrthancClient(self.url, username=self.username, password=self.password, timeout_s=TIMEOUT_S)


def known_orthancs(loaded: LoadedSettings) -> list[KnownOrthanc]:
    """Every Orthanc that images come from or results go to, once each."""
    settings = loaded.settings
    found = [
        KnownOrthanc(url=one.url, username=one.username, password=loaded.destination_password(one.name))
        for one in settings.destinations
        if one.kind == "orthanc"
    ]
    if settings.orthanc.url:
        password = loaded.secrets.get("HYDROPS_ORTHANC_PASSWORD", "")
        found.insert(0, KnownOrthanc(url=settings.orthanc.url, username=settings.orthanc.username, password=password))
    return list({one.url.rstrip("/"): one for one in reversed(found)}.values())[::-1]


def check(site: Site) -> Iterator[Line]:
    """Each Orthanc in turn, then its configuration file where we have one."""
    orthancs = known_orthancs(site.loaded)
    if not orthancs:
        yield ok("no Orthanc is configured")
    for one in orthancs:
        site.say(one.url)
        yield from _examine(one, our_title=site.loaded.settings.node.ae_title)
    if site.orthanc_config is not None:
        yield from judge_file(site.orthanc_config)
    elif orthancs:
        yield ok("StableAge, OverwriteInstances and more stand in its file only: --orthanc-config PATH reads it")


def _examine(one: KnownOrthanc, *, our_title: str) -> Iterator[Line]:
    try:
        with one.client() as client:
            system = client.system()
            plugins = client.plugins()
            runs_scripts = _runs_scripts(client)
    except OrthancAccessDenied as error:
        if error.status == FORBIDDEN:
            yield problem(f"Orthanc at {one.url} does not allow us in (HTTP 403)", "set RemoteAccessAllowed to true")
            return
        yield problem(*_halves(str(error)))
        return
    except NodeError as error:
        yield problem(str(error), "is Orthanc running, and is its url right?")
        return
    yield _version(system, one.url)
    yield _dicomweb(plugins, one.url)
    if runs_scripts:
        yield problem(
            f"Orthanc at {one.url} runs any Lua script that it is sent over HTTP", "set ExecuteLuaEnabled to false"
        )
    if system.overwrites:
        yield _overwrites(one.url)
    yield _password(one)
    yield from _dicom_door(system, one.url, our_title)


def _runs_scripts(client: OrthancClient) -> bool:
    """Whether it takes a Lua script over HTTP; ours is a comment."""
    try:
        return client.request("POST", "/tools/execute-script", data=b"-- nothing").status == OK
    except OrthancAccessDenied:
        return False


def _version(system: OrthancSystem, url: str) -> Line:
    numbers = tuple(int(part) for part in re.findall(r"\d+", system.version)[:3])
    if numbers and numbers < OLDEST:
        return warning(
            f"Orthanc {system.version} at {url} is older than what this node was tested with",
            f"install {'.'.join(map(str, OLDEST))} or newer",
        )
    return ok(f"Orthanc {system.version} at {url}, AE title {system.dicom_aet}")


def _dicomweb(plugins: tuple[str, ...], url: str) -> Line:
    if DICOMWEB in plugins:
        return ok("its DICOMweb plug-in is loaded, which the viewer reads from")
    return warning(
        f"Orthanc at {url} has no DICOMweb plug-in: the viewer cannot show its studies",
        "install the plug-in (Debian: orthanc-dicomweb) and name it under Plugins",
    )


def _overwrites(url: str) -> Line:
    return warning(
        f"Orthanc at {url} replaces an image when another one comes under its UID", "set OverwriteInstances to false"
    )


def _password(one: KnownOrthanc) -> Line:
    """Whether somebody gets in without a password, or with one that everybody knows."""
    if _lets_in(one.url, "", ""):
        return problem(
            f"Orthanc at {one.url} asks nobody for a password",
            "set AuthenticationEnabled to true and give RegisteredUsers a user of our own",
        )
    for username, password in DEFAULT_USERS:
        if _lets_in(one.url, username, password):
            return problem(
                f"Orthanc at {one.url} still has the well-known user {username!r}",
                "remove it from RegisteredUsers, and give each program a user and a long password of its own",
            )
    return ok("it asks for a password, and the well-known ones do not open it")


def _lets_in(url: str, username: str, password: str) -> bool:
    try:
        with OrthancClient(url, username=username, password=password, timeout_s=TIMEOUT_S) as client:
            client.system()
    except NodeError:
        return False
    return True


def _dicom_door(system: OrthancSystem, url: str, our_title: str) -> Iterator[Line]:
    """Whether its DICOM side checks who calls, and by what name it is called."""
    stranger = echo(_call(system, url, calling=STRANGER, called=system.dicom_aet))
    if "no connection" in stranger.detail:
        yield ok(f"its DICOM port {system.dicom_port} cannot be reached from here")
        return
    if stranger.kind is OutcomeKind.DELIVERED:
        yield warning(
            f"Orthanc at {url} answers DICOM calls of every AE",
            "set DicomAlwaysAllowEcho and DicomAlwaysAllowStore to false, DicomCheckModalityHost to true",
        )
    else:
        yield ok("its DICOM side sends strangers away")
    if echo(_call(system, url, calling=our_title, called=WRONG_NAME)).kind is OutcomeKind.DELIVERED:
        yield warning(
            f"Orthanc at {url} answers to whatever AE title it is called by: images meant for another system end there",
            "set DicomCheckCalledAet to true",
        )


def _call(system: OrthancSystem, url: str, *, calling: str, called: str) -> Destination:
    return Destination(
        name="orthanc",
        kind="dicom",
        host=urlsplit(url).hostname or "",
        port=system.dicom_port,
        called_ae=called,
        calling_ae=calling,
        timeout_s=TIMEOUT_S,
    )


def _halves(sentence: str) -> tuple[str, str]:
    """What happened, and what to do: our errors say both, in two sentences."""
    text, _, advice = sentence.partition(". ")
    return text, advice or "correct user name and password"
