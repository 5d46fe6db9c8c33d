"""Draining: how fast real workers empty a store, counted by the completions that the store has recorded."""

from collections.abc import Iterator
from functools import partial
from itertools import count as numbers
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.counting import rate
from benchmarks.figures import Figure, interleaved, ratios
from benchmarks.rival import Rival
from benchmarks.stores import Store
from benchmarks.tasks import anoop, noop, spin
from benchmarks.workers import consumer, worker
from penstock import Task

__all__ = ["measure"]

_RUN = numbers()
#: The first fifth is not timed: processes start one after the other.
_WARM = 5


def measure(bench: Bench) -> Iterator[Figure]:
    """Give figures of draining no-op jobs, beside huey, and jobs that use the processor."""
    yield from _no_ops(bench)
    yield from _spinning(bench)


def _no_ops(bench: Bench) -> Iterator[Figure]:
    count, of_huey = bench.size(100_000, 20_000, step=1000), bench.size(10_000, 2000, step=1000)
    of_rival = f"; huey: {of_huey:,}" if bench.store == "sqlite" else ""
    bench.say(f"drain {count:,} no-op jobs: thread and loop runners, 1 and 2 processes{of_rival}")
    plain, coroutines = _filled(bench, "drain-noop", noop, count), _filled(bench, "drain-anoop", anoop, count)
    rivals = {
        name: _filled_rival(bench, fsync, of_huey)
        for name, fsync in (("default", None), ("fsync", True))
        if bench.store == "sqlite"
    }
    contenders = {
        "thread.1": partial(_drain, bench, plain, count, 1),
        "loop.1": partial(_drain, bench, coroutines, count, 1),
        "thread.2": partial(_drain, bench, plain, count, 2),
        **{
            f"huey.{name}": partial(_drain_rival, bench, file, fsync, of_huey) for name, (file, fsync) in rivals.items()
        },
    }
    samples = interleaved(contenders, bench.pick(3, 1))
    one = samples["thread.1"]
    titles = {
        "thread.1": ("penstock, thread runner, 1 process", f"{count:,} no-op jobs, results kept"),
        "loop.1": ("penstock, loop runner, 1 process", "a Task of its own for each job"),
        "thread.2": ("penstock, thread runner, 2 processes", ""),
        "huey.default": ("huey (default), thread worker", f"{of_huey:,} no-op jobs, results kept"),
        "huey.fsync": ("huey (fsync=True), thread worker", ""),
    }
    for name, rates in samples.items():
        title, note = titles[name]
        yield Figure.of(f"drain.{name}", title, "jobs/s", rates, note=note)
    if rivals:
        yield _ratio("to_huey.default", "penstock to huey (default)", one, samples["huey.default"])
        yield _ratio("to_huey.fsync", "penstock to huey (fsync=True)", one, samples["huey.fsync"])
    yield _ratio("loop_to_thread", "loop to thread runner", samples["loop.1"], one)
    yield _ratio("two_to_one", "2 processes to 1, no-ops", samples["thread.2"], one)


def _spinning(bench: Bench) -> Iterator[Figure]:
    count = bench.size(20_000, 5000, step=1000)
    bench.say(f"drain {count:,} jobs of 200 us of CPU: 1 and 2 processes")
    template = _filled(bench, "drain-spin", spin, count)
    contenders = {f"spin.{processes}": partial(_drain, bench, template, count, processes) for processes in (1, 2)}
    samples = interleaved(contenders, bench.pick(3, 1))
    for processes in (1, 2):
        title = f"jobs of 200 us of CPU, {processes} process{'es' if processes > 1 else ''}"
        yield Figure.of(f"drain.spin.{processes}", title, "jobs/s", samples[f"spin.{processes}"])
    yield _ratio("spin_two_to_one", "2 processes to 1, 200 us of CPU", samples["spin.2"], samples["spin.1"])


def _ratio(name: str, title: str, above: list[float], below: list[float]) -> Figure:
    return Figure.of(f"drain.{name}", title, "ratio", ratios(above, below))


def _filled(bench: Bench, name: str, task: Task[..., Any], count: int) -> Store:
    store = Store(bench.place, name)
    store.fill(task, count)
    return store


def _drain(bench: Bench, template: Store, count: int, processes: int) -> float:
    store = Store(bench.place, "drain", like=template)
    try:
        with worker(store.url, processes=processes) as tree:
            return rate(store.completed, count - count // _WARM, after=count // _WARM, tree=tree)
    finally:
        store.remove()


def _filled_rival(bench: Bench, fsync: bool | None, count: int) -> tuple[Path, bool | None]:
    rival = Rival(bench.file(f"drain-huey-{fsync}"), fsync)
    for number in range(count):
        rival.noop(number)
    rival.close()
    return rival.file, fsync


def _drain_rival(bench: Bench, template: Path, fsync: bool | None, count: int) -> float:
    file = bench.file(f"drain-{next(_RUN)}")
    file.write_bytes(template.read_bytes())
    rival = Rival(file, fsync)
    try:
        with consumer(rival.environment) as tree:
            return rate(rival.completed, count - count // _WARM, after=count // _WARM, tree=tree)
    finally:
        rival.close()
