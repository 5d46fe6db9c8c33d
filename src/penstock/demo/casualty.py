"""One worker process killed on purpose, and what became of the jobs that it held."""

import os
import signal
from collections.abc import Iterable, Mapping

from msgspec import Struct

from penstock.client import Penstock
from penstock.demo.hired import PROCESSES, HiredWorker
from penstock.model.job import Job, JobId, ProcessId
from penstock.model.states import State

__all__ = ["Casualty", "Toll", "kill_a_process", "toll"]

_WITH_THE_SUPERVISOR = PROCESSES + 1


class Casualty(Struct, frozen=True):
    """A killed process, and the store as it was at that moment.

    Attributes:
        alive: the processes that had a lease; the store knows no pids.
        held: the jobs that each of them held.
    """

    pid: int
    alive: frozenset[ProcessId]
    held: Mapping[ProcessId, frozenset[JobId]]

    def name(self, app: Penstock) -> ProcessId | None:
        """Find out which one it was; None while its death has not been reported to the store."""
        return next(iter(self.alive - _alive(app)), None)


class Toll(Struct, frozen=True):
    """What a killed process held, and how its jobs fared.

    Attributes:
        begun: jobs whose code had begun, so that they were charged a crash; the others were only claimed.
        ended: jobs that have ended since.
    """

    pid: int
    held: int
    begun: int
    ended: int


def kill_a_process(worker: HiredWorker, app: Penstock) -> Casualty | None:
    """Kill a process of the worker with SIGKILL; None if not all of them are at work yet."""
    alive, pids = _alive(app), worker.processes()
    if len(alive) < _WITH_THE_SUPERVISOR or len(pids) < PROCESSES:
        return None
    # Stopped first, so that what it holds cannot change between looking and killing.
    os.kill(pids[0], signal.SIGSTOP)
    try:
        held = _held(app)
    finally:
        os.kill(pids[0], signal.SIGKILL)
    return Casualty(pids[0], alive, held)


def toll(casualty: Casualty, process: ProcessId, jobs: Iterable[Job]) -> Toll:
    """Read from the jobs, after their end, what the death of that process did to them."""
    held = casualty.held.get(process, frozenset())
    its_own = [job for job in jobs if job.id in held]
    return Toll(
        pid=casualty.pid,
        held=len(held),
        begun=sum(job.counters.crashes > 0 for job in its_own),
        ended=sum(job.state.is_final for job in its_own),
    )


def _alive(app: Penstock) -> frozenset[ProcessId]:
    return frozenset(process for worker in app.workers() for process in worker.processes)


def _held(app: Penstock) -> dict[ProcessId, frozenset[JobId]]:
    running = app.find(state=State.RUNNING, limit=10_000)
    processes = {job.process for job in running if job.process is not None}
    return {process: frozenset(job.id for job in running if job.process == process) for process in processes}
