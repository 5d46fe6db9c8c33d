"""Procrastinate on PostgreSQL; it keeps no results, its ended jobs stay in the table.

Sources: https://procrastinate.readthedocs.io/en/stable/howto/basics/worker.html (`--concurrency`, by default 1, larger
for more throughput; it needs a pool to match),
https://procrastinate.readthedocs.io/en/stable/howto/basics/batch_defer.html (its call for many).
"""

import asyncio
import os
from collections.abc import Sequence

from procrastinate import App, PsycopgConnector

from benchmarks.peers.journal import What, note
from benchmarks.peers.producing import HOLD_S, URL, tool

_CONCURRENCY = 20

app = App(connector=PsycopgConnector(conninfo=os.environ[URL], min_size=1, max_size=_CONCURRENCY))


@app.task(name="noop")
async def noop(number: int) -> None:
    note(number)


@app.task(name="hold")
async def hold(number: int) -> None:
    note(number, What.STARTED)
    await asyncio.sleep(HOLD_S)
    note(number)


class Program:
    async def prepare(self) -> None:
        await app.open_async()
        await app.schema_manager.apply_schema_async()

    async def enqueue(self, number: int) -> None:
        await noop.defer_async(number=number)

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        await noop.batch_defer_async(*({"number": number} for number in numbers))

    async def enqueue_hold(self, number: int) -> None:
        await hold.defer_async(number=number)

    def commands(self, processes: int, tuned: bool) -> list[list[str]]:
        worker = [tool("procrastinate"), "--app=benchmarks.peers.programs.procrastinate_postgresql.app", "worker"]
        if tuned:
            worker += ["--concurrency", str(_CONCURRENCY)]
        return [worker] * processes
