"""Where a figure was measured: cores, processor, versions and commit; without it a figure says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RECORDS = ("bench/results", "docs/performance.md")
"""What benchmarks write themselves: the next one of the same run still measures the commit."""

PACKAGES = ("numpy", "SimpleITK", "pydicom", "pynetdicom", "torch")


def machine() -> dict[str, str]:
    """Facts by name."""
    told = _git("describe", "--always")
    if _git("status", "--porcelain", "--", ".", *(f":!{record}" for record in RECORDS)):
        told += "-dirty"
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "commit": told or "unknown",
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def machine_line() -> str:
    """The facts in one line."""
    return "machine: " + ", ".join(f"{name} {fact}" for name, fact in machine().items())


def _git(*words: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
