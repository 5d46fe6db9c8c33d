"""One runner as the pump sees it: what it holds, how fast it is, what it can take."""

from penstock.model.job import Claim
from penstock.worker.pace import Pace
from penstock.worker.runners.contract import Runner

#: How long a claim may wait for a place behind jobs that turn out long.
LONGEST_WAIT_NS = 100_000_000
#: How long a lane in which nothing moves is offered nothing: at first, and when it goes on.
SHORTEST_REST_NS, LONGEST_REST_NS = 1_000_000_000, 5_000_000_000


class Lane:
    """Counts claims from the hand-over to their outcome. Used by the pump's thread alone.

    Args:
        looks_ahead: whether claims may wait here for a place.
    """

    def __init__(self, name: str, runner: Runner, *, looks_ahead: bool) -> None:
        self.name, self.runner, self.looks_ahead = name, runner, looks_ahead
        self.held = 0
        self._pace = Pace()
        self._moved_ns = 0
        self._rest_ns = SHORTEST_REST_NS
        self._rests_until_ns = 0

    @property
    def has_stalled(self) -> bool:
        """Whether nothing has ended since it had to rest."""
        return self._rests_until_ns > 0

    def room(self, now_ns: int) -> int:
        """Give how many claims it can take: its free places, and what it will start soon; none while it rests."""
        if now_ns < self._rests_until_ns:
            return 0
        ahead = self._pace.ahead(now_ns) if self.looks_ahead else 0
        return max(0, self.runner.places + ahead - self.held)

    def start(self, claims: list[Claim], now_ns: int) -> None:
        if self.held <= self.runner.places:
            self._moved_ns = now_ns
        self.held += len(claims)
        self.runner.start(claims)

    def ended(self, count: int, now_ns: int) -> None:
        self.held -= count
        self._moved_ns = now_ns
        self._rest_ns, self._rests_until_ns = SHORTEST_REST_NS, 0
        self._pace.add(now_ns, count)

    def withdraw(self) -> list[Claim]:
        taken = self.runner.withdraw()
        self.held -= len(taken)
        return taken

    def withdraw_stalled(self, now_ns: int) -> list[Claim]:
        """Take back what waits behind jobs none of which has ended for 100 ms.

        Then the lane rests. It may have places free and yet start nothing, when a coroutine blocks its loop; what is
        taken back would be claimed again at once, and so on ten times a second.
        """
        if not self.looks_ahead or now_ns - self._moved_ns < LONGEST_WAIT_NS or not self.runner.waits():
            return []
        self._pace.reset()
        self._rests_until_ns = now_ns + self._rest_ns
        self._rest_ns = min(2 * self._rest_ns, LONGEST_REST_NS)
        return self.withdraw()
