"""`penstock bench`: what this machine and this store do, measured with the real thing in a quarter of a minute."""

import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from penstock.cli.access import reaches_store, said
from penstock.cli.screen import Column, as_json, show, show_table, write_json
from penstock.engine import Delete, Filter
from penstock.engines.open import examine
from penstock.model.errors import PenstockError
from penstock.model.states import State
from penstock.version import VERSION

if TYPE_CHECKING:
    from penstock.client import Penstock

__all__ = ["bench"]

_PHASE_S = 2.0
_START_S, _DRAIN_S, _STOP_S = 10.0, 4.0, 3.0
_BATCH, _MOST_JOBS = 500, 60_000
_SAMPLES = 40
_PAUSE_S = 0.03
_TICK_S = 0.01


class BenchFailed(PenstockError):
    """A measurement could not be made."""


class Figure(Struct):
    """One measured number; `count` is how many jobs it rests on."""

    name: str
    value: float
    unit: str
    count: int


@click.command()
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    help="Where the temporary store is made; matters, as every commit waits for the disk.",
)
@reaches_store
@as_json
@click.pass_context
def bench(ctx: click.Context, folder: Path | None, as_json: bool) -> None:
    """Measure penstock on this machine, in about a quarter of a minute.

    A temporary store is filled and emptied by a real worker with one process. With --url that store is used, in a
    queue of its own, and what was added is deleted again. Close other programs first: the figures hold for a machine
    that does nothing else.

    With --json, one document: {"machine": {...}, "figures": [{"name", "value", "unit", "count"}, ...]}.
    """
    url = said(ctx)["url"]
    with _store_at(str(url) if url else None, folder) as store:
        from penstock.cli.measured import app

        app.redirect(store)
        with app:
            try:
                figures = list(_measure(app, store))
                machine = _machine(app, store)
            finally:
                if url is not None:
                    _clear(app)
    if as_json:
        write_json({"machine": machine, "figures": figures})
    else:
        _show(machine, figures)


@contextmanager
def _store_at(url: str | None, folder: Path | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=folder) as made:
        yield f"sqlite:///{made}/bench.db"


def _measure(app: "Penstock", url: str) -> Iterator[Figure]:
    click.echo("enqueueing …", err=True)
    yield _enqueue_one_by_one()
    yield _enqueue_many()
    click.echo("draining with one worker process …", err=True)
    with _worker(url) as process:
        yield _drain(app, process)
        click.echo("measuring latency …", err=True)
        yield from _latency()


def _enqueue_one_by_one() -> Figure:
    from penstock.cli.measured import noop

    begun, count = time.perf_counter(), 0
    while (took := time.perf_counter() - begun) < _PHASE_S:
        noop.enqueue(count)
        count += 1
    return Figure("enqueue, one by one, one thread", count / took, "jobs/s", count)


def _enqueue_many() -> Figure:
    from penstock.cli.measured import noop

    begun, count = time.perf_counter(), 0
    while (took := time.perf_counter() - begun) < _PHASE_S and count < _MOST_JOBS:
        noop.enqueue_many([(number,) for number in range(_BATCH)])
        count += _BATCH
    return Figure(f"enqueue_many, {_BATCH} at a time", count / took, "jobs/s", count)


def _drain(app: "Penstock", process: "subprocess.Popen[bytes]") -> Figure:
    """Count from the first result on, so that the start of the worker is not in the figure."""
    _poll(lambda: _ended(app) > 0, _START_S, process)
    begun, first = time.perf_counter(), _ended(app)
    _poll(lambda: _unfinished(app) == 0 or time.perf_counter() - begun > _DRAIN_S, _DRAIN_S + 1, process)
    took, count = time.perf_counter() - begun, _ended(app) - first
    if _unfinished(app):
        _clear(app)
        _poll(lambda: _unfinished(app) == 0, _START_S, process)
    return Figure("drain, one process, no-op jobs, results kept", count / max(took, 1e-6), "jobs/s", count)


def _latency() -> Iterator[Figure]:
    from penstock.cli.measured import stamp

    samples = []
    for _ in range(_SAMPLES):
        time.sleep(_PAUSE_S)
        sent = time.monotonic_ns()
        samples.append((stamp.enqueue().result(timeout=_START_S) - sent) / 1e6)
    samples.sort()
    yield Figure("latency, enqueue to start, idle, median", samples[len(samples) // 2], "ms", len(samples))
    yield Figure("latency, enqueue to start, idle, worst", samples[-1], "ms", len(samples))


@contextmanager
def _worker(url: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a worker in a session of its own, so that Ctrl-C reaches this command alone, which then ends it."""
    options = ("--queues", "penstock-bench", "--processes", "1", "--log-level", "error", "--shutdown-timeout", "1s")
    command = [sys.executable, "-m", "penstock", "worker", "-A", "penstock.cli.measured:app", "--url", url, *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _poll(condition: Callable[[], bool], limit_s: float, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + limit_s
    while not condition():
        if process.poll() is not None:
            raise BenchFailed(f"The worker ended with exit status {process.returncode}.")
        if time.monotonic() > until:
            raise BenchFailed(f"The worker did not get on within {limit_s:g} s.")
        time.sleep(_TICK_S)


def _ended(app: "Penstock") -> int:
    from penstock.cli.measured import QUEUE

    return app.counts().get(QUEUE, Counter[str]())[State.SUCCEEDED]


def _unfinished(app: "Penstock") -> int:
    from penstock.cli.measured import QUEUE

    states = app.counts().get(QUEUE, Counter[str]())
    return states[State.READY] + states[State.RUNNING]


def _clear(app: "Penstock") -> None:
    """Delete the jobs of this measurement."""
    from penstock.cli.measured import QUEUE
    from penstock.cli.selection import matching

    for page in matching(app.engine, Filter(queue=QUEUE)):
        app.engine.alter([job.id for job in page.jobs], Delete())


def _machine(app: "Penstock", url: str) -> dict[str, object]:
    store = app.engine.describe()
    disk = next((one.found for one in examine(url).findings if one.subject == "filesystem"), "unknown")
    return {
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "penstock": VERSION,
        "store": f"{store.kind} {store.version}, durability {store.durability}",
        "filesystem": disk,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _show(machine: dict[str, object], figures: list[Figure]) -> None:
    from rich.table import Table

    head = Table.grid(padding=(0, 2))
    for label, value in machine.items():
        head.add_row(label, str(value))
    show(head)
    click.echo()
    columns = ("measured", Column("figure", whole=True, right=True), Column("", whole=True), Column("jobs", right=True))
    rows = [(one.name, _written(one), one.unit, f"{one.count:,}") for one in figures]
    show_table(columns, rows)


def _written(figure: Figure) -> str:
    return f"{figure.value:,.0f}" if figure.unit == "jobs/s" else f"{figure.value:,.2f}"
