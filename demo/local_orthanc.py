"""A real Orthanc in a folder of its own on free loopback ports: the PACS of the demo and of the tests.

    with LocalOrthanc() as orthanc:
        orthanc.session.get(f"{orthanc.url}/system").json()

Settings are those of `config/orthanc.json`, so what the tests prove holds for the file that sites start from.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
from free_ports import free_port

SITE_CONFIG = Path(__file__).resolve().parent.parent / "config" / "orthanc.json"
PLUGIN_FOLDERS = (
    Path("/usr/share/orthanc/plugins"),
    Path("/usr/local/share/orthanc/plugins"),
    Path("/usr/lib/orthanc"),
)
USER = "hydrops"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 120.0  # a clean stop was seen to take 4 to 8 s on an idle machine
START_ATTEMPTS = 3  # somebody else may take a port between our looking and Orthanc's binding


class OrthancMissing(RuntimeError):
    """Orthanc (or a plugin that was asked for) is not installed; the message says what to install."""


class OrthancFailed(RuntimeError):
    """Orthanc did not start; the message ends with the last lines of its log."""


def find_orthanc() -> Path:
    """The Orthanc program.

    Raises
    ------
    OrthancMissing
        If there is none on the search path or in /usr/sbin, where Debian puts it.
    """
    found = shutil.which("Orthanc", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        raise OrthancMissing("Orthanc is not installed; on Debian or Ubuntu: apt-get install orthanc orthanc-dicomweb")
    return Path(found)


def find_plugin(name: str) -> Path:
    """The shared library of a plugin, e.g. "OrthancPython", in the folders of the usual packages.

    Raises
    ------
    OrthancMissing
        If no folder holds it.
    """
    for folder in PLUGIN_FOLDERS:
        for path in sorted(folder.glob(f"lib{name}.so*")):
            return path
    package = name.replace("Orthanc", "orthanc-").lower()
    raise OrthancMissing(f"Orthanc's plugin {name} is not installed; on Debian or Ubuntu: apt-get install {package}")


def read_commented_json(path: Path) -> dict[str, Any]:
    """JSON in which whole lines may be ``//`` comments, as Orthanc reads it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    content: dict[str, Any] = json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))
    return content


class LocalOrthanc:
    """Runs one Orthanc; a context manager.

    Parameters
    ----------
    folder
        Where configuration, log and database go and stay. None: a temporary folder that vanishes at the end.
    extra
        Settings that go on top of `config/orthanc.json`; tables are merged, everything else is replaced.
    plugins
        Names as `find_plugin` takes them.
    lua_scripts, python_script
        Hooks to load; the Python one brings its plugin along.
    environment
        Variables for Orthanc's process, besides PATH and TCP_NODELAY.
    aet
        Orthanc's own AE title.
    callers
        AE titles that may send to it from this machine.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        extra: Mapping[str, Any] | None = None,
        plugins: Sequence[str] = (),
        lua_scripts: Sequence[Path] = (),
        python_script: Path | None = None,
        environment: Mapping[str, str] | None = None,
        aet: str = "ORTHANC",
        callers: Sequence[str] = ("SCANNER", "HYDROPS", "STORESCU", "ECHOSCU"),
    ) -> None:
        self.program = find_orthanc()
        self.plugins = [find_plugin(name) for name in plugins]
        if python_script is not None:
            self.plugins.append(find_plugin("OrthancPython"))
        self.aet = aet
        self.username = USER
        self.password = secrets.token_urlsafe(16)
        self.http_port = 0
        self.dicom_port = 0
        self._temporary = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="orthanc-")) if folder is None else folder
        self._extra = dict(extra or {})
        self._lua_scripts = [str(path.resolve()) for path in lua_scripts]
        self._python_script = python_script
        self._environment = dict(environment or {})
        self._callers = tuple(callers)
        self._process: subprocess.Popen[bytes] | None = None
        self.session = requests.Session()
        self.session.trust_env = False  # a proxy of the environment has no business on the loopback
        self.session.auth = (self.username, self.password)
        self.session.headers["Accept-Encoding"] = "identity"

    @property
    def url(self) -> str:
        """Root of the REST API, without a slash at the end."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicom_web_url(self) -> str:
        """Root of DICOMweb; answers only where the plugin "OrthancDicomWeb" was asked for."""
        return f"{self.url}/dicom-web"

    @property
    def log_path(self) -> Path:
        """What Orthanc printed, over all its starts."""
        return self.folder / "orthanc.log"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Starts Orthanc, on the same folder and ports as before if it ran before, and waits until it answers.

        Raises
        ------
        OrthancFailed
            If it ends at once or does not answer within two minutes.
        """
        if self.pid is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        chosen = self.http_port != 0
        for attempt in range(START_ATTEMPTS):
            if not chosen:
                self.http_port, self.dicom_port = free_port(), free_port()
            self._write_configuration()
            self._spawn()
            if self._wait_until_ready():
                return
            if chosen or attempt == START_ATTEMPTS - 1:
                break
        tail = "\n".join(self.log_path.read_text(errors="replace").splitlines()[-15:])
        raise OrthancFailed(f"Orthanc did not start on ports {self.http_port} and {self.dicom_port}:\n{tail}")

    def stop(self) -> None:
        """Ends Orthanc in good order (SIGTERM) and waits until it has gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends Orthanc as a crash would (SIGKILL); what it kept in memory is lost."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A database that is thrown away needs no orderly end, and the orderly one takes seconds.
        self._end(signal.SIGKILL if self._temporary else signal.SIGTERM)
        self.session.close()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write_configuration(self) -> None:
        config = read_commented_json(SITE_CONFIG)
        for key in ("DicomWeb", "DicomModalities"):
            config.pop(key)
        overlay: dict[str, Any] = {
            "StorageDirectory": "db",
            "IndexDirectory": "db",
            "Plugins": [str(path) for path in self.plugins],
            "LuaScripts": self._lua_scripts,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "RegisteredUsers": {self.username: self.password},
            "DicomAet": self.aet,
            "DicomPort": self.dicom_port,
            "DicomModalities": {name.lower(): [name, "127.0.0.1", 104] for name in self._callers},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        if self._python_script is not None:
            overlay["PythonScript"] = str(self._python_script.resolve())
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(_merged(_merged(config, overlay), self._extra), indent=2), encoding="utf-8")
        path.chmod(0o600)  # holds the password

    def _spawn(self) -> None:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "TCP_NODELAY": "1", **self._environment}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.program), "orthanc.json"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.pid is not None:
            try:
                if self.session.get(f"{self.url}/system", timeout=2.0).status_code == requests.codes.ok:
                    return True
            except (requests.ConnectionError, requests.Timeout):
                pass  # not listening yet, or too busy to answer
            time.sleep(0.05)
        self.kill()
        return False

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `top` on top; tables in both are merged one level at a time."""
    result = dict(base)
    for key, value in top.items():
        mine = result.get(key)
        result[key] = _merged(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return result
