"""How soon a killed receiver serves again. What it must not lose is the campaign's affair (tests/crash)."""

from __future__ import annotations

import time

from exact_sender import associated
from sending import receiver


def test_a_killed_receiver_answers_echo_again_a_moment_after_its_start(tmp_path):
    with receiver(tmp_path):
        pass
    started_s = time.monotonic()
    with receiver(tmp_path) as (_, port), associated(port) as sender:
        assert sender.echo() == 0x0000
    assert time.monotonic() - started_s < 5
