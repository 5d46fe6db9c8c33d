"""The switches of queues during a move: what the source holds back, what the target takes over.

A queue of the source that was seen by a move has a companion there, named `moving-out.` and its name, which is paused
and takes no jobs. It says whether the queue had been paused before (then it has the bound 0), so that a move that was
killed knows when it is run again.
"""

import hashlib

from penstock.engine import Engine, QueueInfo

__all__ = ["INBOUND", "hold", "is_own", "let_go", "staging_name"]

INBOUND, OUTBOUND = "moving-in.", "moving-out."
_LONGEST_NAME = 128


def staging_name(epoch: str) -> str:
    """Name the queue of a target in which the jobs of the source with this epoch stand until they are released."""
    return INBOUND + hashlib.sha256(epoch.encode()).hexdigest()[:16]


def is_own(name: str) -> bool:
    """Say whether a queue exists for a move alone."""
    return name.startswith((INBOUND, OUTBOUND))


def hold(source: Engine, target: Engine) -> tuple[str, ...]:
    """Pause every queue of the source, and give its switches to the target once; answers the names of all.

    What is set in the target stays: a queue that is paused there, and a bound. The order matters: a kill after any step
    leaves what the next run completes.
    """
    here, there = _by_name(source), _by_name(target)
    names = tuple(name for name in here if not is_own(name))
    for name in names:
        queue = here[name]
        if _companion(name) not in here:
            _carry(target, queue, there.get(name))
            source.alter_queue(_companion(name), paused=True, max_jobs=0 if queue.paused else None)
        if not queue.paused:
            source.alter_queue(name, paused=True)
    return names


def let_go(source: Engine) -> tuple[str, ...]:
    """Set every queue of the source as it was before the move; answers the names of those that go on."""
    queues = _by_name(source)
    resumed = []
    for name in queues:
        companion = queues.get(_companion(name))
        if companion is not None and companion.max_jobs is None and not is_own(name):
            source.alter_queue(name, paused=False)
            resumed.append(name)
    for name in queues:
        if name.startswith(OUTBOUND):
            source.alter_queue(name, paused=False, unlimited=True)
    return tuple(resumed)


def _by_name(engine: Engine) -> dict[str, QueueInfo]:
    return {queue.name: queue for queue in engine.queues()}


def _carry(target: Engine, queue: QueueInfo, there: QueueInfo | None) -> None:
    max_jobs = queue.max_jobs if there is None or there.max_jobs is None else None
    if queue.paused or max_jobs is not None:
        target.alter_queue(queue.name, paused=queue.paused or None, max_jobs=max_jobs)


def _companion(name: str) -> str:
    companion = OUTBOUND + name
    return companion if len(companion) <= _LONGEST_NAME else OUTBOUND + hashlib.sha256(name.encode()).hexdigest()
