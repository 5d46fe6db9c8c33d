"""Which workers live, and which waiting jobs have none."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from penstock.engine import Counts, QueueInfo, WorkerInfo, WorkerView
from penstock.engines.clock import SystemClock
from penstock.model.durations import spell
from penstock.model.states import State

__all__ = ["SILENT_AFTER_S", "birth_of", "is_gone", "live_workers", "silence", "silent", "unserved"]

#: How long a ready job may wait for a worker that runs nothing before that is a fault. An idle worker that reaches the
#: store takes it at once, or at its next poll, 5 s later at most.
SILENT_AFTER_S = 30.0


def birth_of(pid: int) -> str:
    """Tell the process that has this pid now from every other that ever had it; empty if there is none.

    That is the namespace of the pid, because containers of one machine count for themselves, and the time at which the
    process started, in ticks since the machine did. Also empty where `/proc` does not tell.
    Source: proc(5), /proc/pid/stat, fields 3 and 22.
    """
    try:
        own, namespace = os.readlink("/proc/self"), os.readlink("/proc/self/ns/pid")
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    if own != str(os.getpid()) or fields[0] in "ZX":
        return ""
    return f"{namespace} {fields[19]}"


def is_gone(info: WorkerInfo) -> bool:
    """Say whether a worker has certainly ended: it ran on this machine, in sight of here, and its pid is not its own.

    Its lease runs on all the same, and until it lapses nobody takes its jobs over.
    """
    if not info.birth or info.boot != SystemClock().boot():
        return False
    if birth_of(os.getpid()).partition(" ")[0] != info.birth.partition(" ")[0]:
        return False
    found = birth_of(info.pid)
    return found != info.birth if found else not _is_hidden(info.pid)


def _is_hidden(pid: int) -> bool:
    """Say whether there is a process of another user, which `/proc` may not show (proc(5), hidepid)."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return False


def live_workers(workers: Sequence[WorkerView]) -> list[WorkerInfo]:
    """Leave out the workers whose lease has lapsed, or that have certainly ended."""
    return [worker.info for worker in workers if worker.lease_left_ms > 0 and not is_gone(worker.info)]


def unserved(workers: Sequence[WorkerView], counts: Sequence[Counts]) -> list[Counts]:
    """Give the queues and tasks with ready jobs that no live worker would take, those with the most jobs first."""
    live = live_workers(workers)
    waiting = [one for one in counts if one.states.get(State.READY) and not _is_served(one, live)]
    return sorted(waiting, key=lambda one: -one.states[State.READY])


def silent(
    workers: Sequence[WorkerView],
    counts: Sequence[Counts],
    queues: Sequence[QueueInfo],
    after_s: float,
    held_up: Collection[str] = (),
) -> list[tuple[WorkerInfo, QueueInfo]]:
    """Give live workers that run nothing although a job of a queue they serve has been ready for longer than that.

    A queue in which other ready jobs have no worker, or are of a task that an open breaker holds up, tells nothing: the
    one that waits longest may be one of those.

    Args:
        held_up: names of tasks that wait for a dependency.
    """
    served_in_part = {one.queue for one in unserved(workers, counts)}
    served_in_part |= {one.queue for one in counts if one.task in held_up and one.states.get(State.READY)}
    waiting = [
        queue
        for queue in queues
        if not queue.paused and (queue.oldest_ms or 0) > after_s * 1000 and queue.name not in served_in_part
    ]
    idle = [view for view in workers if view.running == 0 and not view.drain]
    return [(info, queue) for info in live_workers(idle) for queue in waiting if _serves(info, queue, counts)]


def silence(info: WorkerInfo, queue: QueueInfo) -> str:
    """Say what `silent` found."""
    waits = spell((queue.oldest_ms or 0) / 1000)
    return f"pid {info.pid} on {info.host} runs nothing, but a job in queue {queue.name} is ready for {waits}"


def _serves(info: WorkerInfo, queue: QueueInfo, counts: Sequence[Counts]) -> bool:
    return any(one.queue == queue.name and one.states.get(State.READY) and _is_served(one, [info]) for one in counts)


def _is_served(one: Counts, live: list[WorkerInfo]) -> bool:
    return any(one.task in info.tasks and (info.queues is None or one.queue in info.queues) for info in live)
