"""Enqueueing: each call returns after the commit that holds its job, beside a bare loop of INSERT and commit."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks import bare
from benchmarks.bench import Bench
from benchmarks.figures import Figure, interleaved, ratios
from benchmarks.rival import Rival
from benchmarks.stores import Store
from benchmarks.tasks import Order, receive

__all__ = ["measure"]

_ORDER = Order("ada@example.org", 4200)
_BARE = {
    "sqlite": {"bare": "bare INSERT + commit loop", "bare.jobs": "bare loop over a queue's tables"},
    "redis": {"bare": "bare LPUSH by redis-py"},
    "postgresql": {"bare": "bare INSERT by psycopg"},
}
_HUEY = {"huey.default": "huey (default)", "huey.fsync": "huey (fsync=True)"}
_AT_ONCE = {
    "threads.8": "8 threads",
    "threads.64": "64 threads",
    "coroutines.100": "100 coroutines",
    "coroutines.1000": "1,000 coroutines",
    "many": "enqueue_many",
}


def measure(bench: Bench) -> Iterator[Figure]:
    """Give figures of enqueueing from one thread, from many, from coroutines, and in bulk."""
    store = Store(bench.place, "enqueue")
    store.use()
    yield from _one_by_one(bench)
    yield from _at_once(bench)
    store.remove()


def _one_by_one(bench: Bench) -> Iterator[Figure]:
    count, titles = bench.size(4000, 600), {**_BARE[bench.store], "one": "penstock"}
    with contextlib.ExitStack() as stack:
        runs = stack.enter_context(bare.opened(bench, _body()))
        runs["one"] = lambda count: _repeat(partial(receive.enqueue, 7, _ORDER), count)
        if bench.store == "sqlite":
            runs |= stack.enter_context(_rivals(bench))
            titles |= _HUEY
        bench.say(f"enqueue one by one: {', '.join(titles.values())}")
        contenders = {name: partial(_rate, count, partial(runs[name], count)) for name in titles}
        # Not counted: a log that still grows costs twice as much to sync as one written over.
        interleaved(contenders, 1)
        samples = interleaved(contenders, bench.pick(7, 3))
    for name, title in titles.items():
        note = "" if name.startswith("bare") else "one int and one dataclass as arguments"
        yield Figure.of(f"enqueue.{name}", f"{title}, one thread", "jobs/s", samples[name], note=note)
    for name, title in titles.items():
        if name != "one":
            share = ratios(samples["one"], samples[name])
            yield Figure.of(f"enqueue.one_to_{name}", f"penstock to {title}", "ratio", share)


def _body() -> bytes:
    """Give a body as large as what penstock stores of the jobs that are enqueued here."""
    return receive.new_job((7, _ORDER), {}).envelope


@contextlib.contextmanager
def _rivals(bench: Bench) -> Iterator[dict[str, Callable[[int], None]]]:
    rivals = {name: Rival(bench.file(f"enqueue-{name}"), fsync) for name, fsync in (("default", None), ("fsync", True))}
    bench.facts["huey_synchronous"] = {name: rival.synchronous() for name, rival in rivals.items()}
    yield {f"huey.{name}": partial(_repeat, partial(rival.receive, 7, _ORDER)) for name, rival in rivals.items()}
    for rival in rivals.values():
        rival.close()


def _at_once(bench: Bench) -> Iterator[Figure]:
    bench.say("enqueue at once: threads, coroutines, enqueue_many")
    in_threads, in_bulk = bench.size(8000, 1600), bench.size(20_000, 4000)
    in_coroutines = bench.size(20_000, 4000, step=1000)
    contenders: dict[str, Callable[[], float]] = {
        "threads.8": lambda: _rate(in_threads, lambda: _in_threads(8, in_threads)),
        "threads.64": lambda: _rate(in_threads, lambda: _in_threads(64, in_threads)),
        "coroutines.100": lambda: _rate(in_coroutines, lambda: asyncio.run(_in_coroutines(100, in_coroutines))),
        "coroutines.1000": lambda: _rate(in_coroutines, lambda: asyncio.run(_in_coroutines(1000, in_coroutines))),
        "many": lambda: _rate(in_bulk, lambda: receive.enqueue_many((7, _ORDER) for _ in range(in_bulk))),
    }
    samples = interleaved(contenders, bench.pick(5, 3))
    for name, title in _AT_ONCE.items():
        yield Figure.of(f"enqueue.{name}", f"penstock, {title}", "jobs/s", samples[name])


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
