"""How soon a killed receiver serves again. What it must not lose is the campaign's affair (tests/crash)."""

from __future__ import annotations

import os
from pathlib import Path

from exact_sender import associated
from sending import receiver

MOST_OF_A_PROCESSOR_S = 5.0
"""What a start may take of one processor. How long that lasts depends on who else wants it."""


def test_a_killed_receiver_answers_echo_again_a_moment_after_its_start(tmp_path):
    with receiver(tmp_path):
        pass
    with receiver(tmp_path) as (process, port), associated(port) as sender:
        assert sender.echo() == 0x0000
        assert processor_s(process.pid) < MOST_OF_A_PROCESSOR_S


def processor_s(process_id: int) -> float:
    """Seconds that all threads of a process have computed, in the kernel and outside (proc(5): utime and stime)."""
    values = Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
