"""How a service is told to stop, whatever its threads are at."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import FrameType

import pytest
from patience import PATIENCE_S

from dicom_node.cli import service
from dicom_node.cli.service import StopEvent

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


LINES_OF_TWO_LOOKS = 48
"""More than a waiting thread passes while it looks twice."""


def test_f07_a_signal_stops_the_service_wherever_its_main_thread_is_while_it_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "LOOK_S", 0.01)
    for number in range(1, LINES_OF_TWO_LOOKS):
        stop, told_in = StopEvent(), list[str]()
        waiting = threading.Thread(target=_wait_told_at_line, args=(number, stop, told_in), daemon=True)
        waiting.start()
        waiting.join(PATIENCE_S)
        assert not waiting.is_alive(), f"told in {told_in[-1]}"
        assert stop.told


def _wait_told_at_line(number: int, stop: StopEvent, told_in: list[str]) -> None:
    """Wait as a main thread does, and be told at the line of that number, where a handler may be called."""

    def at_line(frame: FrameType, event: str, _: object) -> object:
        if event == "line" and frame.f_code.co_filename == threading.__file__:
            told_in.append(f"{frame.f_code.co_qualname}, line {frame.f_lineno}")
            if len(told_in) == number:
                sys.settrace(None)
                stop.tell()
        return at_line

    before = sys.gettrace()
    sys.settrace(at_line)
    try:
        stop.wait_until_set()
    finally:
        sys.settrace(before)
