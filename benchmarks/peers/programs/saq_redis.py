"""SAQ on Redis; results are kept for ten minutes, its default. It has no call for many: coroutines enqueue at once.

Source: https://saq-py.readthedocs.io/en/latest/ and `saq --help` (`concurrency`, by default 10; `--workers`).
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from saq import Queue

from benchmarks.peers.journal import What, note
from benchmarks.peers.producing import HOLD_S, URL, tool

_AT_ONCE = 50

queue = Queue.from_url(os.environ[URL])


async def noop(_: dict[str, Any], *, number: int) -> int:
    note(number)
    return number


async def hold(_: dict[str, Any], *, number: int) -> int:
    note(number, What.STARTED)
    await asyncio.sleep(HOLD_S)
    note(number)
    return number


plain = {"queue": queue, "functions": [noop, hold]}
tuned = {**plain, "concurrency": 100}


class Program:
    async def prepare(self) -> None:
        await queue.connect()

    async def enqueue(self, number: int) -> None:
        await queue.enqueue("noop", number=number)

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), _AT_ONCE):
            await asyncio.gather(*(self.enqueue(number) for number in numbers[start : start + _AT_ONCE]))

    async def enqueue_hold(self, number: int) -> None:
        await queue.enqueue("hold", number=number)

    def commands(self, processes: int, tuned: bool) -> list[list[str]]:
        settings = f"benchmarks.peers.programs.saq_redis.{'tuned' if tuned else 'plain'}"
        return [[tool("saq"), settings, "--quiet", "--workers", str(processes)]]
