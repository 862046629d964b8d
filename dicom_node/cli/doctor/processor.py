"""What computes: cores, memory, and whether a GPU is there. None is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from dicom_node.cli.doctor.checkup import Line, Site, ok, warning

NEEDED_BYTES: Final = 4 * 10**9
"""One study at a time, with room for the receiving process and the operating system."""


def check(site: Site) -> Iterator[Line]:
    """Cores, memory, GPU."""
    threads = site.loaded.settings.processing.threads
    cores = len(os.sched_getaffinity(0))
    yield ok(f"{cores} CPU cores, {threads or 'all'} of them used for a study")
    if threads > cores:
        yield warning(f"processing.threads is {threads}, but there are {cores} cores", "set it to 0 for all cores")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory < NEEDED_BYTES:
        yield warning(
            f"{memory / 1e9:.1f} GB of memory; a study was seen to need most of {NEEDED_BYTES / 1e9:.0f} GB",
            "give the machine more memory",
        )
    else:
        yield ok(f"{memory / 1e9:.1f} GB of memory")
    yield _graphics_card(wanted=site.loaded.settings.processing.device == "cuda")


def _graphics_card(*, wanted: bool) -> Line:
    import torch

    if not torch.cuda.is_available():
        if wanted:
            return warning(
                "processing.device is cuda, but torch sees no GPU; the CPU computes instead",
                'set it to "cpu", or install the GPU\'s driver and a torch that was built for it',
            )
        return ok("no GPU, and none is needed: the network is small and runs on the CPU")
    name = torch.cuda.get_device_name(0)
    if wanted:
        return ok(f"a GPU is here ({name}) and runs the network, with the CPU behind it")
    return ok(f"a GPU is here ({name}); the network runs on the CPU all the same, as processing.device says")
