"""The switches of one queue."""

import sys

from penstock.engine import QueueInfo
from penstock.handle import Store
from penstock.model.errors import TaskInvalid

__all__ = ["Queue"]


class Queue:
    """The switches of one queue; made by `Penstock.queue`."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self.name = store, name

    def pause(self) -> QueueInfo:
        """Let no more of its jobs start; new ones are still accepted."""
        return self._store.engine.alter_queue(self.name, paused=True)

    def resume(self) -> QueueInfo:
        """Let its jobs start again."""
        return self._store.engine.alter_queue(self.name, paused=False)

    def limit(self, *, max_jobs: int | None) -> QueueInfo:
        """Bound its unfinished jobs: beyond, enqueueing raises `QueueFull`. None lifts the bound."""
        if max_jobs is None:
            return self._store.engine.alter_queue(self.name, unlimited=True)
        if type(max_jobs) is not int or not 0 <= max_jobs <= sys.maxsize:
            raise TaskInvalid(
                f"max_jobs={max_jobs!r} is no such count; give a whole number from 0, in 64 bits. None lifts the bound."
            )
        return self._store.engine.alter_queue(self.name, max_jobs=max_jobs)

    def info(self) -> QueueInfo:
        """Read its switches and how it moves."""
        known = {queue.name: queue for queue in self._store.engine.queues()}
        return known.get(self.name) or QueueInfo(name=self.name)

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"
