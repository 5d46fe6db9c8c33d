"""RQ on Redis; results are kept for 500 s, its default.

Sources: https://python-rq.org/docs/workers/ and https://github.com/rq/rq/blob/master/docs/benchmark.md (SimpleWorker
is the quick one for very short jobs: it does not fork for each of them), https://python-rq.org/docs/ ("Bulk Job
Enqueueing").
"""

import os
import time
from collections.abc import Sequence

from redis import Redis
from rq import Queue

from benchmarks.peers.journal import What, note
from benchmarks.peers.producing import HOLD_S, URL, tool

NAME = "benchmarks.peers.programs.rq_redis"


def noop(number: int) -> int:
    note(number)
    return number


def hold(number: int) -> int:
    note(number, What.STARTED)
    time.sleep(HOLD_S)
    note(number)
    return number


class Program:
    def prepare(self) -> None:
        self._queue = Queue(connection=Redis.from_url(os.environ[URL]))

    def enqueue(self, number: int) -> None:
        self._queue.enqueue(f"{NAME}.noop", number)

    def enqueue_many(self, numbers: Sequence[int]) -> None:
        self._queue.enqueue_many([Queue.prepare_data(f"{NAME}.noop", (number,)) for number in numbers])

    def enqueue_hold(self, number: int) -> None:
        self._queue.enqueue(f"{NAME}.hold", number)

    def commands(self, processes: int, tuned: bool) -> list[list[str]]:
        worker = [tool("rq"), "worker", "--url", os.environ[URL], "--quiet"]
        if tuned:
            worker += ["--worker-class", "rq.SimpleWorker", "--disable-job-desc-logging"]
        return [worker] * processes
