"""What one call of each verb takes at several backlogs, the store otherwise idle and known to the caller."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.stores import Store, exchanges, jobs_of
from benchmarks.tasks import noop
from penstock.engine import AddRequest, Cancel, Engine, Filter, WorkerInfo
from penstock.model.job import JobId, ProcessId
from penstock.model.states import State

__all__ = ["TITLES", "measure"]

_SMALLEST = 1000
_MANY = 100
_PAGE = 50
_TENDER = ProcessId("tender")
#: A search by what no index knows reads every job.
_SCANS = frozenset({"find_tag"})
_SCANNED = 3

#: The verbs in the order in which they are shown, and how many jobs share the time of one call.
TITLES: dict[str, tuple[str, int]] = {
    "add": ("add one job", 1),
    "add_many": (f"add {_MANY} jobs, for each", _MANY),
    "exchange": ("end one job and claim the next", 1),
    "exchange_many": (f"end {_MANY} jobs and claim the next, for each", _MANY),
    "get": ("get one job", 1),
    "find": (f"find the newest {_PAGE} ready jobs", 1),
    "find_tag": ("look for a tag that no job has", 1),
    "counts": ("counts", 1),
    "cancel": ("cancel one waiting job", 1),
    "tend": ("tend, nothing due", 1),
}


def measure(bench: Bench) -> Iterator[Figure]:
    """Give the microseconds of a call, or of a job where a call takes many."""
    backlogs = {_SMALLEST, bench.size(100_000, 20_000, step=1000), bench.size(1_000_000, 50_000, step=1000)}
    for backlog in sorted(backlogs):
        bench.say(f"verbs at a backlog of {backlog:,}")
        store = Store(bench.place, f"verbs-{backlog}")
        store.fill(noop, backlog)
        for verb, samples in _times_us(store.engine, bench.size(300, 40)).items():
            title, _ = TITLES[verb]
            yield Figure.of(f"verbs.{verb}.{backlog}", f"{title}; {backlog:,} waiting", "µs", samples)
        store.remove()


def _times_us(engine: Engine, rounds: int) -> dict[str, list[float]]:
    """Call each verb once a round, so that the backlog stays what it is."""
    samples: dict[str, list[float]] = {verb: [] for verb in TITLES}
    engine.enrol(WorkerInfo(id="tender"), [_TENDER])
    with closing(_Calls(engine)) as calls:
        for number in range(rounds):
            for verb, (_, jobs) in TITLES.items():
                if verb in _SCANS and number >= _SCANNED:
                    continue
                call: Callable[[], object] = getattr(calls, verb)
                began = time.perf_counter()
                call()
                samples[verb].append((time.perf_counter() - began) * 1e6 / jobs)
    return samples


class _Calls:
    """One call of each verb; what is not to be timed is prepared by the call before it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._single = exchanges(engine, noop, 1, process=ProcessId("single"))
        self._several = exchanges(engine, noop, _MANY, process=ProcessId("several"))
        for each in (self._single, self._several):
            next(each)
        self._added: JobId = JobId("")
        self._next = [next(jobs_of(noop, 1)), next(jobs_of(noop, _MANY))]

    def add(self) -> None:
        self._engine.add([AddRequest(self._next[0])])
        self._added = self._next[0][0].id

    def add_many(self) -> None:
        self._engine.add([AddRequest(self._next[1])])

    def exchange(self) -> None:
        next(self._single)

    def exchange_many(self) -> None:
        next(self._several)

    def get(self) -> None:
        self._engine.get([self._added])

    def find(self) -> None:
        self._engine.find(Filter(states=frozenset({State.READY}), limit=_PAGE))

    def find_tag(self) -> None:
        self._engine.find(Filter(tag="none", limit=_PAGE))

    def counts(self) -> None:
        self._engine.counts()

    def cancel(self) -> None:
        self._engine.alter([self._added], Cancel())

    def tend(self) -> None:
        self._engine.tend(_TENDER)
        self._next = [next(jobs_of(noop, 1)), next(jobs_of(noop, _MANY))]

    def close(self) -> None:
        self._single.close()
        self._several.close()
