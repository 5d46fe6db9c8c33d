"""Celery on Redis.

Sources: https://docs.celeryq.dev/en/stable/userguide/optimizing.html ("Prefetch Limits": a large multiplier for many
short tasks; 64 or 128 are its examples), https://docs.celeryq.dev/en/stable/userguide/workers.html (`--without-gossip`,
`--without-mingle`), https://docs.celeryq.dev/en/stable/userguide/canvas.html (a group is its call for many).
"""

import os
import time
from collections.abc import Sequence

from celery import Celery, group

from benchmarks.peers.journal import What, note
from benchmarks.peers.producing import HOLD_S, URL, tool

KEEPS_RESULTS = os.environ.get("BENCHMARK_RESULTS") == "1"

app = Celery(
    "benchmarks.peers.programs.celery_redis",
    broker=os.environ[URL],
    backend=os.environ[URL] if KEEPS_RESULTS else None,
)
app.conf.task_ignore_result = not KEEPS_RESULTS
app.conf.broker_connection_retry_on_startup = True


@app.task(name="noop")
def noop(number: int) -> int:
    note(number)
    return number


@app.task(name="hold")
def hold(number: int) -> int:
    note(number, What.STARTED)
    time.sleep(HOLD_S)
    note(number)
    return number


class Program:
    def prepare(self) -> None:
        app.connection_for_write().ensure_connection(max_retries=3)

    def enqueue(self, number: int) -> None:
        noop.delay(number)

    def enqueue_many(self, numbers: Sequence[int]) -> None:
        group(noop.s(number) for number in numbers).apply_async()

    def enqueue_hold(self, number: int) -> None:
        hold.delay(number)

    def commands(self, processes: int, tuned: bool) -> list[list[str]]:
        worker = [tool("celery"), "-A", "benchmarks.peers.programs.celery_redis", "worker", "--loglevel", "ERROR"]
        if tuned:
            worker += ["--concurrency", str(processes), "--prefetch-multiplier", "64"]
            worker += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        return [worker]
