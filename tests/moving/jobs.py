"""Stores filled with jobs of every kind, and what a worker would do to them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from penstock.engine import AddRequest, Bury, Cancel, Engine, Filter, Want, WorkerInfo
from penstock.model.job import Claim, Details, ErrorInfo, Job, JobId, NewJob, ProcessId, Unique
from penstock.model.outcome import Ending, Outcome
from penstock.model.retry import Fixed, Policy
from penstock.model.settle import settle
from penstock.model.states import State

TASKS = {"a": "thread", "b": "thread"}
QUEUES = ("mail", "slow", "default")
KEEP_MS = 9_000_000


def new_job(number: int, queue: str = "mail", **fields: Any) -> NewJob:
    """Make a job whose id tells its number."""
    task = "ab"[number % 2]
    policy = Policy(backoff=Fixed(0.0), keep_ms=KEEP_MS)
    filled: dict[str, Any] = {"envelope": f'{{"v":1,"task":"{task}","args":[{number}]}}'.encode(), "policy": policy}
    return NewJob(id=job_id(number), task=task, queue=queue, **{**filled, **fields})


def job_id(number: int) -> JobId:
    return JobId(f"00000000-0000-7000-8000-{number:012}")


def fill(engine: Engine, count: int) -> None:
    """Store jobs in three queues: ready, scheduled, tried before, buried, with keys and tags, and a few that ended."""
    for start in range(0, count, 500):
        numbers = range(start, min(start + 500, count))
        answers = engine.add([AddRequest(tuple(map(_varied, numbers)))])
        assert isinstance(answers[0], list)
    worker = Worker(engine, "filler")
    for claim in worker.claim(count // 4):
        number = int(claim.id[-6:])
        worker.end(claim, (Ending.FAILED, Ending.SUCCEEDED, Ending.SNOOZED, Ending.LOST)[number % 4])
    waiting = frozenset({State.READY, State.SCHEDULED})
    ids = [job.id for job in engine.find(Filter(limit=max(count // 10, 1), states=waiting)).jobs]
    engine.alter(ids[::2], Bury("to look at"))
    engine.alter(ids[1::6], Cancel())


def _varied(number: int) -> NewJob:
    details = Details(
        tags=("red",) if number % 3 else (),
        unique=Unique(f"u-{number}", until=("ended", "started", "window")[number % 3], window_ms=KEEP_MS)
        if number % 5 == 0
        else None,
        idempotency_key=f"i-{number}" if number % 7 == 0 else None,
    )
    return new_job(
        number,
        QUEUES[number % 3],
        priority=number % 4,
        delay_ms=KEEP_MS if number % 6 == 5 else 0,
        expires_in_ms=KEEP_MS if number % 8 == 1 else None,
        crc=number,
        details=details,
    )


class Worker:
    """One process that claims and ends jobs by hand; `ran` counts how often each job was completed."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self._process, self._beat = engine, ProcessId(name), 0
        self.ran: Counter[JobId] = Counter()
        engine.enrol(WorkerInfo(id=f"w-{name}", lease_ms=60_000), [self._process])

    def claim(self, limit: int = 1000) -> Sequence[Claim]:
        self._beat += 1
        want = Want(tasks=TASKS, free={"thread": 1000, "process": 1000}, limit=min(limit, 1000))
        return self._engine.exchange(self._process, self._beat, (), want).claims

    def end(self, claim: Claim, ending: Ending = Ending.SUCCEEDED) -> None:
        self._beat += 1
        error = ErrorInfo(ending.value, message="odd") if ending in (Ending.FAILED, Ending.LOST) else None
        result = b'"done"' if ending is Ending.SUCCEEDED else None
        outcome = Outcome(ending=ending, error=error, result=result, after_ms=0)
        self._engine.exchange(self._process, self._beat, [settle(claim, outcome, 0.5)], None)
        self.ran[claim.id] += ending is Ending.SUCCEEDED

    def run(self) -> None:
        """Complete all that can be claimed."""
        while claims := self.claim():
            for claim in claims:
                self.end(claim)


def stored(engine: Engine, which: Filter | None = None) -> dict[JobId, Job]:
    """Give all jobs of a store by id."""
    found: dict[JobId, Job] = {}
    which = replace(which or Filter(), limit=1000)
    while True:
        page = engine.find(which)
        found |= {job.id: job for job in page.jobs}
        if page.next is None:
            return found
        which = replace(which, before=page.next)
