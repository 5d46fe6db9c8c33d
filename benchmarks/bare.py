"""What the stores alone can do one by one: the loops that enqueueing is held against, as durable as penstock's."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

from benchmarks.bench import Bench
from penstock.task import new_id

__all__ = ["opened"]

#: What enqueues so many, one by one.
Runs = dict[str, Callable[[int], None]]

_TABLES = (
    "CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE jobs (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE ready (lane INT, rank INT, seq INT, id TEXT, PRIMARY KEY (lane, rank, seq)) WITHOUT ROWID",
    "CREATE TABLE counters (what INTEGER PRIMARY KEY, count INTEGER NOT NULL)",
    "INSERT INTO counters VALUES (0, 0), (1, 0)",
)


def opened(bench: Bench, body: bytes) -> AbstractContextManager[Runs]:
    """Give the loops for a kind of store; each stores this body."""
    return {"sqlite": _sqlite, "redis": _redis, "postgresql": _postgresql}[bench.store](bench, body)


@contextmanager
def _sqlite(bench: Bench, body: bytes) -> Iterator[Runs]:
    with closing(sqlite3.connect(bench.file(f"bare-{new_id()}"), isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        for table in _TABLES:
            db.execute(table)
        yield {"bare": lambda count: _insert(db, body, count), "bare.jobs": lambda count: _insert_jobs(db, body, count)}


def _insert(db: sqlite3.Connection, body: bytes, count: int) -> None:
    """Store bodies, each with a commit of its own."""
    for _ in range(count):
        db.execute("BEGIN")
        db.execute("INSERT INTO bodies (body) VALUES (?)", (body,))
        db.execute("COMMIT")


def _insert_jobs(db: sqlite3.Connection, body: bytes, count: int) -> None:
    """Store jobs by a text id, their places in line, and two counts, with nothing checked."""
    seq = db.execute("SELECT coalesce(max(seq), 0) FROM ready").fetchone()[0]
    for number in range(seq + 1, seq + 1 + count):
        id = new_id()
        db.execute("BEGIN")
        db.execute("INSERT INTO jobs VALUES (?, ?)", (id, body))
        db.execute("INSERT INTO ready VALUES (1, 0, ?, ?)", (number, id))
        db.execute("UPDATE counters SET count = count + 1")
        db.execute("COMMIT")


@contextmanager
def _redis(bench: Bench, body: bytes) -> Iterator[Runs]:
    import redis

    def push(count: int) -> None:
        for _ in range(count):
            client.lpush("bodies", body)

    url = bench.place.make("bare")
    with redis.Redis.from_url(url) as client:
        yield {"bare": push}
    bench.place.remove(url)


@contextmanager
def _postgresql(bench: Bench, body: bytes) -> Iterator[Runs]:
    import psycopg

    def insert(count: int) -> None:
        for _ in range(count):
            db.execute("INSERT INTO bodies (body) VALUES (%s)", (body,))

    url = bench.place.make("bare")
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("CREATE TABLE bodies (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, body bytea NOT NULL)")
        yield {"bare": insert}
    bench.place.remove(url)
