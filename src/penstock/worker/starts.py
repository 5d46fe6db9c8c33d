"""When processes are started: at once, and later and later while their starts fail."""

import time

__all__ = ["Starts"]

LONGEST_BACKOFF_S = 30.0
#: The same for processes that were killed from outside while they started: nothing is wrong with the application.
LONGEST_BACKOFF_AFTER_KILL_S = 0.5


class Starts:
    """The starts that are still to come, each with the time when it is due."""

    def __init__(self, count: int) -> None:
        self._due = [0.0] * count
        self._failed = 0

    def __bool__(self) -> bool:
        return bool(self._due)

    @property
    def next_at(self) -> float:
        """When the next one is due; never, if none is to come."""
        return min(self._due, default=float("inf"))

    def take(self, now: float) -> bool:
        """Take one that is due, if there is one."""
        if self.next_at > now:
            return False
        self._due.remove(self.next_at)
        return True

    def add(self, pause_s: float) -> None:
        """Start one more process after a pause."""
        self._due.append(time.monotonic() + pause_s)

    def hasten(self, now: float) -> None:
        """Let all be due now, because something was mended."""
        self._due, self._failed = [now for _ in self._due], 0

    def succeeded(self) -> None:
        """Note that a process has done work, so that the next one is started at once."""
        self._failed = 0

    def failed(self, *, killed: bool) -> float:
        """Note that a process ended at its start; give how long to wait before the next, up to 30 s.

        Args:
            killed: whether somebody else killed it.
        """
        self._failed += 1
        longest_s = LONGEST_BACKOFF_AFTER_KILL_S if killed else LONGEST_BACKOFF_S
        return 0.0 if self._failed == 1 else self._pause_s(longest_s)

    def put_off(self) -> float:
        """Give one that was taken back, because nothing can be started now; give how long all wait."""
        self._failed += 1
        pause_s = self._pause_s(LONGEST_BACKOFF_S)
        again = time.monotonic() + pause_s
        self._due = [max(due, again) for due in (*self._due, again)]
        return pause_s

    def _pause_s(self, longest_s: float) -> float:
        return min(longest_s, 0.125 * 2.0 ** min(self._failed, 10))
