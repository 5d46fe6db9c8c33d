"""A clock that stands still until it is turned."""

import threading

MORNING_MS = 1_700_000_000_000


class TurnedClock:
    """An `engine.Clock` for tests; thread-safe.

    Args:
        wall_ms: time of day at the start, ms since the epoch.

    >>> clock = TurnedClock(wall_ms=1000)
    >>> clock.turn(500)
    >>> clock.wall_ms()
    1500
    """

    def __init__(self, wall_ms: int = MORNING_MS) -> None:
        self._lock = threading.Lock()
        self._wall_ms = wall_ms
        self._steady_ms = 0
        self._boots = 1

    def turn(self, ms: int) -> None:
        """Let time pass, in ms, for the time of day and for leases alike."""
        if ms < 0:
            raise ValueError(
                f"Time cannot pass by {ms} ms; give 0 or more, or set the time of day back with jump_wall."
            )
        with self._lock:
            self._wall_ms += ms
            self._steady_ms += ms

    def jump_wall(self, ms: int) -> None:
        """Set the time of day forward or back, in ms, while no time passes."""
        with self._lock:
            self._wall_ms += ms

    def reboot(self) -> None:
        """Start the machine anew: another boot, whose steady time begins at 0."""
        with self._lock:
            self._boots += 1
            self._steady_ms = 0

    def wall_ms(self) -> int:
        """Give the time of day in ms since the epoch."""
        with self._lock:
            return self._wall_ms

    def steady_ms(self) -> int:
        """Give the time that has passed in this boot."""
        with self._lock:
            return self._steady_ms

    def boot(self) -> str:
        """Give the identity of this boot."""
        with self._lock:
            return f"boot-{self._boots}"
