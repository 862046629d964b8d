"""Thousands of damaged images through everything that reads a stranger's bytes: a status or a reason, never a fault.

`HYDROPS_MUTANTS` says how many (10,000 by default; the campaign takes more). A failure names the seed of its mutant:

    python -c "from mutants import mutant; ..."    # tests/support/mutants.py: mutant(seed, originals)
"""

from __future__ import annotations

import logging
import os
import resource
import time
import warnings
from collections import Counter
from pathlib import Path

import pytest
from desk_parts import hydrops_study
from fuzzed_node import Fate, FuzzedNode
from mutants import mutant

MUTANTS = int(os.environ.get("HYDROPS_MUTANTS", "10000"))
PARTS = 4
"""So that two workers of the test run share them."""

REPORT_EVERY = 20
"""A report costs ten times as much as the rest; each part writes as many."""

SLOWEST_S = 60.0
"""A hang, not a speed: the slowest of 60,000 took 0.4 s."""

MOST_MEMORY_KIB = 512 * 1024
"""Growth of the process over all mutants of a part; their own bytes are a few kilobytes each."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_mutant_gets_a_status_or_a_reason(part: int, tmp_path: Path) -> None:
    logging.disable(logging.CRITICAL)
    node = FuzzedNode(tmp_path, hydrops_study())
    fates: Counter[Fate] = Counter()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faults: list[str] = []
    try:
        for number, seed in enumerate(range(part, MUTANTS, PARTS)):
            one = mutant(seed, node.originals)
            began = time.monotonic()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    fates[node.swallow(one, with_report=number % REPORT_EVERY == 0)] += 1
            except Exception as error:  # noqa: BLE001 - exactly what must not come out; all of them are told at once
                faults.append(f"seed {seed} ({', '.join(one.damage)}): {type(error).__name__}: {error}")
            assert time.monotonic() - began < SLOWEST_S, f"seed {seed} ({', '.join(one.damage)}) hangs"
    finally:
        node.close()
        logging.disable(logging.NOTSET)
    assert faults == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MOST_MEMORY_KIB
    _require_variety(fates)


def _require_variety(fates: Counter[Fate]) -> None:
    """The mutants must reach every station, or this test would only try the front door."""
    by_station = Counter[str]()
    for fate, count in fates.items():
        by_station[fate.station] += count
    total = fates.total()
    assert by_station["wire"] > 0.2 * total
    assert by_station["study"] > 0.05 * total
    assert by_station["pixels"] > 0.03 * total
    assert by_station["loaded"] > 0.05 * total
    assert len(fates) > 12
