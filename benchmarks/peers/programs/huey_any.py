"""huey on Redis or on an SQLite file; results are kept until they are read, its default. It has no call for many.

Sources: https://huey.readthedocs.io/en/latest/consumer.html (one thread is the default; processes for more CPU),
https://huey.readthedocs.io/en/latest/api.html#RedisHuey (it blocks on the queue in place of polling),
https://huey.readthedocs.io/en/latest/api.html#SqliteHuey.
"""

import logging
import os
import time
from collections.abc import Sequence

from huey import RedisHuey, SqliteHuey

from benchmarks.peers.journal import What, note
from benchmarks.peers.producing import HOLD_S, URL, tool

_url = os.environ[URL]
if _url.startswith("sqlite:///"):
    huey = SqliteHuey("benchmarks", filename=_url.removeprefix("sqlite:///"), fsync=True)
else:
    huey = RedisHuey("benchmarks", url=_url)
logging.getLogger("huey").setLevel(logging.WARNING)


@huey.task(name="noop")
def noop(number: int) -> int:
    note(number)
    return number


@huey.task(name="hold")
def hold(number: int) -> int:
    note(number, What.STARTED)
    time.sleep(HOLD_S)
    note(number)
    return number


class Program:
    def prepare(self) -> None:
        huey.pending_count()

    def enqueue(self, number: int) -> None:
        noop(number)

    def enqueue_many(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            noop(number)

    def enqueue_hold(self, number: int) -> None:
        hold(number)

    def commands(self, processes: int, tuned: bool) -> list[list[str]]:
        worker = [tool("huey_consumer"), "benchmarks.peers.programs.huey_any.huey", "-q"]
        return [[*worker, "-k", "process", "-w", str(processes)] if tuned and processes > 1 else worker]
