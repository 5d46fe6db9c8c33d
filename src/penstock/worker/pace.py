"""How far a process may claim ahead: what the last second's jobs show it will start within about 100 ms."""

from collections import deque

AHEAD_S = 0.1
_WINDOW_NS = 1_000_000_000


class Pace:
    """Counts ended jobs over the last second."""

    def __init__(self) -> None:
        self._ended: deque[tuple[int, int]] = deque()
        self._total = 0

    def add(self, now_ns: int, ended: int) -> None:
        self._ended.append((now_ns, ended))
        self._total += ended

    def reset(self) -> None:
        """Forget what was measured: a job turned out long, so claims made ahead would wait behind it."""
        self._ended.clear()
        self._total = 0

    def ahead(self, now_ns: int) -> int:
        """Give how many jobs will probably start within 100 ms."""
        ended = self._ended
        while ended and ended[0][0] < now_ns - _WINDOW_NS:
            self._total -= ended.popleft()[1]
        return int(self._total * AHEAD_S)
