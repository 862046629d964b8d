"""A real PostgreSQL server for a test, started by hand and gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from free_ports import free_port
from patience import wait_until
from sqlalchemy.exc import OperationalError

from dicom_node.database import open_database

STOP_S = 60.0


def programs() -> Path | None:
    """Folder of initdb and postgres; Debian keeps them outside PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@contextmanager
def running_postgresql(host: str = "127.0.0.1") -> Iterator[str]:
    """URL of a fresh server; it runs as user postgres when we are root, because it refuses to run as root.

    `host` is the address of this machine that it listens on, and whose network it serves.
    """
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed")
    as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    data = Path(tempfile.mkdtemp(prefix="hydrops-test-postgresql-"))
    if as_postgres:
        shutil.chown(data, "postgres")
    port = free_port()
    initdb = [str(folder / "initdb"), "-D", str(data), "-U", "node", "--auth=trust", "--no-sync"]
    subprocess.run([*as_postgres, *initdb], check=True, capture_output=True, cwd="/")
    with (data / "pg_hba.conf").open("a") as access:
        access.write(f"host all all {host}/24 trust\n")
    postgres = [str(folder / "postgres"), "-D", str(data), "-h", host, "-p", str(port), "-k", str(data)]
    process = subprocess.Popen([*as_postgres, *postgres], stderr=subprocess.DEVNULL, cwd="/")
    try:
        url = f"postgresql+psycopg://node@{host}:{port}/postgres"
        wait_until(lambda: _answers(url))
        yield url
    finally:
        # To the server itself: runuser, which is our child where we are root, kills it after two seconds of patience.
        server = int((data / "postmaster.pid").read_text().split()[0])
        os.kill(server, signal.SIGINT)  # a fast shutdown: it does not wait until every client has gone
        process.wait(STOP_S)
        shutil.rmtree(data)


def _answers(url: str) -> bool:
    try:
        open_database(url).dispose()
    except OperationalError:
        return False
    return True
