"""Latency: from the call that enqueues on an idle system to the first line of the job, and from a cold start."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from itertools import count as numbers
from typing import Any

from benchmarks import bare
from benchmarks.bench import Bench
from benchmarks.counting import wait_for
from benchmarks.figures import Figure, percentile
from benchmarks.rival import Rival
from benchmarks.stores import Store, exchanges, jobs_of
from benchmarks.tasks import noop, stamp
from benchmarks.workers import Tree, consumer, worker
from penstock.engine import AddRequest

__all__ = ["measure"]

_WARM_UP = 5
_PAUSE_S = (0.05, 0.15)
_HISTORY = 10_000
_RUN = numbers()
Send = Callable[[], Callable[[], int]]


def measure(bench: Bench) -> Iterator[Figure]:
    """Give the latency of idle workers, what its calls take alone, and the time from a start to the first result."""
    yield from _idle(bench)
    yield from _calls(bench)
    yield from _cold(bench)


def _idle(bench: Bench) -> Iterator[Figure]:
    rounds, portion = bench.pick(3, 1), bench.size(100, 40)
    bench.say(f"latency of idle workers: {rounds * portion} jobs each, one every 50 to 150 ms")
    store, rivals = Store(bench.place, "latency"), _rivals(bench, "latency")
    store.complete(noop, _HISTORY)  # a log that still grows costs twice as much to sync as one written over
    store.use()
    samples: dict[str, list[float]] = {"penstock": [], **{f"huey.{name}": [] for name in rivals}}
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(worker(store.url))
        others = {name: stack.enter_context(consumer(rival.environment)) for name, rival in rivals.items()}
        for _ in range(rounds):
            samples["penstock"] += _latencies_ms(_send_penstock, portion, own)
            for name, rival in rivals.items():
                samples[f"huey.{name}"] += _latencies_ms(_sender(rival), portion, others[name])
    yield _percentile("penstock", "penstock", samples["penstock"], 0.5)
    yield _percentile("penstock", "penstock", samples["penstock"], 0.99)
    for name, rival in rivals.items():
        title = "huey (default)" if name == "default" else "huey (fsync=True)"
        yield _percentile(f"huey.{name}", title, samples[f"huey.{name}"], 0.5)
        yield _percentile(f"huey.{name}", title, samples[f"huey.{name}"], 0.99)
        rival.close()
    store.remove()


def _calls(bench: Bench) -> Iterator[Figure]:
    """Time the two calls that a job waits for on an idle system, and the store's bare client, after the same pauses."""
    rounds = bench.size(100, 20)
    bench.say(f"the calls of an idle system: {rounds} of each, after 50 to 150 ms")
    store, samples = Store(bench.place, "calls"), dict[str, list[float]]()
    with bare.opened(bench, next(jobs_of(noop, 1))[0].envelope) as runs:
        claiming = exchanges(store.engine, noop, 1)
        for _ in range(rounds):
            next(claiming)  # ends the last job, finds none
            request = AddRequest(next(jobs_of(noop, 1)))
            calls: dict[str, Callable[[], object]] = {
                "bare": lambda: runs["bare"](1),
                "add": lambda request=request: store.engine.add([request]),
                "claim": lambda: next(claiming),
            }
            for name, call in calls.items():
                time.sleep(random.uniform(*_PAUSE_S))
                began = time.perf_counter()
                call()
                samples.setdefault(name, []).append((time.perf_counter() - began) * 1e3)
        claiming.close()
    store.remove()
    titles = {"bare": "the store's bare client stores a body", "add": "add of one job", "claim": "claim of one job"}
    for name, title in titles.items():
        yield Figure.of(f"latency.call.{name}", f"{title}, after a pause", "ms", samples[name])


def _percentile(key: str, title: str, samples: list[float], share: float) -> Figure:
    name = f"p{round(share * 100)}"
    return Figure.of(
        f"latency.{key}.{name}",
        f"{title}, enqueue to start, {name}",
        "ms",
        samples,
        value=percentile(samples, share),
        note=f"{len(samples)} jobs on an idle system",
    )


def _latencies_ms(send: Send, count: int, tree: Tree) -> list[float]:
    """Enqueue one job after the other with random pauses, then read when each had started.

    The first ones are waited for and not counted: the worker may still be starting, and huey polls ever more slowly
    while others have their turn.
    """
    for _ in range(_WARM_UP):
        send()()
    sent: list[tuple[int, Callable[[], int]]] = []
    for _ in range(count):
        time.sleep(random.uniform(*_PAUSE_S))
        sent.append((time.monotonic_ns(), send()))
    tree.check()
    return [(read() - sent_ns) / 1e6 for sent_ns, read in sent]


def _send_penstock() -> Callable[[], int]:
    job = stamp.enqueue()
    return lambda: job.result(timeout=10)


def _sender(rival: Rival) -> Send:
    def send() -> Callable[[], int]:
        result: Any = rival.stamp()
        return lambda: int(result.get(blocking=True, timeout=10))

    return send


def _rivals(bench: Bench, name: str) -> dict[str, Rival]:
    if bench.store != "sqlite":
        return {}
    return {key: Rival(bench.file(f"{name}-{key}"), fsync) for key, fsync in (("default", None), ("fsync", True))}


def _cold(bench: Bench) -> Iterator[Figure]:
    rounds = bench.pick(10, 3)
    bench.say(f"worker start to first result: {rounds} starts")
    own = [_start_penstock(bench) for _ in range(rounds)]
    yield Figure.of("latency.start", "penstock worker, start to first result", "s", own)
    if bench.store == "sqlite":
        others = [_start_huey(bench) for _ in range(rounds)]
        yield Figure.of("latency.start.huey", "huey consumer, start to first result", "s", others)


def _start_penstock(bench: Bench) -> float:
    store = Store(bench.place, f"start-{next(_RUN)}")
    store.fill(noop, 1)
    began = time.monotonic()
    with worker(store.url) as tree:
        took = _first_result(lambda: store.completed() > 0, tree) - began
    store.remove()
    return took


def _start_huey(bench: Bench) -> float:
    rival = Rival(bench.file(f"start-{next(_RUN)}"), None)
    rival.noop(1)
    began = time.monotonic()
    with consumer(rival.environment) as tree:
        took = _first_result(lambda: rival.completed() > 0, tree) - began
    rival.close()
    return took


def _first_result(is_there: Callable[[], bool], tree: Tree) -> float:
    return wait_for(is_there, "the first result", tree=tree, tick_s=0.002)
