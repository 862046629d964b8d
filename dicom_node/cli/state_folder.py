"""The node's state on disk: one folder, private to its user, and one process of each kind in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_node.errors import ConfigError
from dicom_node.settings import LoadedSettings


def prepare(folder: Path) -> Path:
    """The state folder, made if needed; readable by its owner only, because it holds patients' images."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"node.state_dir: {folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"node.state_dir: {folder} is not writable by user {os.getuid()}")
    return folder


@contextmanager
def only_one(folder: Path, role: str) -> Iterator[None]:
    """Hold the lock of `role` while the block runs; the kernel releases it however the process ends.

    Raises
    ------
    ConfigError
        If another process holds it: two receivers, or two workers of one id, on one folder would do work twice.
    """
    path = folder / f"{role}.lock"
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"node.state_dir: another process already runs as '{role}' on {folder}; stop it, or give this one "
                "another node.state_dir (or, for a further worker, another node.worker_id)"
            ) from None
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        yield


def listening_role(loaded: LoadedSettings) -> str:
    """The role of whoever receives: one on a folder, or one of each `node.worker_id` where PostgreSQL keeps the state.

    With SQLite the database lies in the folder, and no file system shares one between machines so that it stays whole.
    """
    on_sqlite = loaded.database_url.startswith("sqlite")
    return "listen" if on_sqlite else f"listen-{loaded.settings.node.worker_id}"


def running_as(folder: Path, role: str) -> int | None:
    """The process that holds the lock of `role`, or None when nobody does."""
    path = folder / f"{role}.lock"
    try:
        with path.open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(stream.read() or 0)
    except FileNotFoundError:
        pass
    return None
