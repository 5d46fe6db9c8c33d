"""Where the stores of a measurement are: files, or private servers with a store for each measurement."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count as numbers
from pathlib import Path
from typing import Any, Protocol

__all__ = ["STORES", "Place", "file_of", "open_place"]

STORES = ("sqlite", "redis", "postgresql")

#: What most use who want to keep their jobs: synced once a second. A number of databases that no run reaches. Its file
#: is not rewritten meanwhile, since that would fall on whoever is measured when the file has doubled.
_REDIS_SETTINGS: dict[str, str | int] = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "auto_aof_rewrite_percentage": 0,
    "databases": 5000,
}
_POSTGRES_FACTS = ("server_version", "synchronous_commit", "fsync", "shared_buffers", "max_wal_size")


class Place(Protocol):
    """Where one kind of store is."""

    def make(self, name: str) -> str:
        """Give the URL of a store that nothing has touched; its name is for those who look at the place."""

    def remove(self, url: str) -> None:
        """Delete a store with all that is in it, whoever is still connected."""

    def facts(self) -> dict[str, object]:
        """Say what it is and how durable."""


def open_place(store: str, folder: Path) -> AbstractContextManager[Place]:
    """Start what a kind of store needs, and end it with the block."""
    place = folder / store
    place.mkdir()
    return {"redis": _redis, "postgresql": _postgresql, "sqlite": _sqlite}[store](place)


def file_of(url: str) -> Path | None:
    """Give the file that a store is; None if it is on a server."""
    scheme, _, path = url.partition(":///")
    return Path(path.partition("?")[0]) if scheme == "sqlite" else None


class _Sqlite:
    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, numbers()

    def make(self, name: str) -> str:
        return f"sqlite:///{self._folder}/{next(self._numbers)}-{name}.db"

    def remove(self, url: str) -> None:
        file = file_of(url)
        assert file is not None, f"{url} is no file"
        for path in file.parent.glob(f"{file.name}*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def facts(self) -> dict[str, object]:
        return {"version": sqlite3.sqlite_version, "journal_mode": "wal", "synchronous": "FULL"}


@contextmanager
def _sqlite(folder: Path) -> Iterator[Place]:
    yield _Sqlite(folder)


class _Redis:
    def __init__(self, server: Any) -> None:
        self._server, self._numbers = server, numbers(1)

    def make(self, name: str) -> str:  # noqa: ARG002
        return str(self._server.url).removesuffix("/0") + f"/{next(self._numbers)}"

    def remove(self, url: str) -> None:
        import redis

        with redis.Redis.from_url(url.partition("?")[0]) as client:
            client.flushdb()

    def facts(self) -> dict[str, object]:
        with self._server.client() as client:
            found = client.config_get("append*")
            version = client.info("server")["redis_version"]
            rewrites = client.config_get("auto-aof-rewrite-percentage")
        return {
            "version": version,
            "appendonly": found["appendonly"],
            "appendfsync": found["appendfsync"],
            **rewrites,
        }


@contextmanager
def _redis(folder: Path) -> Iterator[Place]:
    from tests.servers.redis import RedisServer

    server = RedisServer(folder, **_REDIS_SETTINGS)
    server.start()
    try:
        yield _Redis(server)
    finally:
        server.kill()


class _Postgres:
    def __init__(self, server: Any, db: Any) -> None:
        self._server, self._db, self._numbers = server, db, numbers(1)

    def make(self, name: str) -> str:
        database = f"{name}_{next(self._numbers)}".replace("-", "_").lower()
        self._db.execute(f'CREATE DATABASE "{database}"')
        return str(self._server.url).removesuffix("/postgres") + f"/{database}"

    def remove(self, url: str) -> None:
        """Leave no writing to do for the measurement that comes next."""
        database = url.partition("?")[0].rpartition("/")[2]
        self._db.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
        self._db.execute("CHECKPOINT")

    def facts(self) -> dict[str, object]:
        return {name: self._db.execute(f"SHOW {name}").fetchone()[0] for name in _POSTGRES_FACTS}


@contextmanager
def _postgresql(_: Path) -> Iterator[Place]:
    """Run PostgreSQL with its defaults: every commit is synced.

    It has a folder of its own, because another account than ours runs it if we are root.
    """
    import psycopg

    from tests.servers.postgres import PostgresServer

    with tempfile.TemporaryDirectory(prefix="penstock-postgres-") as place:
        server = PostgresServer(Path(place))
        server.start()
        try:
            with psycopg.connect(server.url, autocommit=True) as db:
                yield _Postgres(server, db)
        finally:
            server.kill()
