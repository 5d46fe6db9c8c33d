"""A lock between threads that no interrupt can leave held."""

import threading
from collections.abc import Callable


class Mutex:
    """Mutual exclusion whose release is exact, whatever came in between.

    Ctrl-C may come between taking a lock and noting that it is taken; whoever then does not know that it holds the lock
    never gives it back. This one knows its owner by itself. A thread that holds it can enter again.

    Attributes:
        release: gives back what this thread has entered once, and raises RuntimeError if it has not. It is no Python
            code, so that Ctrl-C cannot come between a `finally` and its effect, as it can with `leave`.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.release: Callable[[], None] = self._lock.release

    def enter(self, timeout_s: float) -> bool:
        """Take it; false if others held it all the time."""
        return self._lock.acquire(timeout=timeout_s)

    def leave(self) -> None:
        """Give back what this thread has entered once; nothing if it has not."""
        try:
            self.release()
        except RuntimeError:
            return
