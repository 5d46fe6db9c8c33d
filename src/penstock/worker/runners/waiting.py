"""Claims that wait for a place in a runner, and the threads that take them."""

import queue
import threading
from collections.abc import Callable

from penstock.model.job import Claim


class Waiting:
    """The hand-over of claims to places, which is the same in every runner; a runner is built on it.

    Attributes:
        places: how many jobs run at once.
        claims: what waits, first in, first out; None lets one thread end. Putting and getting cost one call in C each.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.claims: queue.SimpleQueue[Claim | None] = queue.SimpleQueue()
        self.begun = 0

    def waits(self) -> bool:
        """Say whether a claim waits for a place."""
        return not self.claims.empty()

    def withdraw(self) -> list[Claim]:
        """Take back the claims that have not started."""
        taken: list[Claim] = []
        while True:
            try:
                claim = self.claims.get_nowait()
            except queue.Empty:
                return taken
            if claim is not None:
                taken.append(claim)

    def begin(self, serve: Callable[[], None], name: str) -> None:
        """Let one more place take claims, in a thread of its own, until it gets None."""
        self.begun += 1
        threading.Thread(target=serve, name=name, daemon=True).start()

    def close(self) -> None:
        """Let the threads that have begun end."""
        for _ in range(self.begun):
            self.claims.put(None)
