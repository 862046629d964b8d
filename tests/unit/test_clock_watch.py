"""Noticing that the clock was set, and nothing else."""

from __future__ import annotations

from dicom_node.clock_watch import ClockWatch

NOON = 1_800_000_000.0


class Machine:
    """Two clocks; `stopped_s` is for how long the thread that reads the wall clock next is kept from reading on."""

    def __init__(self) -> None:
        self.steady, self.put_forward_s, self.stopped_s = 5.0, 0.0, 0.0

    def clock(self) -> float:
        """Wall time."""
        now = NOON + self.steady + self.put_forward_s
        self.steady, self.stopped_s = self.steady + self.stopped_s, 0.0
        return now

    def watch(self) -> ClockWatch:
        """What has looked once."""
        watch = ClockWatch(self.clock, lambda: self.steady)
        assert watch.set_by_s() == 0.0
        return watch


def test_f28_a_thread_that_is_kept_waiting_between_the_two_clocks_sees_none_set() -> None:
    """On a busy machine: all deliveries would be tried at once, and all studies would wait for one quiet time more."""
    machine = Machine()
    watch = machine.watch()
    machine.stopped_s = 3.0
    assert [watch.set_by_s(), watch.set_by_s()] == [0.0, 0.0]


def test_f28_a_clock_that_is_set_is_told_once() -> None:
    machine = Machine()
    watch = machine.watch()
    machine.put_forward_s, machine.stopped_s = -60.0, 3.0
    assert [watch.set_by_s(), watch.set_by_s()] == [-60.0, 0.0]
