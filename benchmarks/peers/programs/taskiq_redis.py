"""Taskiq on Redis: on a stream, which acknowledges, or on a list, which does not; results are kept for an hour.

It has no call for many: coroutines enqueue at once. Sources: https://github.com/taskiq-python/taskiq-redis (brokers),
https://taskiq-python.github.io/guide/cli.html (`--workers`, `--max-async-tasks`; uvloop is used if installed).
"""

import asyncio
import os
from collections.abc import Sequence

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers.journal import What, note
from benchmarks.peers.producing import HOLD_S, URL, tool

_AT_ONCE = 50

_brokers = {"stream": RedisStreamBroker, "list": ListQueueBroker}
broker = _brokers[os.environ["BENCHMARK_BROKER"]](os.environ[URL]).with_result_backend(
    RedisAsyncResultBackend(os.environ[URL], result_ex_time=3600)
)


@broker.task(task_name="noop")
async def noop(number: int) -> int:
    note(number)
    return number


@broker.task(task_name="hold")
async def hold(number: int) -> int:
    note(number, What.STARTED)
    await asyncio.sleep(HOLD_S)
    note(number)
    return number


class Program:
    async def prepare(self) -> None:
        await broker.startup()

    async def enqueue(self, number: int) -> None:
        await noop.kiq(number)

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), _AT_ONCE):
            await asyncio.gather(*(noop.kiq(number) for number in numbers[start : start + _AT_ONCE]))

    async def enqueue_hold(self, number: int) -> None:
        await hold.kiq(number)

    def commands(self, processes: int, tuned: bool) -> list[list[str]]:
        worker = [tool("taskiq"), "worker", "benchmarks.peers.programs.taskiq_redis:broker", "--log-level", "WARNING"]
        return [[*worker, "--workers", str(processes)] if tuned else worker]
