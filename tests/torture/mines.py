"""Crash points: a process in which a mine is laid may kill itself within one of its write transactions.

The real process runs the real code; only the connections that it opens count what is executed on them.
"""

import functools
import os
import random
import signal
import sqlite3
from collections.abc import Iterable
from typing import Any, NoReturn

from msgspec import Struct

from tests.torture.records import BLOWN, Record

#: Set, to a seed, where worker processes shall lay mines.
SEED = "TORTURE_MINES"

INSIDE, BEFORE, AFTER = "inside", "before commit", "after commit"
POINTS = (INSIDE, BEFORE, AFTER)
MOST_STATEMENTS = 8
#: How likely a process gets a mine, and within how many transactions it lies.
ODDS = {"process": (0.5, 40), "supervisor": (0.5, 15), "producer": (0.7, 4)}


class Mine(Struct):
    """It lies in one transaction, counted from 1; `inside` it waits for a statement, counted likewise.

    About a commit it waits for a transaction that has changed something.
    """

    role: str
    transaction: int
    point: str
    statement: int

    def blow(self) -> NoReturn:
        Record(BLOWN).add(os.getpid(), self.role, self.point.replace(" ", "-"))
        while True:
            os.kill(os.getpid(), signal.SIGKILL)


_mine: Mine | None = None
_transactions = 0


def lay(role: str, dice: random.Random) -> None:
    """Lay a mine in this process, or none; call it before any store is opened."""
    global _mine, _transactions
    odds, most = ODDS[role]
    if dice.random() >= odds:
        return
    _transactions = 0
    _mine = Mine(role, dice.randint(1, most), dice.choice(POINTS), dice.randint(1, MOST_STATEMENTS))
    sqlite3.connect = functools.partial(sqlite3.connect, factory=MinedConnection)  # type: ignore[assignment]


class MinedConnection(sqlite3.Connection):
    """Counts write transactions of this process and the statements of the one with the mine."""

    _statements = _changes_before = 0
    _armed = _wrote = False

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self._step(sql)
        cursor = super().execute(sql, parameters)
        if sql == "COMMIT":
            self._pass(AFTER)
        return cursor

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        self._step(sql)
        return super().executemany(sql, parameters)

    def _step(self, sql: str) -> None:
        global _transactions
        if sql == "BEGIN IMMEDIATE":
            _transactions += 1
            self._armed = _mine is not None and _transactions >= _mine.transaction
            self._statements, self._changes_before = 0, self.total_changes
        elif sql == "COMMIT":
            self._wrote = self.total_changes > self._changes_before
            self._pass(BEFORE)
        elif self._armed:
            self._statements += 1
            self._pass(INSIDE)

    def _pass(self, point: str) -> None:
        if not self._armed or _mine is None or _mine.point != point:
            return
        if self._wrote if point != INSIDE else self._statements == _mine.statement:
            _mine.blow()
