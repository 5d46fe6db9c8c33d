"""One runner as the pump sees it: how much it is offered, above all when nothing moves."""

import pytest

from penstock.worker.lane import Lane
from tests.worker.harness import claim
from tests.worker.test_pump import HandRunner

MS = 1_000_000


class Stalled:
    """A lane whose runner starts nothing, as a loop that a coroutine blocks; its clock is turned by hand."""

    def __init__(self, places: int) -> None:
        self.runner = HandRunner(places)
        self.lane = Lane("loop", self.runner, looks_ahead=True)
        self.now_ns = 0

    def pass_ms(self, ms: int) -> None:
        """Let time pass as the pump does: what is offered is claimed, what stalls is handed back."""
        for _ in range(ms // 10):
            self.now_ns += 10 * MS
            self.lane.withdraw_stalled(self.now_ns)
            if room := self.lane.room(self.now_ns):
                self.lane.start([claim("thread.give", 1) for _ in range(room)], self.now_ns)


def test_stalled_lane_rests_longer_and_longer_with_places_free() -> None:
    stalled = Stalled(1)
    counts = []
    for _ in range(4):
        before = stalled.runner.started
        stalled.pass_ms(10_000)
        counts.append(stalled.runner.started - before)
    assert 2 <= counts[0] <= 5
    assert counts[-1] == 2


def test_end_of_a_job_ends_the_rest() -> None:
    stalled = Stalled(2)
    stalled.pass_ms(20)
    stalled.runner.take()
    stalled.pass_ms(200)
    assert stalled.lane.room(stalled.now_ns) == 0
    stalled.lane.ended(1, stalled.now_ns)
    assert stalled.lane.room(stalled.now_ns) == 2


@pytest.mark.parametrize("places", [1, 5])
def test_lane_that_never_stalled_offers_all_its_places(places: int) -> None:
    stalled = Stalled(places)
    assert stalled.lane.room(0) == places
