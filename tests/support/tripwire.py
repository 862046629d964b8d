"""Named places in the way of a study through a worker, and harm that happens there to the worker's own process.

Real signals, real limits; the worker under test does not know of it. As a module of `sitecustomize` it harms the worker
of a whole node: see `armed_environment`.
"""

from __future__ import annotations

import functools
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

_STEPS: Final = {
    "fetch": "read headers",
    "decode": "load images",
    "register": "align series",
    "infer": "segment fluid",
    "encode": "encode and check",
}

POINTS: Final = ("claim", *_STEPS, "keep", "publish", "draw", "page", "settle", "send", "mark")
"""`claim`, `publish` and `settle` lie inside their transaction, `keep` and `page` between files and transaction: of SEG
and SR, and of what is drawn after these are out. `send` lies between the PACS's answer and noting it."""

IN_A_TRANSACTION: Final = frozenset({"claim", "publish", "settle"})

_SEG_AND_SR: Final = {"SEG", "SR"}

LINGER_S: Final = 120.0
"""How long a worker lingers that is to be cut off there: longer than it takes another to finish its study."""

_VARIABLE: Final = "HYDROPS_TEST_TRIPWIRE"


def _starve() -> None:
    """The next larger piece of memory is refused by the kernel, from here on: the limit is never taken back.

    A worker that begins anew in the same process inherits it, and has so much as its predecessor had taken and the rest
    of the four megabytes; only one that its parent starts has all of the machine again.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 4_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


HARMS: Final[Mapping[str, Callable[[], None]]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": os.abort,
    "hang": lambda: time.sleep(3600),
    "linger": lambda: time.sleep(LINGER_S),
    "starve": _starve,
}


def arm(point: str, harm: str, *, once: bool = True) -> None:
    """Do `harm` to this process when it comes to `point`, the first time or each time."""
    from dicom_node.casework import Drawing
    from dicom_node.claims import Claims
    from dicom_node.delivery.outbox import Outbox
    from dicom_node.owed_pictures import OwedPictures
    from dicom_node.study_runs import StudyRuns

    fired = False

    def harmed() -> None:
        nonlocal fired
        if not (once and fired):
            fired = True
            HARMS[harm]()

    if point in _STEPS:  # once it has been noted that the step begins
        _around(StudyRuns, "note_step", after=lambda words: harmed() if _STEPS[point] in words else None)
    elif point in (before := {"send": (Outbox, "record"), "draw": (Drawing, "page")}):
        _around(*before[point], before=harmed)
    elif point == "page":  # the files of SEG and SR are kept before
        _around(Outbox, "keep", after=lambda words: None if _SEG_AND_SR & {one.kind for one in words[1]} else harmed())
    else:
        method = {
            "claim": (Claims, "take"),
            "keep": (Outbox, "keep"),
            "publish": (Outbox, "queue"),
            "settle": (OwedPictures, "settle"),
        }
        _around(*method.get(point, (Outbox, "record")), after=lambda _words: harmed())


def _around(
    cls: type,
    name: str,
    *,
    before: Callable[[], None] = lambda: None,
    after: Callable[[tuple[Any, ...]], None] = lambda _words: None,
) -> None:
    method = getattr(cls, name)

    @functools.wraps(method)
    def wrapped(*words: Any, **named: Any) -> Any:
        before()
        result = method(*words, **named)
        after(words)
        return result

    setattr(cls, name, wrapped)


def armed_environment(folder: Path, point: str, harm: str) -> dict[str, str]:
    """What makes the worker of a node that is started with it come to harm, each time a study comes to `point`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        f"import os, sys\n"
        f"if 'work' in sys.orig_argv:\n"
        f"    sys.path.append({str(Path(__file__).parent)!r})\n"
        f"    import tripwire\n"
        f"    tripwire.arm(*os.environ[{_VARIABLE!r}].split(), once=False)\n"
    )
    return {"PYTHONPATH": str(folder), _VARIABLE: f"{point} {harm}"}
