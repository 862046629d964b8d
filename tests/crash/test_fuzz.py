"""A short run of the fuzzer at every entrance; `make fuzz` and the campaign make longer ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import fuzz_targets
import pytest
from fuzz import NAMES, fuzz, missing
from fuzz_targets import TARGETS

INPUTS = 2000

needs_a_wheel = pytest.mark.skipif(bool(missing()), reason=missing())


def test_the_fuzzer_knows_every_entrance() -> None:
    assert set(NAMES) == set(TARGETS)


@needs_a_wheel
@pytest.mark.parametrize("entrance", NAMES)
def test_b68_no_input_breaks_an_entrance(entrance: str, tmp_path: Path) -> None:
    done = fuzz(entrance, tmp_path, seed=0, inputs=INPUTS)
    assert done.finding == ""
    assert done.inputs >= INPUTS
    assert done.branches > 30


@needs_a_wheel
def test_a_bound_that_is_broken_is_told_with_the_input_that_breaks_it(tmp_path: Path) -> None:
    # Memory is looked at once a second: more inputs than any machine tries until then.
    done = fuzz("decoder_answer", tmp_path, seed=0, inputs=1_000_000_000, most_memory_mib=16)
    assert "out-of-memory" in done.finding


@pytest.mark.parametrize("entrance", TARGETS)
def test_every_seed_passes_and_at_least_one_is_taken(entrance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(fuzz_targets, "read_series_header", lambda *seen: taken.append(seen))
    for seed in TARGETS[entrance].seeds():
        TARGETS[entrance].run(seed)
    assert taken or entrance in ("association_request", "association_data", "decoder_answer")


def test_an_image_that_two_readers_see_differently_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    right = fuzz_targets.check_dataset
    wrong = lambda *seen, **bounds: replace(right(*seen, **bounds), study_instance_uid="1.2.999")  # noqa: E731
    monkeypatch.setattr(fuzz_targets, "check_dataset", wrong)
    with pytest.raises(AssertionError, match=r"taken as .*1\.2\.999"):
        TARGETS["data_set"].run(TARGETS["data_set"].seeds()[0])


def test_a_decoder_that_answers_with_more_than_it_may_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_targets, "MOST_PIXEL_BYTES", 4)
    TARGETS["decoder_answer"].run(_answer())
    right = fuzz_targets.read_answer
    monkeypatch.setattr(fuzz_targets, "read_answer", lambda stream, most_bytes: right(stream, most_bytes=1000))
    with pytest.raises(AssertionError):
        TARGETS["decoder_answer"].run(_answer())


def _answer() -> bytes:
    return json.dumps({"dtype": "<u2", "shape": [2, 2], "bytes": 8}).encode() + b"\n" + bytes(8)
