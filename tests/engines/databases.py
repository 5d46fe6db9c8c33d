"""A database of the user's, in which an outbox stands: an SQLite file, or a schema of a PostgreSQL."""

import itertools
import sqlite3
import time
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import psycopg
from psycopg.rows import dict_row

from penstock.engines.open import open_outbox
from penstock.outbox import Outbox

_schemas = itertools.count(1)


class Database(Protocol):
    """What a test needs of it.

    Attributes:
        url: as the setting `outbox` has it; `sqlalchemy_url` names the same for SQLAlchemy.
    """

    url: str
    sqlalchemy_url: str

    def connect(self) -> Any:
        """Give a new connection of the driver, set in an unusual way, with a table `orders (id)`."""
        ...

    def pass_time(self, ms: int) -> None:
        """Let so much time pass for the rows."""
        ...

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Do a statement on a connection of its own, and commit."""
        ...


class SqliteDatabase:
    def __init__(self, path: Path, journal_mode: str = "delete") -> None:
        self.path = path
        self.url, self.sqlalchemy_url = f"sqlite:///{path}", f"sqlite:///{path}"
        self.execute(f"PRAGMA journal_mode = {journal_mode}")
        self.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path)
        connection.row_factory = sqlite3.Row
        connection.text_factory = bytes
        return connection

    def pass_time(self, ms: int) -> None:
        self.execute(f"UPDATE penstock_outbox SET next_ms = next_ms - {ms}, added_ms = added_ms - {ms}")

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.path)
        try:
            with connection:
                return connection.execute(statement).fetchall()
        finally:
            connection.close()


class PostgresDatabase:
    def __init__(self, url: str) -> None:
        self._schema = f"app_{time.time_ns()}_{next(_schemas)}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {self._schema}".encode())
        query = f"options={quote(f'-csearch_path={self._schema}')}"
        self.url = f"{url}?{query}"
        self.sqlalchemy_url = self.url.replace("postgresql://", "postgresql+psycopg://")
        self.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, row_factory=dict_row)

    def pass_time(self, ms: int) -> None:
        self.execute(f"UPDATE penstock_outbox SET next_ms = next_ms - {ms}, added_ms = added_ms - {ms}")

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


def made(database: Database) -> Outbox:
    """Open the outbox of a database and make its table."""
    outbox = open_outbox(database.url)
    outbox.make()
    return outbox
