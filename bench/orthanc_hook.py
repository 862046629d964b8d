"""What the hooks cost Orthanc's storing: ms per image with the node up, down and hung, against no hook.

    python bench/orthanc_hook.py [--seconds 6] [--rounds 3]

Sends series of 20 small images by storescu without pause while earlier series become stable (StableAge 1 s), so the
hook fires all the time. The table of orthanc_plugin/README.md was made from it.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from suite import Benchmark, Better, Found, Measurement, in_turns, run

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "demo"), str(ROOT / "tests" / "support")]

from free_ports import free_port  # noqa: E402
from local_orthanc import LocalOrthanc  # noqa: E402
from orthanc_parts import mr_series  # noqa: E402

IMAGES = 20
HOOKS = {"none": {}, "lua": {"lua_scripts": [ROOT / "orthanc_plugin" / "route_to_node.lua"]}}
HOOKS["python"] = {"python_script": ROOT / "orthanc_plugin" / "route_to_node.py"}


class _Node(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(202)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def node(state: str) -> Iterator[int]:
    """Port of a node that answers ("up"), is not there ("down"), or accepts and never answers ("hung")."""
    if state == "down":
        yield free_port()
    elif state == "hung":
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(128)
            yield listening.getsockname()[1]
    else:
        with ThreadingHTTPServer(("127.0.0.1", 0), _Node) as server:
            threading.Thread(target=server.serve_forever).start()
            yield server.server_port
            server.shutdown()


def send_one_series(orthanc: LocalOrthanc) -> float:
    """Milliseconds per image."""
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(mr_series(IMAGES)[2]):
            (Path(folder) / f"{number}.dcm").write_bytes(data)
        peer = ["-aet", "SCANNER", "-aec", orthanc.aet, "127.0.0.1", str(orthanc.dicom_port)]
        began = time.perf_counter()
        subprocess.run(["storescu", "+sd", *peer, folder], env={**os.environ, "TCP_NODELAY": "1"}, check=True)
        return (time.perf_counter() - began) * 1000 / IMAGES


def storing_ms(hook: str, state: str, seconds: float) -> float:
    """Milliseconds per image, the fastest tenth of all series sent in that time, the start of storescu included.

    The fastest tenth is what the hook costs; everything above it is also what else the machine had to do.
    """
    with node(state) as port:
        settings = {"StableAge": 1, "HydropsNode": {"WakeUrl": f"http://127.0.0.1:{port}/wake/orthanc"}}
        with LocalOrthanc(extra=settings, **HOOKS[hook]) as orthanc:
            until = time.monotonic() + seconds
            times = [send_one_series(orthanc), send_one_series(orthanc)]
            while time.monotonic() < until:
                times.append(send_one_series(orthanc))
            return statistics.quantiles(times, n=10)[0]


def measure(asked: argparse.Namespace) -> Found:
    """All cases in turns, so that other load on the machine hits all of them alike."""
    cases = [("none", "down"), *((hook, state) for hook in ("lua", "python") for state in ("up", "down", "hung"))]
    times = in_turns(
        asked.rounds,
        {f"{hook}, node {state}": partial(storing_ms, hook, state, asked.seconds) for hook, state in cases},
    )
    (_, without), *with_hook = times.items()
    measurements = [
        Measurement(
            what=f"an image stored, hook in {case}",
            unit="ms",
            better=Better.LOWER,
            values=taken,
            rival="Orthanc without a hook",
            rival_values=without,
        )
        for case, taken in with_hook
    ]
    return Found(measurements=tuple(measurements))


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--seconds", type=float, default=6.0, help="for each case and round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every case (default %(default)s)")


BENCHMARK: Final = Benchmark(
    name="orthanc_hook",
    question="What does the hook cost Orthanc's storing, with the node up, down and hung?",
    measure=measure,
    add_options=options,
    quick=("--seconds", "2", "--rounds", "1"),
)

if __name__ == "__main__":
    run(BENCHMARK)
