"""The clock: retries, quiet times, certificates and the dates in every result hang on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from dicom_node.cli.doctor.archive import known_orthancs
from dicom_node.cli.doctor.checkup import Line, Site, ok, problem, warning
from dicom_node.errors import NodeError

YEARS: Final = range(2025, 2100)
"""Before the first there was no such node; a machine with an empty clock battery says 1970 or 2000."""

TOLERANCE_S: Final = 30.0
"""Machines with NTP agree within a second; this leaves room for a slow answer."""


def check(site: Site) -> Iterator[Line]:
    """Our own clock, and that of every Orthanc; a DICOM receiver tells nobody what time it is."""
    yield own_clock(time.time())
    for one in known_orthancs(site.loaded):
        try:
            with one.client() as client:
                asked_at = time.time()
                theirs = client.now()
                ours = (asked_at + time.time()) / 2.0
        except NodeError:
            continue  # that it does not answer is the business of another check
        yield compared(theirs - ours, one.url)


def own_clock(now: float) -> Line:
    """Whether the year can be true."""
    year = datetime.fromtimestamp(now, UTC).year
    if year not in YEARS:
        return problem(f"this machine believes that it is the year {year}", "set the clock; switch NTP on")
    return ok(f"this machine's clock says {datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC")


def compared(ahead_s: float, url: str) -> Line:
    """What a difference of `ahead_s` (theirs minus ours) means."""
    if abs(ahead_s) <= TOLERANCE_S:
        return ok(f"the clock of Orthanc at {url} agrees with ours")
    how = "ahead of" if ahead_s > 0 else "behind"
    return warning(
        f"the clock of Orthanc at {url} is {abs(ahead_s):.0f} s {how} ours", "switch NTP on, on both machines"
    )
