"""What SQLite alone can do: the loops that enqueueing is held against, with every commit synced."""

import sqlite3
from pathlib import Path

from benchmarks.tasks import Order, receive
from penstock.task import new_id

__all__ = ["Bare"]

_TABLES = (
    "CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE jobs (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE ready (lane INT, rank INT, seq INT, id TEXT, PRIMARY KEY (lane, rank, seq)) WITHOUT ROWID",
    "CREATE TABLE counters (what INTEGER PRIMARY KEY, count INTEGER NOT NULL)",
    "INSERT INTO counters VALUES (0, 0), (1, 0)",
)


class Bare:
    """A file with a table to insert into, and three tables such as a queue needs at the least."""

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        for table in _TABLES:
            self._db.execute(table)
        self._body = receive.new_job((7, Order("ada@example.org", 4200)), {}).envelope

    def insert(self, count: int) -> None:
        """Store bodies as large as penstock's envelopes, each with a commit of its own."""
        for _ in range(count):
            self._db.execute("BEGIN")
            self._db.execute("INSERT INTO bodies (body) VALUES (?)", (self._body,))
            self._db.execute("COMMIT")

    def insert_jobs(self, count: int) -> None:
        """Store jobs by a text id, their places in line, and two counts, with nothing checked."""
        seq = self._db.execute("SELECT coalesce(max(seq), 0) FROM ready").fetchone()[0]
        for number in range(seq + 1, seq + 1 + count):
            id = new_id()
            self._db.execute("BEGIN")
            self._db.execute("INSERT INTO jobs VALUES (?, ?)", (id, self._body))
            self._db.execute("INSERT INTO ready VALUES (1, 0, ?, ?)", (number, id))
            self._db.execute("UPDATE counters SET count = count + 1")
            self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()
