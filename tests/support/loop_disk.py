"""A disk of our own: an ext4 image, mounted; it can lose its power, and it can turn read-only. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEBIBYTES = 96


def missing() -> str:
    """What this machine lacks for it; an empty string when nothing."""
    if os.geteuid() != 0:
        return "needs root to mount a disk image"
    lacking = [name for name in ("mkfs.ext4", "mount", "umount", "losetup", "findmnt") if shutil.which(name) is None]
    if lacking:
        return f"needs {', '.join(lacking)}"
    if subprocess.run(["losetup", "-f"], capture_output=True, check=False).returncode != 0:
        return "needs a free loop device"
    return ""


class LoopDisk:
    """One image and the folder where it is mounted."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.image = image
        self.folder = folder

    def image_now(self, copy: Path) -> Path:
        """The image as it is at this moment: what a power cut would leave. Only what was flushed is in it."""
        subprocess.run(["cp", "--sparse=always", str(self.image), str(copy)], check=True)
        return copy

    def fail(self) -> None:
        """Report an error of the file system, upon which the kernel turns it read-only until it is mounted again.

        A plain remount is refused while files are open for writing, as a running node's are.
        """
        found = subprocess.run(
            ["findmnt", "-no", "SOURCE", str(self.folder)], check=True, capture_output=True, text=True
        )
        Path("/sys/fs/ext4", Path(found.stdout.strip()).name, "trigger_fs_error").write_text("the test's doing")


@contextmanager
def new_disk(folder: Path, *, commit_s: int = 5) -> Iterator[LoopDisk]:
    """A fresh ext4 disk; its journal commits by itself only every `commit_s` seconds."""
    image = folder / "disk.img"
    with image.open("wb") as stream:
        stream.truncate(MEBIBYTES * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    with mounted(image, folder / "disk", commit_s=commit_s) as disk:
        yield disk


@contextmanager
def mounted(image: Path, folder: Path, *, commit_s: int = 5) -> Iterator[LoopDisk]:
    """An image in use; mounting it replays its journal, as the next start after a power cut does."""
    folder.mkdir()
    subprocess.run(["mount", "-o", f"loop,errors=remount-ro,commit={commit_s}", str(image), str(folder)], check=True)
    try:
        yield LoopDisk(image, folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
