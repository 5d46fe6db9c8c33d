"""Dramatiq on Redis, with or without its result backend.

Sources: https://dramatiq.io/guide.html ("Workers": processes of 8 threads, the default, kept here),
https://dramatiq.io/guide.html#message-results, https://dramatiq.io/cookbook.html#groups (its call for many).
"""

import os
import time
from collections.abc import Sequence

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers.journal import What, note
from benchmarks.peers.producing import HOLD_S, URL, tool

KEEPS_RESULTS = os.environ.get("BENCHMARK_RESULTS") == "1"

broker = RedisBroker(url=os.environ[URL])
if KEEPS_RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=os.environ[URL])))
dramatiq.set_broker(broker)
_RESULTS = {"store_results": True} if KEEPS_RESULTS else {}


@dramatiq.actor(**_RESULTS)
def noop(number: int) -> int | None:
    note(number)
    return number if KEEPS_RESULTS else None


@dramatiq.actor(**_RESULTS)
def hold(number: int) -> int | None:
    note(number, What.STARTED)
    time.sleep(HOLD_S)
    note(number)
    return number if KEEPS_RESULTS else None


class Program:
    def prepare(self) -> None:
        broker.client.ping()

    def enqueue(self, number: int) -> None:
        noop.send(number)

    def enqueue_many(self, numbers: Sequence[int]) -> None:
        dramatiq.group(noop.message(number) for number in numbers).run()

    def enqueue_hold(self, number: int) -> None:
        hold.send(number)

    def commands(self, processes: int, tuned: bool) -> list[list[str]]:
        worker = [tool("dramatiq"), "benchmarks.peers.programs.dramatiq_redis"]
        return [[*worker, "--processes", str(processes)] if tuned else worker]
