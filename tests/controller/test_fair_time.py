"""Loop time counts only what somebody could have noticed."""

from sliceform.controller.reconcile.loop_time import LoopTime
from sliceform.controller.testing import FakeClock


def test_counts_the_time_between_ticks() -> None:
    clock = FakeClock()
    time = LoopTime(clock.monotonic(), max_gap_s=2.0)
    for seconds, expected in ((0.5, 0.5), (2.0, 2.5), (0.0, 2.5)):
        clock.advance(seconds)
        assert time.tick(clock.monotonic(), blind=False) == expected


def test_a_pause_of_the_driver_counts_as_one_long_tick_at_most() -> None:
    clock = FakeClock()
    time = LoopTime(clock.monotonic(), max_gap_s=2.0)
    clock.advance(3600.0)
    assert time.tick(clock.monotonic(), blind=False) == 2.0
    clock.advance(1.0)
    assert time.tick(clock.monotonic(), blind=False) == 3.0


def test_stands_still_while_nothing_can_be_observed() -> None:
    clock = FakeClock()
    time = LoopTime(clock.monotonic(), max_gap_s=2.0)
    clock.advance(1.0)
    assert time.tick(clock.monotonic(), blind=True) == 0.0
    clock.advance(1.0)
    assert time.tick(clock.monotonic(), blind=False) == 1.0
