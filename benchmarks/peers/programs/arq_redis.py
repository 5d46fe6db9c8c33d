"""arq on Redis; results are kept for an hour, its default. It has no call for many: coroutines enqueue at once.

It takes jobs by polling, by default 100 every half second. Source: https://arq-docs.helpmanual.io/ (`Worker`:
`max_jobs`, `poll_delay`), both set here so that neither is what is measured.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.peers.journal import What, note
from benchmarks.peers.producing import HOLD_S, URL, tool

_AT_ONCE = 50


async def noop(_: dict[str, Any], number: int) -> int:
    note(number)
    return number


async def hold(_: dict[str, Any], number: int) -> int:
    note(number, What.STARTED)
    await asyncio.sleep(HOLD_S)
    note(number)
    return number


class Plain:
    functions = (noop, hold)
    redis_settings = RedisSettings.from_dsn(os.environ[URL])


class Tuned:
    functions = Plain.functions
    redis_settings = Plain.redis_settings
    max_jobs = 100
    poll_delay = 0.005


class Program:
    async def prepare(self) -> None:
        self._redis = await create_pool(RedisSettings.from_dsn(os.environ[URL]))

    async def enqueue(self, number: int) -> None:
        await self._redis.enqueue_job("noop", number)

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), _AT_ONCE):
            await asyncio.gather(*(self.enqueue(number) for number in numbers[start : start + _AT_ONCE]))

    async def enqueue_hold(self, number: int) -> None:
        await self._redis.enqueue_job("hold", number)

    def commands(self, processes: int, tuned: bool) -> list[list[str]]:
        settings = f"benchmarks.peers.programs.arq_redis.{'Tuned' if tuned else 'Plain'}"
        return [[tool("arq"), settings]] * processes
