"""Which waiting jobs have a worker, and which have none."""

from collections.abc import Sequence

from penstock.engine import Counts, WorkerInfo, WorkerView
from penstock.model.states import State


def live_workers(workers: Sequence[WorkerView]) -> list[WorkerInfo]:
    return [worker.info for worker in workers if worker.lease_left_ms > 0]


def unserved(workers: Sequence[WorkerView], counts: Sequence[Counts]) -> list[Counts]:
    """Give the queues and tasks with ready jobs that no live worker would take, those with the most jobs first."""
    live = live_workers(workers)
    waiting = [one for one in counts if one.states.get(State.READY) and not _is_served(one, live)]
    return sorted(waiting, key=lambda one: -one.states[State.READY])


def _is_served(one: Counts, live: list[WorkerInfo]) -> bool:
    return any(one.task in info.tasks and (info.queues is None or one.queue in info.queues) for info in live)
