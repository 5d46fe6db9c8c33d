"""Jobs that try what plain ones do not: keys, retries, fallbacks, crashes, side effects, children, deadlines.

It is the torture tests' application with these beside; what its processes ask of the store is written down.
"""

import os
import time
import zlib

from penstock.context import current_job
from penstock.engines.open import open_engine
from tests.histories.lies import tell_it
from tests.histories.watching import Log, effect, watch
from tests.torture.jobs import app
from tests.torture.records import ERRANDS, HISTORY, folder, store_url

__all__ = ["app"]

log = Log(folder())


@app.task(name="errands.plain", queue=ERRANDS, max_attempts=1, max_crashes=10_000)
def plain(_name: str) -> str:
    return _fence()


@app.task(name="errands.fail", queue=ERRANDS, max_attempts=3, max_crashes=10_000, backoff="20ms")
def fail(name: str, times: int) -> str:
    """Fail so many times."""
    if current_job().claim.counters.failures < times:
        raise ValueError(name)
    return _fence()


@app.task(name="errands.fall", queue=ERRANDS, max_attempts=2, max_crashes=10_000, backoff="10ms", fallback=plain)
def fall(name: str) -> str:
    """Fail each time, so that another task takes over."""
    raise ConnectionError(name)


@app.task(name="errands.crash", queue=ERRANDS, max_attempts=1, max_crashes=2, runner="process")
def crash(_name: str, times: int) -> str:
    """Take its process down so many times; twice is once too often."""
    if current_job().claim.counters.crashes < times:
        os._exit(3)
    return _fence()


@app.task(name="errands.affect", queue=ERRANDS, max_attempts=2, max_crashes=10_000)
def affect(_name: str, key: str) -> str:
    """Do something once in this job, and something else once for all jobs that share a key."""
    me = current_job()
    scope = f"step:{me.id}:{zlib.crc32(me.claim.envelope):08x}"
    first = me.step("first", _do, scope, "first", once=False)
    me.once(key, _do, "once", key, once=True, unknown="skip")
    assert me.step("first", _do, scope, "first", once=False) == first
    return _fence()


def _do(scope: str, key: str, once: bool) -> str:
    claim = current_job().claim
    effect(log, claim.id, claim.fence, scope, key, once=once)
    return str(claim.fence)


@app.task(name="errands.bear", queue=ERRANDS, max_attempts=1, max_crashes=10_000)
def bear(name: str) -> str:
    plain.enqueue(f"child of {name}")
    return _fence()


@app.task(name="errands.linger", queue=ERRANDS, max_attempts=1, max_crashes=10_000)
def linger(_name: str) -> str:
    """Run until asked to stop, or for a while."""
    me = current_job()
    me.progress(1, 2)
    until = time.monotonic() + 0.5
    while not me.cancelled and time.monotonic() < until:
        time.sleep(0.01)
    return _fence()


def _fence() -> str:
    return str(current_job().claim.fence)


if os.environ.get(HISTORY):
    engine = type(open_engine(store_url()))
    tell_it(engine)
    watch(engine, log)
