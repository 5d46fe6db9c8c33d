"""The application of the torture tests: every job tells when it begins and ends, and returns the claim it ran under."""

import asyncio
import ctypes
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from penstock.client import Penstock
from penstock.context import current_job
from penstock.engine import Answer, Engine, Want
from penstock.engines.open import open_engine
from penstock.model.errors import EngineDown
from penstock.model.job import Change, ProcessId
from tests.torture import mines
from tests.torture.records import EFFECTS, FREEZE_AT_DELIVERY, LOSE_REPLIES, LOST, PROCESSES, Record, store_url

app = Penstock(store_url())
effects = Record(EFFECTS)


def begin() -> str:
    """Tell that this job has begun; give the claim that it runs under."""
    job = current_job()
    fence = job.claim.fence
    effects.add("began", job.id, fence.number, fence.token, os.getpid())
    return f"{fence.number}:{fence.token}"


def end() -> None:
    job = current_job()
    fence = job.claim.fence
    effects.add("ended", job.id, fence.number, fence.token, os.getpid())


@app.task(max_attempts=1, max_crashes=10_000)
def work(_name: str, seconds: float) -> str:
    claim = begin()
    time.sleep(seconds)
    end()
    return claim


@app.task(max_attempts=2, max_crashes=10_000)
async def work_async(_name: str, seconds: float) -> str:
    claim = begin()
    await asyncio.sleep(seconds)
    end()
    return claim


@app.task(max_attempts=3, max_crashes=10_000, runner="process")
def work_alone(_name: str, seconds: float) -> str:
    claim = begin()
    time.sleep(seconds)
    end()
    return claim


@app.task(max_attempts=5, max_crashes=10_000, backoff="50ms")
def stumble(_name: str, seconds: float) -> str:
    """Fail the first time."""
    claim = begin()
    if not current_job().claim.counters.failures:
        raise ConnectionError("not yet")
    time.sleep(seconds)
    end()
    return claim


@app.task(max_crashes=3)
def poison() -> None:
    begin()
    os.kill(os.getpid(), signal.SIGKILL)


TASKS = (work, work_async, work_alone, stumble)


@app.task(max_attempts=1, max_crashes=10_000)
def wait_for(gates: Path) -> str:
    """Run until a file appears that is named like the number of this claim."""
    claim = begin()
    while not (gates / claim.partition(":")[0]).exists():
        time.sleep(0.01)
    end()
    return claim


@app.task
def hold_the_lock(seconds: float) -> str:
    """Keep the interpreter lock in C."""
    claim = begin()
    ctypes.PyDLL(None).usleep(round(seconds * 1_000_000))
    return claim


def _is_process_of_a_worker() -> bool:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == "penstock.worker.process"


def _engine() -> Any:
    """Give the class whose calls are watched; making one of it opens nothing."""
    return type(open_engine(store_url()))


def _tell_who_exchanges() -> None:
    """Write down under which id this process speaks to the store."""
    engine = _engine()
    exchange, told = engine.exchange, set[ProcessId]()

    def told_exchange(self: Engine, process: ProcessId, *rest: Any) -> Answer:
        if process not in told:
            told.add(process)
            Record(PROCESSES).add(os.getpid(), process)
        return cast(Answer, exchange(self, process, *rest))

    engine.exchange = told_exchange


def _lose_replies(every: int) -> None:
    """Let every so many exchanges be carried out by the store, but not heard of here."""
    engine = _engine()
    exchange, number = engine.exchange, itertools.count(1)

    def lossy_exchange(self: Engine, *given: Any) -> Answer:
        answer: Answer = exchange(self, *given)
        if next(number) % every == 0:
            Record(LOST).add(os.getpid(), len(answer.claims))
            raise EngineDown("the reply was lost")
        return answer

    engine.exchange = lossy_exchange


def _freeze_at_delivery(until: Path) -> None:
    """Freeze before what has ended is delivered, again and again until the file is there."""
    engine = _engine()
    exchange = engine.exchange

    def freezing_exchange(
        self: Engine, process: ProcessId, beat: int, changes: Sequence[Change], want: Want | None
    ) -> Answer:
        while changes and not until.exists():
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(0.01)  # for another thread that was frozen within a transaction
        return cast(Answer, exchange(self, process, beat, changes, want))

    engine.exchange = freezing_exchange


if _is_process_of_a_worker():
    _tell_who_exchanges()
    if until := os.environ.get(FREEZE_AT_DELIVERY):
        _freeze_at_delivery(Path(until))
    if every := os.environ.get(LOSE_REPLIES):
        _lose_replies(int(every))
    if seed := os.environ.get(mines.SEED):
        mines.lay("process", random.Random(f"{seed} {os.getpid()}"))
