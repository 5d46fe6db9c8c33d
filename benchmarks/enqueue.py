"""Enqueueing: each call returns after the commit that holds its job, beside a bare loop of INSERT and commit."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.bare import Bare
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Goal, at_least, interleaved, ratios
from benchmarks.rival import Rival
from benchmarks.stores import Store
from benchmarks.tasks import Order, receive

__all__ = ["measure"]

_ORDER = Order("ada@example.org", 4200)
_ONE_BY_ONE = {
    "bare": "bare INSERT + commit loop",
    "bare.jobs": "bare loop over a queue's tables",
    "one": "penstock",
    "huey.default": "huey (default)",
    "huey.fsync": "huey (fsync=True)",
}
_AT_ONCE: dict[str, tuple[str, Goal | None]] = {
    "threads.8": ("8 threads", None),
    "threads.64": ("64 threads", at_least(15_000)),
    "coroutines.100": ("100 coroutines", None),
    "coroutines.1000": ("1,000 coroutines", at_least(40_000)),
    "many": ("enqueue_many", at_least(60_000)),
}


def measure(bench: Bench) -> Iterator[Figure]:
    """Give figures of enqueueing from one thread, from many, from coroutines, and in bulk."""
    store = Store(bench.file("enqueue"))
    store.use()
    yield from _one_by_one(bench)
    yield from _at_once(bench)
    store.remove()


def _one_by_one(bench: Bench) -> Iterator[Figure]:
    bench.say("enqueue one by one: bare loop, penstock, huey")
    count, bare = bench.size(4000, 600), Bare(bench.file("bare"))
    rivals = {name: Rival(bench.file(f"enqueue-{name}"), fsync) for name, fsync in (("default", None), ("fsync", True))}
    bench.facts["huey_synchronous"] = {name: rival.synchronous() for name, rival in rivals.items()}
    runs: dict[str, Callable[[], object]] = {
        "bare": partial(bare.insert, count),
        "bare.jobs": partial(bare.insert_jobs, count),
        "one": partial(_repeat, partial(receive.enqueue, 7, _ORDER), count),
        "huey.default": partial(_repeat, partial(rivals["default"].receive, 7, _ORDER), count),
        "huey.fsync": partial(_repeat, partial(rivals["fsync"].receive, 7, _ORDER), count),
    }
    contenders = {name: partial(_rate, count, run) for name, run in runs.items()}
    interleaved(contenders, 1)  # not counted: a log that still grows costs twice as much to sync as one written over
    samples = interleaved(contenders, bench.pick(7, 3))
    for name, title in _ONE_BY_ONE.items():
        note = "" if name.startswith("bare") else "one int and one dataclass as arguments"
        yield Figure.of(f"enqueue.{name}", f"{title}, one thread", "jobs/s", samples[name], note=note)
    for name, title in _ONE_BY_ONE.items():
        if name != "one":
            share, goal = ratios(samples["one"], samples[name]), at_least(0.55) if name == "bare" else None
            yield Figure.of(f"enqueue.one_to_{name}", f"penstock to {title}", "ratio", share, goal=goal)
    bare.close()
    for rival in rivals.values():
        rival.close()


def _at_once(bench: Bench) -> Iterator[Figure]:
    bench.say("enqueue at once: threads, coroutines, enqueue_many")
    in_threads, in_coroutines, in_bulk = bench.size(8000, 1600), bench.size(20_000, 4000), bench.size(20_000, 4000)
    contenders: dict[str, Callable[[], float]] = {
        "threads.8": lambda: _rate(in_threads, lambda: _in_threads(8, in_threads)),
        "threads.64": lambda: _rate(in_threads, lambda: _in_threads(64, in_threads)),
        "coroutines.100": lambda: _rate(in_coroutines, lambda: asyncio.run(_in_coroutines(100, in_coroutines))),
        "coroutines.1000": lambda: _rate(in_coroutines, lambda: asyncio.run(_in_coroutines(1000, in_coroutines))),
        "many": lambda: _rate(in_bulk, lambda: receive.enqueue_many((7, _ORDER) for _ in range(in_bulk))),
    }
    samples = interleaved(contenders, bench.pick(5, 3))
    for name, (title, goal) in _AT_ONCE.items():
        yield Figure.of(f"enqueue.{name}", f"penstock, {title}", "jobs/s", samples[name], goal=goal)


def _rate(count: int, run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return count / (time.perf_counter() - began)


def _repeat(call: Callable[[], object], count: int) -> None:
    for _ in range(count):
        call()


def _in_threads(threads: int, count: int) -> None:
    share = count // threads
    call = partial(receive.enqueue, 7, _ORDER)
    started = [threading.Thread(target=_repeat, args=(call, share)) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


async def _in_coroutines(coroutines: int, count: int) -> None:
    async def enqueue_share() -> None:
        for _ in range(count // coroutines):
            await receive.aenqueue(7, _ORDER)

    await asyncio.gather(*(enqueue_share() for _ in range(coroutines)))
