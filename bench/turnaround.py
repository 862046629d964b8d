"""How long a study takes: from its last image's acknowledgement to SEG and SR in a real Orthanc.

    python bench/turnaround.py [--rounds 5] [--entrances orthanc dicom] [--json FILE]

The first study after a start is told apart: the goals are those of a node that has computed one.

Each round is another synthetic patient with the four series MRC, PPI, PEI and HYDROPS of 384 x 324 x 104 voxels, sent
by DCMTK to a node with the settings that sites start from. Entrance "orthanc": into Orthanc, whose hook wakes the
node; "dicom": straight to the node by C-STORE. Also told: how soon after its start the node answers a C-ECHO, and the
most memory that its two processes ever held.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))

from free_ports import free_port
from local_node import LocalNode
from local_orthanc import LocalOrthanc
from machine import REPOSITORY
from machine_limits import MachineLimits, machine_limits, network_gflop
from suite import Benchmark, Better, Found, Measurement, run

from dicom_node.delivery.outcome import Destination, OutcomeKind
from dicom_node.delivery.store_scu import echo
from dicom_node.encoding.phantom_study import phantom_datasets
from inference.networks import build_network
from inference.phantom import PhantomOptions, make_study

ENTRANCES = ("orthanc", "dicom")
SERIES = ("MRC", "PPI", "PEI", "HYDROPS")
TIMEOUT_S = 300.0
GOAL_MEDIAN_S: Final = 5.0
GOAL_SLOWEST_S: Final = 8.0
"""Of a percentile of 95: with fewer than twenty rounds the slowest must reach it."""

VOXELS: Final = 384 * 324 * 104
USED_SERIES: Final = 3
"""MRC, PPI and PEI; the HYDROPS that came as well is left out, because the node makes its own."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One study's way. `steps_s` are the worker's own times; what lacks to `turnaround_s` is waiting and sending."""

    entrance: str
    images: int
    sending_s: float
    turnaround_s: float
    outcome: str
    steps_s: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Service:
    """What one node took: seconds to its first C-ECHO, and peak resident memory of its two processes."""

    entrance: str
    echo_s: float
    receiver_mib: float
    worker_mib: float


def write_study(folder: Path, seed: int) -> str:
    """A patient on disk; the Study Instance UID."""
    patient = make_study(PhantomOptions(seed=seed, series=SERIES, oblique_deg=(12.0, 0.0, 0.0), motion_mm=1.0))
    images = phantom_datasets(patient, series=SERIES)
    folder.mkdir()
    for number, one in enumerate(images):
        one.save_as(folder / f"{number:06d}.dcm", enforce_file_format=True)
    return str(images[0].StudyInstanceUID)


def send(folder: Path, called_ae: str, port: int) -> float:
    """Seconds until the last image was acknowledged."""
    began = time.perf_counter()
    command = ["dcmsend", "-aet", "SCANNER", "-aec", called_ae, "--scan-directories", "127.0.0.1", str(port), folder]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"TCP_NODELAY": "1"})
    return time.perf_counter() - began


def has_results(orthanc: LocalOrthanc, study: str) -> bool:
    """Whether SEG and SR are in the PACS, or the one SR that says why there is nothing."""
    kinds = set()
    for modality in ("SEG", "SR"):
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study, "Modality": modality}}
        if orthanc.session.post(f"{orthanc.url}/tools/find", json=query).json():
            kinds.add(modality)
    return kinds == {"SEG", "SR"}


def measure_round(node: LocalNode, orthanc: LocalOrthanc, folder: Path, study: str, entrance: str) -> Round:
    """Send one study and wait for its results."""
    port, called = (orthanc.dicom_port, orthanc.aet) if entrance == "orthanc" else (node.dicom_port, "HYDROPS")
    sending_s = send(folder, called, port)
    began = time.perf_counter()
    while not has_results(orthanc, study):
        if time.perf_counter() - began > TIMEOUT_S:
            raise TimeoutError(f"no SEG and SR of study {study} after {TIMEOUT_S:.0f} s:\n{node.log_tail()}")
        time.sleep(0.05)
    turnaround_s = time.perf_counter() - began
    record = node.wait_until_finished(study)
    return Round(
        entrance=entrance,
        images=sum(1 for _ in folder.iterdir()),
        sending_s=sending_s,
        turnaround_s=turnaround_s,
        outcome=record.state.value,
        steps_s=dict((record.findings or {}).get("timings_s", {})),
    )


def start_and_echo(node: LocalNode) -> float:
    """Seconds from the start of `serve` to the first C-ECHO that it answers."""
    scanner = Destination(
        name="node", kind="dicom", host="127.0.0.1", port=node.dicom_port, called_ae="HYDROPS", calling_ae="SCANNER"
    )
    began = time.perf_counter()
    node.start()
    while echo(scanner).kind is not OutcomeKind.DELIVERED:
        if time.perf_counter() - began > TIMEOUT_S:
            raise TimeoutError(f"no C-ECHO was answered:\n{node.log_tail()}")
        time.sleep(0.02)
    return time.perf_counter() - began


def peak_mib(pids: Sequence[int]) -> float:
    """The most resident memory that any of these processes ever held."""
    peaks = [
        int(line.split()[1]) / 1024
        for pid in pids
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return max(peaks, default=0.0)


def measure_entrance(entrance: str, rounds: int, folder: Path, *, first_seed: int) -> tuple[list[Round], Service]:
    """All rounds of one entrance on one node and one Orthanc."""
    web_port = free_port()
    hook = {"HydropsNode": {"WakeUrl": f"http://127.0.0.1:{web_port}/wake/orthanc"}}
    lua = [REPOSITORY / "orthanc_plugin" / "route_to_node.lua"] if entrance == "orthanc" else []
    with LocalOrthanc(folder / "orthanc", extra=hook, lua_scripts=lua) as orthanc:
        node = LocalNode(
            folder / "node",
            orthanc=orthanc,
            entrance=entrance,
            web_port=web_port,
            overrides={"assembly": "quiet_s = 30.0"},  # as in config/node.toml
        )
        try:
            echo_s = start_and_echo(node)
            done = []
            for number in range(rounds):
                study_folder = folder / f"study-{number}"
                study = write_study(study_folder, first_seed + number)
                done.append(measure_round(node, orthanc, study_folder, study, entrance))
                print(f"  {entrance} {number + 1}/{rounds}: {done[-1].turnaround_s:.1f} s", flush=True)
            service = Service(
                entrance=entrance,
                echo_s=echo_s,
                receiver_mib=peak_mib(node.pids()),
                worker_mib=peak_mib(node.worker_pids()),
            )
        finally:
            node.stop()
    return done, service


def limits_of_steps(limits: MachineLimits) -> dict[str, tuple[float, str]]:
    """What bounds each step that has such a bound: seconds, and how they were reckoned."""
    stored, shown = 2 * VOXELS * USED_SERIES, 4 * VOXELS * USED_SERIES
    finder = network_gflop(lambda: build_network("ear_finder").eval(), (1, 1, 72, 112, 88))
    ears = network_gflop(lambda: build_network("ear_unet").eval(), (4, 4, 24, 48, 48))  # two looks at each
    # All shifts of two ears' boxes in two series; three climbs of 12 steps on 16,000 points and two of 8 on 50,000, 200
    # operations a point: eight voxels, their derivative, its products with itself.
    aligning = (4 * 13**3 * 20**3 + (3 * 12 * 16e3 + 2 * 8 * 50e3) * 200) / 1e9
    speed, memory = f"{limits.gflop_per_s:.0f} GFLOP/s", f"{limits.gb_per_s:.1f} GB/s"
    return {
        "load images": (
            limits.memory_s(2 * stored + shown),
            f"{(2 * stored + shown) / 1e6:.0f} MB read, copied and written at {memory}",
        ),
        "check images": (limits.memory_s(shown), f"{shown / 1e6:.0f} MB read at {memory}"),
        "find ears": (
            limits.arithmetic_s(finder) + limits.memory_s(2 * shown),
            f"{finder:.1f} GFLOP at {speed}, {2 * shown / 1e6:.0f} MB at {memory}",
        ),
        "align series": (limits.arithmetic_s(aligning), f"{aligning:.1f} GFLOP at {speed}"),
        "segment fluid": (limits.arithmetic_s(ears), f"{ears:.1f} GFLOP at {speed}"),
    }


def measured(entrance: str, rounds: Sequence[Round], service: Service, limits: MachineLimits) -> Iterator[Measurement]:
    """Everything about one entrance; `rounds` without the first of the node."""

    def figure(what: str, unit: str, values: Sequence[float], *, goal: float | None = None) -> Measurement:
        return Measurement(what=f"{entrance}: {what}", unit=unit, better=Better.LOWER, values=tuple(values), goal=goal)

    yield figure("turnaround", "s", [one.turnaround_s for one in rounds], goal=GOAL_MEDIAN_S)
    yield figure("slowest turnaround", "s", [max(one.turnaround_s for one in rounds)], goal=GOAL_SLOWEST_S)
    yield figure("sending to the node", "s", [one.sending_s for one in rounds])
    bounds = limits_of_steps(limits)
    for step in dict.fromkeys(step for one in rounds for step in one.steps_s):
        limit, reckoned = bounds.get(step, (None, ""))
        yield Measurement(
            what=f"{entrance}: step '{step}'",
            unit="s",
            better=Better.LOWER,
            values=tuple(one.steps_s[step] for one in rounds if step in one.steps_s),
            limit=limit,
            limit_from=reckoned,
        )
    yield figure("all steps", "s", [sum(one.steps_s.values()) for one in rounds])
    yield figure(
        "waiting, queues, pictures, sending", "s", [one.turnaround_s - sum(one.steps_s.values()) for one in rounds]
    )
    yield figure("start to first C-ECHO", "s", [service.echo_s])
    yield figure("peak memory, receiving", "MiB", [service.receiver_mib])
    yield figure("peak memory, computing", "MiB", [service.worker_mib])


def measure(asked: argparse.Namespace) -> Found:
    """Every entrance in turn, each on a node of its own."""
    limits = machine_limits()
    rounds: list[Round] = []
    measurements: list[Measurement] = []
    for entrance in asked.entrances:
        with tempfile.TemporaryDirectory(prefix="bench-turnaround-") as folder:
            done, service = measure_entrance(entrance, asked.rounds + 1, Path(folder), first_seed=asked.first_seed)
        rounds += done
        first, *warm = done
        measurements += measured(entrance, warm, service, limits)
        cold = Measurement(
            what=f"{entrance}: first study after a start", unit="s", better=Better.LOWER, values=(first.turnaround_s,)
        )
        measurements.append(cold)
    return Found(measurements=tuple(measurements), details={"rounds": [asdict(one) for one in rounds]})


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--rounds", type=int, default=5, help="studies for each entrance after the first (default 5)")
    parser.add_argument("--entrances", nargs="+", default=list(ENTRANCES), choices=ENTRANCES)
    parser.add_argument("--first-seed", type=int, default=500, help="of the synthetic patients")


BENCHMARK: Final = Benchmark(
    name="turnaround",
    question="How long from a study's last acknowledged image until SEG and SR are in the PACS?",
    measure=measure,
    add_options=options,
    quick=("--rounds", "1", "--entrances", "dicom"),
)

if __name__ == "__main__":
    run(BENCHMARK)
