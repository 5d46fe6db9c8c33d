"""What every conformance test stands on: an engine over an empty store, a clock, and short ways to drive them."""

import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import pytest

from penstock.engine import (
    Added,
    AddRequest,
    Alteration,
    Altered,
    Answer,
    Clock,
    Engine,
    Filter,
    Tended,
    Want,
    WorkerInfo,
)
from penstock.model.errors import PenstockError
from penstock.model.job import Change, Claim, ErrorInfo, Job, JobId, NewJob, ProcessId
from penstock.model.outcome import Ending, Outcome
from penstock.model.settle import settle
from penstock.model.states import State
from penstock.testing.clock import TurnedClock

LEASE_MS = 10_000
P1, P2, P3 = ProcessId("p1"), ProcessId("p2"), ProcessId("p3")
ANY_TASK = {"t": "thread", "u": "thread", "slow": "process", "simple": "thread", "simplest": "thread"}
ERROR = ErrorInfo(kind="failed", type="builtins.ValueError", message="no such order")

_numbers = itertools.count(1)


class EngineFactory(Protocol):
    """One store, and the way to open an engine on it.

    Attributes:
        url: opens the store from another process; None if it does not outlive this one.
    """

    url: str | None

    def make(self, clock: Clock | None, *, max_ended: int = ...) -> Engine:
        """Open the store; every call gives another handle on the same one. Without a clock it reads its own."""
        ...

    def connect(self) -> Any:
        """Give a new connection of the driver to the store's database; asked of engines with `transactions` only."""
        ...

    def discard(self) -> None:
        """Remove the store, when nobody will open it again."""
        ...


class Conformance:
    """Base of the suite's classes: gives each test a trial of its own.

    Who subclasses it offers a fixture `engine_factory` that gives an `EngineFactory` over an empty store.
    """

    @pytest.fixture
    def trial(self, engine_factory: EngineFactory) -> "Trial":
        return Trial(engine_factory)


class Trial:
    """An engine under test, with process `p1` of worker `w1` enrolled for 10 s."""

    def __init__(self, factory: EngineFactory, *, max_ended: int = 100_000) -> None:
        self.clock = TurnedClock()
        self.engine = factory.make(self.clock, max_ended=max_ended)
        self.beats: dict[ProcessId, int] = {}
        self.enrol(P1)

    def enrol(self, *processes: ProcessId, worker: str = "w1", lease_ms: int = LEASE_MS) -> None:
        self.engine.enrol(WorkerInfo(id=worker, lease_ms=lease_ms), processes)
        for process in processes:
            self.beats.setdefault(process, 0)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def add(self, job: NewJob | None = None, **fields: Any) -> JobId:
        """Add one job and give the id that was answered."""
        return self.add_all(job if job is not None else new_job(**fields))[0].id

    def add_all(self, *jobs: NewJob) -> list[Added]:
        """Add jobs in one request; raises what the request was refused with."""
        answer = self.try_add(*jobs)
        if isinstance(answer, PenstockError):
            raise answer
        return answer

    def try_add(self, *jobs: NewJob) -> list[Added] | PenstockError:
        [answer] = self.engine.add([AddRequest(jobs)])
        return answer

    def job(self, id: JobId) -> Job:
        [job] = self.engine.get([id])
        assert job is not None, f"job {id} is not stored"
        return job

    def state(self, id: JobId) -> State | None:
        [job] = self.engine.get([id])
        return None if job is None else job.state

    def counts(self) -> dict[tuple[str, str, State], int]:
        rows = self.engine.counts()
        return {(row.queue, row.task, state): n for row in rows for state, n in row.states.items()}

    def recount(self) -> dict[tuple[str, str, State], int]:
        """Count the jobs one by one, which `counts` must agree with."""
        found: dict[tuple[str, str, State], int] = {}
        for job in self.engine.find(Filter(limit=1000)).jobs:
            key = (job.queue, job.task, job.state)
            found[key] = found.get(key, 0) + 1
        return found

    # -- work ---------------------------------------------------------------------------------------------------------

    def exchange(self, *changes: Change, process: ProcessId = P1, want: Want | None = None) -> Answer:
        """Do the next exchange of a process."""
        answer = self.engine.exchange(process, self.beats[process] + 1, changes, want)
        self.beats[process] += 1
        return answer

    def claim(self, process: ProcessId = P1, **fields: Any) -> tuple[Claim, ...]:
        """Claim all that a process can get."""
        return self.exchange(process=process, want=want(**fields)).claims

    def claim_one(self, process: ProcessId = P1) -> Claim:
        """Claim the one job that comes next."""
        [claim] = self.claim(process, limit=1)
        return claim

    def run(self, process: ProcessId = P1, **fields: Any) -> Claim:
        """Add a job and claim it, as the one job that comes next."""
        id = self.add(**fields)
        claim = self.claim_one(process)
        assert claim.id == id
        return claim

    def repeat(self, process: ProcessId = P1) -> Answer:
        """Repeat the last exchange of a process, as after a lost reply."""
        return self.engine.exchange(process, self.beats[process], (), None)

    def end(self, claim: Claim, ending: Ending = Ending.SUCCEEDED, *, process: ProcessId = P1, **fields: Any) -> Answer:
        """Settle a claim with an outcome and deliver it."""
        return self.exchange(change(claim, ending, **fields), process=process)

    def alter(self, id: JobId, alteration: Alteration) -> Altered:
        [altered] = self.engine.alter([id], alteration)
        return altered

    def tend(self, limit: int = 1000) -> Tended:
        return self.engine.tend(P1, limit)

    def keep_alive(self, *processes: ProcessId) -> None:
        self.engine.renew(P1, processes)


def new_job(id: str | None = None, task: str = "t", args: str = "[1]", **fields: Any) -> NewJob:
    """Make a job; without an id it gets one above all that were made before."""
    envelope = f'{{"v":1,"task":"{task}","args":{args}}}'.encode()
    return NewJob(id=JobId(id or f"job-{next(_numbers):06}"), task=task, envelope=envelope, **fields)


def want(
    *,
    tasks: dict[str, str] | None = None,
    queues: Sequence[Sequence[str]] | None = None,
    limit: int = 1000,
    free: dict[str, int] | None = None,
) -> Want:
    """Make a want; every runner is free for 1,000 jobs unless `free` says otherwise."""
    return Want(
        tasks=ANY_TASK if tasks is None else tasks,
        free={"thread": 1000, "process": 1000} if free is None else free,
        queues=None if queues is None else tuple(tuple(group) for group in queues),
        limit=limit,
    )


def change(claim: Claim, ending: Ending = Ending.SUCCEEDED, *, luck: float = 1.0, **fields: Any) -> Change:
    """Settle a claim; failures get an error and successes a result unless one is given."""
    if ending is Ending.SUCCEEDED:
        fields.setdefault("result", b'"done"')
    elif ending not in (Ending.SNOOZED, Ending.RELEASED, Ending.CANCELLED):
        fields.setdefault("error", ERROR)
    return settle(claim, Outcome(ending=ending, **fields), luck)
