"""What a process holds, as the kernel says: looked at from outside, whatever the process says of itself."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ProcessSize:
    """Resident memory, threads and open descriptors."""

    memory_bytes: int
    threads: int
    descriptors: int


def size_of(process_id: int) -> ProcessSize:
    """What a process holds now."""
    folder = Path("/proc", str(process_id))
    pages = int((folder / "statm").read_text().split()[1])
    return ProcessSize(
        memory_bytes=pages * resource.getpagesize(),
        threads=len(list((folder / "task").iterdir())),
        descriptors=len(list((folder / "fd").iterdir())),
    )
