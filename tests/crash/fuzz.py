"""Coverage-guided fuzzing of everything that reads a stranger's bytes first.

    make fuzz                          # ten minutes of each entrance
    make fuzz SECONDS_EACH=3600 ONLY=data_set
    .venv/bin/python tests/crash/fuzz.py --seconds 60 --seed 7 --keep build/fuzz

An input that breaks something is written to build/fuzz/ENTRANCE/ and named; `--repeat FILE --only ENTRANCE` runs it
again. What was found interesting stays there, too, and is begun with the next time. Exit status: 0 nothing, 1 found.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("data_set", "dicom_file", "association_request", "association_data", "decoder_answer")
"""Those of `fuzz_targets.TARGETS`, which must not be imported here: the child instruments what it imports."""

INSTRUMENTED = ("dicom_node", "pydicom.filereader")
"""Our readers, and those of others that are to see the same in the same bytes."""

SLOWEST_S = 10
MOST_MEMORY_MIB = 1024


@dataclass(frozen=True, kw_only=True)
class Fuzzed:
    """What fuzzing one entrance came to. `finding` is empty, or what broke and the file that breaks it."""

    entrance: str
    inputs: int
    branches: int
    finding: str


def missing() -> str:
    """What this machine lacks for it; an empty string when nothing."""
    return "" if importlib.util.find_spec("atheris") else "needs atheris, which has no wheel for this machine"


def fuzz(
    entrance: str,
    folder: Path,
    *,
    seed: int,
    inputs: int = -1,
    seconds: int = 0,
    most_memory_mib: int = MOST_MEMORY_MIB,
) -> Fuzzed:
    """Fuzz one entrance in a process of its own until so many inputs or seconds are spent; -1 and 0: no bound.

    With a bound on inputs, the same seed and an empty `folder` it is the same run each time.
    """
    kept = folder / entrance
    kept.mkdir(parents=True, exist_ok=True)
    bounds = (f"-seed={seed + 1}", f"-runs={inputs}", f"-max_total_time={seconds}")
    limits = (f"-timeout={SLOWEST_S}", f"-rss_limit_mb={most_memory_mib}", f"-artifact_prefix={kept}/broken-")
    command = [sys.executable, __file__, "--child", entrance, str(kept), *bounds, *limits, "-print_final_stats=1"]
    # A small process in between: what starts another hands its own peak of memory on to it, and ours may be gigabytes.
    between = ["sh", "-c", '"$@"; exit $?', "sh"]
    done = subprocess.run([*between, *command], capture_output=True, text=True, errors="replace", check=False)
    said = done.stdout + done.stderr
    executed = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said)
    branches = re.findall(r"\bcov: (\d+)", said)
    return Fuzzed(
        entrance=entrance,
        inputs=int(executed[-1]) if executed else 0,
        branches=int(branches[-1]) if branches else 0,
        finding="" if done.returncode == 0 else _finding(said),
    )


def _finding(said: str) -> str:
    """The last words of a run that broke: the error, where, and the file."""
    raised = re.findall(r"^(\w+(?:\.\w+)*(?:Error|Exception|Limit|Rejected\w*)\b.*)$", said, re.MULTILINE)
    written = re.findall(r"Test unit written to (\S+)", said)
    libfuzzer = re.findall(r"ERROR: libFuzzer: (.*)", said)
    what = (*raised[:1], *libfuzzer[:1], *written[:1])
    return "; ".join(what) or said.strip()[-300:]


def child(entrance: str, kept: Path, options: list[str]) -> None:
    """Instrument, write the seeds, fuzz; never returns."""
    import atheris

    sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT)]
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from fuzz_targets import TARGETS, name_of
    import logging

    logging.disable(logging.CRITICAL)
    target = TARGETS[entrance]
    for one in target.seeds():
        (kept / name_of(one)).write_bytes(one)
    atheris.Setup([sys.argv[0], *options, f"-max_len={target.most_bytes}", str(kept)], target.run)
    atheris.Fuzz()


def main() -> int:
    """Fuzz what was asked for; a line for each entrance."""
    arguments = _arguments()
    if lacking := missing():
        print(f"not fuzzed: {lacking}")
        return 0
    if arguments.repeat is not None:
        return _repeat(arguments.repeat, arguments.only)
    found = 0
    for entrance in arguments.only or NAMES:
        print(f"{entrance} ...", flush=True)
        one = fuzz(entrance, arguments.keep, seed=arguments.seed, seconds=arguments.seconds)
        print(
            f"{entrance}: {one.inputs:,} inputs, {one.branches} branches, {one.finding or 'nothing broke'}", flush=True
        )
        found += bool(one.finding)
    return 1 if found else 0


def _repeat(file: Path, entrances: list[str]) -> int:
    """One input again, with its traceback."""
    sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT)]
    from fuzz_targets import TARGETS

    for entrance in entrances:
        TARGETS[entrance].run(file.read_bytes())
    print("nothing broke")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, metavar="S", help="for each entrance (default: 600)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the fuzzer's chance (default: 0)")
    parser.add_argument("--only", nargs="*", choices=NAMES, default=[], metavar="ENTRANCE", help=", ".join(NAMES))
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "fuzz", metavar="FOLDER", help="where inputs lie")
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="one input again, of the entrance of --only")
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
    sys.exit(main())
