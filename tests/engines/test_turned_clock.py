"""The clock that tests turn."""

import pytest

from penstock.testing import TurnedClock


def test_turning_moves_both_times() -> None:
    clock = TurnedClock(wall_ms=1000)
    before = clock.steady_ms()
    clock.turn(500)
    assert (clock.wall_ms(), clock.steady_ms()) == (1500, before + 500)


def test_jump_moves_the_time_of_day_alone() -> None:
    clock = TurnedClock(wall_ms=1000)
    before = clock.steady_ms()
    clock.jump_wall(-300)
    assert (clock.wall_ms(), clock.steady_ms()) == (700, before)


def test_reboot_begins_steady_time_anew() -> None:
    clock = TurnedClock()
    clock.turn(500)
    boot = clock.boot()
    clock.reboot()
    assert (clock.steady_ms(), clock.boot() != boot) == (0, True)


def test_time_does_not_pass_backwards() -> None:
    with pytest.raises(ValueError, match="-1 ms"):
        TurnedClock().turn(-1)
