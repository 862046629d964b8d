"""How a service is told to stop, whatever its threads are at."""

from __future__ import annotations

import subprocess
import sys

from patience import PATIENCE_S

SERVICE = """
import signal, threading, time
from dicom_node.cli.service import until_told_to_stop

def told_beside_the_main_thread():
    time.sleep(1.0)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    time.sleep(3600.0)

with until_told_to_stop() as stop:
    threading.Thread(target=told_beside_the_main_thread, daemon=True).start()
    stop.wait_until_set()
    print("told" if stop.told else "not told")
"""


def test_f07_a_signal_that_another_thread_gets_stops_the_service_too() -> None:
    ended = subprocess.run([sys.executable, "-c", SERVICE], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (ended.returncode, ended.stdout) == (0, "told\n")
