"""The same jobs on huey, whose SQLite store is the nearest relative; `huey_consumer` imports `benchmarks.rival.huey`.

The file and its durability come from the environment, because the consumer takes neither as an option.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huey import SqliteHuey  # type: ignore[import-untyped]  # it has no types

from benchmarks.tasks import Order

__all__ = ["FILE", "FSYNC", "Rival", "huey"]

FILE, FSYNC = "BENCHMARK_HUEY_FILE", "BENCHMARK_HUEY_FSYNC"


def receive(order_id: int, order: Order) -> None:
    """Take one int and one dataclass; only ever enqueued."""


def noop(number: int) -> int:
    return number


def stamp() -> int:
    return time.monotonic_ns()


class Rival:
    """huey on one SQLite file, with results.

    Args:
        fsync: None leaves durability to huey's and SQLite's defaults.
    """

    def __init__(self, file: Path, fsync: bool | None) -> None:
        logging.getLogger("huey").setLevel(logging.WARNING)
        self.file, self.fsync = file, fsync
        self.huey = SqliteHuey("benchmarks", filename=str(file), fsync=fsync)
        self.receive: Callable[[int, Order], Any] = self.huey.task()(receive)
        self.noop: Callable[[int], Any] = self.huey.task()(noop)
        self.stamp: Callable[[], Any] = self.huey.task()(stamp)

    @property
    def environment(self) -> dict[str, str]:
        """What a consumer of this file needs to know."""
        return {FILE: str(self.file), FSYNC: "" if self.fsync is None else str(int(self.fsync))}

    def synchronous(self) -> str:
        """Say how its connection really syncs."""
        level = self.huey.storage.conn.execute("PRAGMA synchronous").fetchone()[0]
        return ("OFF", "NORMAL", "FULL", "EXTRA")[level]

    def completed(self) -> int:
        """Count stored results. Rows of its result table are only ever added here, so the last row id counts them."""
        return int(self.huey.storage.conn.execute("SELECT coalesce(max(rowid), 0) FROM kv").fetchone()[0])

    def close(self) -> None:
        self.huey.storage.close()


if FILE in os.environ:
    huey = Rival(Path(os.environ[FILE]), {"": None, "0": False, "1": True}[os.environ[FSYNC]]).huey
