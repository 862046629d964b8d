"""The disk under the state folder: room, kind, and how fast it really keeps an image."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dicom_node.cli.doctor.checkup import Line, Site, ok, problem, warning

STUDY_BYTES: Final = 130_000_000
"""Images of one study: five series of 104 slices of 384 x 324 pixels."""

NETWORK: Final = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "fuse.glusterfs", "ceph", "9p", "afs")
"""SQLite's write-ahead log needs shared memory, which these do not give; locks on them are not to be relied on."""

MEMORY: Final = ("tmpfs", "ramfs")

IMAGE_BYTES: Final = 260_000
IMAGES: Final = 20
SLOW_IMAGE_S: Final = 0.05
"""A scanner sends some 20 to 100 images per second; a flush that takes longer than this holds it up."""


def check(site: Site) -> Iterator[Line]:
    """Room, kind of file system and speed."""
    folder = site.loaded.state_dir
    if not folder.exists():  # not made here: as root it would not belong to the user that runs the node
        yield ok(f"{folder} is not there yet; the node makes it when it starts")
        folder = next(parent for parent in folder.parents if parent.exists())
    elif folder.stat().st_uid != os.getuid():
        yield warning(
            f"{folder} belongs to user {folder.stat().st_uid}, doctor runs as user {os.getuid()}",
            "run doctor as the user that runs the node, or its rights are not examined",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        yield problem(f"user {os.getuid()} may not write in {folder}", "give it to the user that runs the node")
        return
    yield room(shutil.disk_usage(folder).free, site.loaded.settings.listener.min_free_bytes, folder)
    yield kind(file_system(folder), folder)
    site.say("writing and flushing")
    yield _speed(folder)


def room(free_bytes: int, min_free_bytes: int, folder: Path) -> Line:
    """Whether images are taken, and for how many studies more."""
    free_gb, least_gb = free_bytes / 1e9, min_free_bytes / 1e9
    if free_bytes < min_free_bytes:
        return problem(
            f"{free_gb:.1f} GB free under {folder}, less than listener.min_free_bytes ({least_gb:.1f} GB): "
            "every image is refused with A700H",
            "free space or move node.state_dir to a larger disk; images are taken again by themselves",
        )
    studies = (free_bytes - min_free_bytes) // STUDY_BYTES
    if studies < 100:
        return warning(
            f"{free_gb:.1f} GB free under {folder}: room for about {studies} more studies",
            "free space or move node.state_dir to a larger disk before it is full",
        )
    return ok(f"{free_gb:.1f} GB free under {folder}: room for about {studies} more studies")


def kind(name: str, folder: Path) -> Line:
    """Whether this kind of file system keeps what it promised to keep."""
    if name in MEMORY:
        return problem(
            f"{folder} lies in memory ({name}): everything is lost at the next restart",
            "set node.state_dir to a folder on a disk",
        )
    if name in NETWORK:
        return warning(
            f"{folder} lies on a network file system ({name}): SQLite cannot be relied on there",
            "set node.state_dir to a local disk, or HYDROPS_DATABASE_URL to a PostgreSQL",
        )
    return ok(f"file system {name or 'of unknown kind'}")


def file_system(folder: Path) -> str:
    """The kind of the file system that holds `folder`, as /proc/self/mountinfo names it; empty where that is not."""
    table = Path("/proc/self/mountinfo")
    if not table.exists():
        return ""
    best, found = -1, ""
    for row in table.read_text().splitlines():
        left, _, right = row.partition(" - ")
        point = Path(left.split()[4].replace("\\040", " "))
        if folder.resolve().is_relative_to(point) and len(point.parts) >= best:  # the last mount on a point counts
            best, found = len(point.parts), right.split()[0]
    return found


def _speed(folder: Path) -> Line:
    try:
        seconds = _seconds_per_image(folder)
    except OSError as error:
        return problem(f"nothing can be written under {folder}: {error.strerror}", "look at the disk and its rights")
    text = f"an image of {IMAGE_BYTES // 1000} kB is written and flushed in {seconds * 1000:.1f} ms"
    if seconds > SLOW_IMAGE_S:
        return warning(text, "use a faster disk for node.state_dir (an SSD); senders wait for every flush")
    return ok(text)


def _seconds_per_image(folder: Path) -> float:
    """Mean time to keep one image as the spool keeps it: write, flush the file, flush its folder."""
    content = os.urandom(IMAGE_BYTES)  # a disk that compresses must not look fast
    with tempfile.TemporaryDirectory(prefix="doctor-", dir=folder) as trial:
        directory = os.open(trial, os.O_RDONLY)
        try:
            began = time.perf_counter()
            for number in range(IMAGES):
                with (Path(trial) / str(number)).open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.fsync(directory)
            return (time.perf_counter() - began) / IMAGES
        finally:
            os.close(directory)
