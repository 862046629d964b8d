"""What the hooks cost Orthanc's storing: ms per image with the node up, down and hung, against no hook.

    python bench/orthanc_hook.py [SECONDS_PER_CASE]

Sends series of 20 small images by storescu without pause while earlier series become stable (StableAge 1 s), so the
hook fires all the time. Prints the table of orthanc_plugin/README.md.
"""

from __future__ import annotations

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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "demo"), str(ROOT / "tests" / "support")]

from local_orthanc import LocalOrthanc, free_port  # noqa: E402
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


def measure(hook: str, state: str, seconds: float) -> list[float]:
    """Milliseconds per image of every series sent, the start of storescu included."""
    with node(state) as port:
        settings = {"StableAge": 1, "HydropsNode": {"WakeUrl": f"http://127.0.0.1:{port}/wake/orthanc"}}
        with LocalOrthanc(extra=settings, **HOOKS[hook]) as orthanc:
            until = time.monotonic() + seconds
            times = []
            while time.monotonic() < until:
                times.append(send_one_series(orthanc))
            return times


def main() -> None:
    """Three rounds over all cases, so that other load on the machine hits all of them alike."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 6.0
    cases = [("none", "down"), *((hook, state) for hook in ("lua", "python") for state in ("up", "down", "hung"))]
    times: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    for _ in range(3):
        for case in cases:
            times[case] += measure(*case, seconds)
    # The fastest tenth is what the hook costs; everything above it is also what else the machine had to do.
    baseline = statistics.quantiles(times["none", "down"], n=10)[0]
    print(
        "| hook | node | series | ms per image, fastest tenth | added ms | slowest series |\n|---|---|---|---|---|---|"
    )
    for (hook, state), values in times.items():
        fast = statistics.quantiles(values, n=10)[0]
        shown = "–" if hook == "none" else state
        print(f"| {hook} | {shown} | {len(values)} | {fast:.2f} | {fast - baseline:+.2f} | {max(values):.2f} |")


if __name__ == "__main__":
    main()
