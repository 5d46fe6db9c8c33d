"""PostgreSQL under a transaction that stays open: dead rows cannot be cleared away, and a claim must not walk them.

The engine is driven from one thread at a steady rate: every 20 ms a hundred jobs are added, and one exchange ends the
last hundred and claims the next. How long that exchange takes is the figure, over the time the transaction is open.
"""

import time
from collections.abc import Iterator

import psycopg

from benchmarks.bench import Bench
from benchmarks.figures import Figure, percentile
from benchmarks.stores import Store, exchanges, jobs_of
from benchmarks.tasks import noop
from penstock.engine import AddRequest

__all__ = ["measure"]

_RATE = 5000
_BATCH = 100
_SLICES = 20
_KEEP = 100_000


def measure(bench: Bench) -> Iterator[Figure]:
    """Give the claim's p99 at the start and at the end of a long transaction that is idle, and of one that enqueued."""
    for kind in ("idle", "enqueued"):
        title = "idle" if kind == "idle" else "having enqueued a job"
        bench.say(f"{bench.horizon_s:g} s at {_RATE:,} jobs/s with a transaction open, {title}")
        slices, rate = _observe(bench, kind)
        note = f"{bench.horizon_s:g} s at {rate:,.0f} jobs/s; p99 of each of {_SLICES} equal parts"
        first, last = slices[0], slices[-1]
        yield Figure.of(f"horizon.{kind}.start", f"claim p99, {title}, at first", "ms", slices, value=first, note=note)
        yield Figure.of(f"horizon.{kind}.end", f"claim p99, {title}, in the end", "ms", slices, value=last, note=note)
        yield Figure.of(f"horizon.{kind}.growth", f"claim p99, {title}, end to start", "ratio", [last / first])
        yield Figure.of(f"horizon.{kind}.rate", f"rate kept, {title}", "jobs/s", [rate])


def _observe(bench: Bench, kind: str) -> tuple[list[float], float]:
    """Give the p99 of the exchanges in each part of the time, in ms, and how many jobs ran per second."""
    store = Store(bench.place, f"horizon-{kind}", keep=_KEEP)
    store.use()
    store.completed()  # its tables must be there before the snapshot is
    took: list[tuple[float, float]] = []
    with psycopg.connect(store.url.partition("?")[0]) as other:
        _hold_open(other, kind)
        began = time.monotonic()
        for claimed_at, ms in _steadily(store, began + bench.horizon_s):
            took.append((claimed_at - began, ms))
        other.rollback()
    store.remove()
    length = bench.horizon_s / _SLICES
    parts = [[ms for at, ms in took if at // length == part] for part in range(_SLICES)]
    return [percentile(part, 0.99) for part in parts if part], len(took) * _BATCH / bench.horizon_s


def _hold_open(db: "psycopg.Connection[tuple[object, ...]]", kind: str) -> None:
    """Begin a transaction that holds back what may be cleared away: by its snapshot, and by an id of its own."""
    db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    db.execute("SELECT 1")
    if kind == "enqueued":
        noop.using(connection=db).enqueue(7)


def _steadily(store: Store, until: float) -> Iterator[tuple[float, float]]:
    """Add and exchange at the rate; gives when each exchange began and how many ms it took."""
    turn = exchanges(store.engine, noop, _BATCH)
    due = time.monotonic()
    while due < until:
        time.sleep(max(0.0, due - time.monotonic()))
        for jobs in jobs_of(noop, _BATCH):
            store.engine.add([AddRequest(jobs)])
        began = time.monotonic()
        next(turn)
        yield began, (time.monotonic() - began) * 1000
        due += _BATCH / _RATE  # what was late is made up for, so that the rate is kept
