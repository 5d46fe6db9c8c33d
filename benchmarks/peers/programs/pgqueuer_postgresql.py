"""PgQueuer on PostgreSQL by asyncpg, the driver it names first; it keeps no results, only a log of what ended.

Source: https://github.com/janbjorge/pgqueuer/blob/main/docs/guides/performance-tuning.md (a larger `batch_size` than
10, the default, for short jobs; its own autovacuum settings; one connection for the worker; its default durability,
which loses nothing). `enqueue` takes lists, its call for many.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers.journal import What, note
from benchmarks.peers.producing import HOLD_S, URL, tool


@asynccontextmanager
async def make() -> AsyncIterator[PgQueuer]:
    """Make what `pgq run` runs."""
    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(os.environ[URL])))

    @queuer.entrypoint("noop")
    async def noop(job: Job) -> None:
        note(int(job.payload or b""))

    @queuer.entrypoint("hold")
    async def hold(job: Job) -> None:
        number = int(job.payload or b"")
        note(number, What.STARTED)
        await asyncio.sleep(HOLD_S)
        note(number)

    yield queuer


class Program:
    async def prepare(self) -> None:
        self._queries = Queries(AsyncpgDriver(await asyncpg.connect(os.environ[URL])))
        await self._queries.install()
        await self._queries.optimize_autovacuum()

    async def enqueue(self, number: int) -> None:
        await self._queries.enqueue("noop", b"%d" % number)

    async def enqueue_many(self, numbers: Sequence[int]) -> None:
        payloads: list[bytes | None] = [b"%d" % number for number in numbers]
        await self._queries.enqueue(["noop"] * len(numbers), payloads, [0] * len(numbers))

    async def enqueue_hold(self, number: int) -> None:
        await self._queries.enqueue("hold", b"%d" % number)

    def commands(self, processes: int, tuned: bool) -> list[list[str]]:
        worker = [tool("pgq"), "run", "benchmarks.peers.programs.pgqueuer_postgresql:make"]
        if tuned:
            worker += ["--batch-size", "100"]
        return [worker] * processes
