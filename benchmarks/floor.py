"""The engine alone: adding and exchanging in one thread, without a worker. What a worker can reach at best."""

import time
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.stores import Store, complete, jobs_of
from benchmarks.tasks import noop
from penstock.engine import AddRequest

__all__ = ["measure"]

_BATCHES = (1, 10, 100, 500, 1000)


def measure(bench: Bench) -> Iterator[Figure]:
    """Give the rates of `add` and `exchange` by batch."""
    bench.say("engine floor: add and exchange without a worker")
    rounds = bench.pick(3, 2)
    added: list[float] = []
    exchanged: dict[int, list[float]] = {batch: [] for batch in _BATCHES}
    for number in range(rounds):
        for batch in _BATCHES:
            count = bench.size(2000 + 60 * batch, 200 + 20 * batch, step=batch)
            store = Store(bench.place, f"floor-{number}-{batch}")
            added.append(_add(store, count))
            exchanged[batch].append(_exchange(store, count, batch))
            store.remove()
    yield Figure.of("floor.add", "add, 1,000 jobs a call", "jobs/s", added[len(_BATCHES) - 1 :: len(_BATCHES)])
    for batch, rates in exchanged.items():
        yield Figure.of(f"floor.exchange.{batch}", f"exchange, {batch:,} ended and claimed a call", "jobs/s", rates)


def _add(store: Store, count: int) -> float:
    requests = [[AddRequest(jobs)] for jobs in jobs_of(noop, count)]
    began = time.perf_counter()
    for request in requests:
        store.engine.add(request)
    return count / (time.perf_counter() - began)


def _exchange(store: Store, count: int, batch: int) -> float:
    began = time.perf_counter()
    for _ in complete(store.engine, noop, count, batch):
        continue
    return count / (time.perf_counter() - began)
