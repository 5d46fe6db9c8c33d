"""The guard against a server's clock that is set: what it takes for a jump, and how long it then spares leases."""

from penstock.engines.guard import ClockGuard


def test_first_look_at_a_clock_is_believed() -> None:
    guard = ClockGuard()
    assert guard.latest_ms(5.0) is None
    assert not guard.spares(5.0)


def test_clock_may_gain_two_seconds_between_two_looks() -> None:
    guard = ClockGuard()
    guard.note(1_000_000, 5.0)
    assert guard.latest_ms(6.0) == 1_003_000


def test_leases_are_spared_as_long_as_the_longest_lasts_after_a_jump() -> None:
    guard = ClockGuard()
    guard.note(1_000_000, 5.0)
    guard.note(9_000_000, 7.0, lease_ms=60_000)
    assert guard.spares(66.9)
    assert not guard.spares(67.0)


def test_clock_set_back_is_expected_no_later_than_it_shows() -> None:
    guard = ClockGuard()
    guard.note(9_000_000, 5.0)
    guard.note(1_000_000, 6.0)
    assert guard.latest_ms(6.0) == 1_002_000
    assert not guard.spares(6.0)
