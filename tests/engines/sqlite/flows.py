"""What is done to a store while its disk fails, each from a state of its own; run in forked children."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from penstock.engine import WorkerInfo
from penstock.engines.sqlite import SqliteEngine
from penstock.model.job import ProcessId
from penstock.testing import TurnedClock
from penstock.testing.conformance.trial import change, new_job, want
from tests.engines.sqlite.jobs import P1, add, all_jobs, enrol

P2, TENDER = ProcessId("p2"), ProcessId("tender")
_LARGE = f'["{"x" * 3000}"]'

#: A call that may be repeated as it is, after it failed or after it was done.
Call = Callable[[], object]


class Flow(NamedTuple):
    """A state and a call.

    Attributes:
        prepare: brings a store that is open into the state, without faults; gives the call.
        is_new: whether the call is the first on a store that is not there.
    """

    prepare: Callable[[SqliteEngine, TurnedClock], Call]
    is_new: bool = False


def _add_one(engine: SqliteEngine, _: TurnedClock) -> Call:
    job = new_job("a new job")
    return lambda: add(engine, job)


def _add_many(engine: SqliteEngine, _: TurnedClock) -> Call:
    """On a store that is open already."""
    add(engine, new_job("an old job"))
    jobs = [new_job(f"new job {number}", args=_LARGE, queue=f"queue-{number % 2}") for number in range(6)]
    return lambda: add(engine, *jobs)


def _exchange(engine: SqliteEngine, _: TurnedClock) -> Call:
    """Deliver what has run, and claim what waits; the same beat is repeated until it is answered."""
    enrol(engine)
    engine.tend(P1)  # builds the ballast
    claims = engine.exchange(P1, 1, (), want(limit=2)).claims
    changes = [change(claim) for claim in claims]
    return lambda: engine.exchange(P1, 2, changes, want(limit=2))


def _tend(engine: SqliteEngine, clock: TurnedClock) -> Call:
    """A job is due, one has expired, and one is held under a lease that has lapsed; its tender is new."""
    add(engine, new_job("due", delay_ms=1000), new_job("expiring", expires_in_ms=1000))
    enrol(engine, "p2", lease_ms=1000)
    engine.exchange(P2, 1, (), want(limit=1))
    clock.turn(5000)
    engine.enrol(WorkerInfo(id="worker of tender", lease_ms=60_000), [TENDER])
    return lambda: engine.tend(TENDER)


FLOWS = {
    "make": Flow(_add_one, is_new=True),
    "add one": Flow(_add_one),
    "add many": Flow(_add_many),
    "exchange": Flow(_exchange),
    "tend": Flow(_tend),
}


class Shown(NamedTuple):
    """What a process sees that opens a store: each job, its state and how often it was claimed; and what is counted."""

    jobs: list[tuple[str, str, int]]
    counts: Counter[str]


def make_template(path: Path) -> None:
    """Make a store in which four jobs are ready; leases would not outlive its being copied."""
    engine = SqliteEngine(path, clock=TurnedClock())
    add(engine, *(new_job(f"ready {number}") for number in range(4)))
    engine.close()


def shown(path: Path) -> Shown:
    engine = SqliteEngine(path, clock=TurnedClock())
    jobs = sorted((job.id, job.state.value, job.claim_number) for job in all_jobs(engine))
    counts: Counter[str] = Counter()
    for row in engine.counts():
        counts.update({state.value: number for state, number in row.states.items()})
    engine.close()
    return Shown(jobs, counts)
