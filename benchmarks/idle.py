"""What a worker costs that has nothing to do: processor time and memory of all its processes."""

import time
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.counting import wait_for
from benchmarks.figures import Figure
from benchmarks.rival import Rival
from benchmarks.stores import Store
from benchmarks.tasks import noop
from benchmarks.workers import Tree, consumer, worker

__all__ = ["measure"]

_SETTLE_S = 2.0


def measure(bench: Bench) -> Iterator[Figure]:
    """Give the idle processor time and the memory (PSS) of a worker of one process, and of huey's on SQLite."""
    watched_s, rounds = bench.pick(10.0, 3.0), bench.pick(3, 1)
    bench.say(f"idle workers: {rounds} times {watched_s:g} s each")
    own: list[tuple[float, float]] = []
    others: list[tuple[float, float]] = []
    for number in range(rounds):
        own.append(_watch_penstock(bench, number, watched_s))
        if bench.store == "sqlite":
            others.append(_watch_huey(bench, number, watched_s))
    note = "supervisor and one process"
    cpu, memory = zip(*own, strict=True)
    yield Figure.of("idle.cpu", "penstock worker, idle", "% of a core", cpu, note=note)
    yield Figure.of("idle.memory", "penstock worker, memory", "MB PSS", memory, note=note)
    if others:
        cpu, memory = zip(*others, strict=True)
        yield Figure.of("idle.cpu.huey", "huey consumer, idle", "% of a core", cpu)
        yield Figure.of("idle.memory.huey", "huey consumer, memory", "MB PSS", memory)


def _watch_penstock(bench: Bench, number: int, watched_s: float) -> tuple[float, float]:
    store = Store(bench.place, f"idle-{number}")
    store.fill(noop, 100)
    with worker(store.url) as tree:
        wait_for(lambda: store.completed() == 100, "100 completions", tree=tree)
        watched = _watch(tree, watched_s)
    store.remove()
    return watched


def _watch_huey(bench: Bench, number: int, watched_s: float) -> tuple[float, float]:
    rival = Rival(bench.file(f"idle-huey-{number}"), None)
    for job in range(100):
        rival.noop(job)
    with consumer(rival.environment) as tree:
        wait_for(lambda: rival.completed() == 100, "100 completions", tree=tree)
        watched = _watch(tree, watched_s)
    rival.close()
    return watched


def _watch(tree: Tree, watched_s: float) -> tuple[float, float]:
    """Give percent of a core and megabytes, after a worker that has worked came to rest."""
    time.sleep(_SETTLE_S)
    before_s, began = tree.cpu_s(), time.monotonic()
    time.sleep(watched_s)
    share = (tree.cpu_s() - before_s) / (time.monotonic() - began)
    tree.check()
    return share * 100, tree.pss_bytes() / 1e6
