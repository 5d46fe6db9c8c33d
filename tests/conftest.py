"""How Hypothesis draws, and the servers that tests share."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerProcess
from tests.servers.programs import ServerMissing
from tests.servers.redis import RedisServer

_T = TypeVar("_T")

# A run of the tests says the same each time; what is drawn anew at each run is in the torture tests.
settings.register_profile("fixed", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("drawn", max_examples=1000, deadline=None)
settings.load_profile("fixed")

# Hundreds of processes are started. Where the environment forbids to write bytecode, each would compile all that it
# imports, which is half of its time; it is written where it is in nobody's way.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[1] / "build" / "bytecode")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first, so that the end of a run in several processes is not one test that all wait for."""
    items.sort(key=lambda item: "tests/torture/test_kills.py" not in item.nodeid)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis that all tests of one process share: each uses keys of its own prefix. It keeps nothing on disk."""
    with tempfile.TemporaryDirectory(prefix="penstock-redis-") as folder:
        server = RedisServer(Path(folder))
        start(server)
        yield server
        server.kill()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL that all tests of one process share: each uses a schema of its own. Its commits are not synced."""
    with tempfile.TemporaryDirectory(prefix="penstock-postgres-") as folder:
        server = PostgresServer(Path(folder), fsync="off", synchronous_commit="off", full_page_writes="off")
        start(server)
        yield server
        server.kill()


@contextmanager
def lasting_server(engine: str) -> Iterator[ServerProcess]:
    """Start a server for one test, which loses nothing when it is killed: each commit is synced."""
    with tempfile.TemporaryDirectory(prefix=f"penstock-{engine}-") as folder:
        server: ServerProcess = (
            RedisServer(Path(folder), appendonly="yes", appendfsync="always")
            if engine == "redis"
            else PostgresServer(Path(folder))
        )
        start(server)
        try:
            yield server
        finally:
            server.kill()


def start(server: ServerProcess) -> None:
    """Start a server; without its program, tests fail with the way out, unless they were told to do without."""
    found(server.start)


def found(seek: Callable[[], _T]) -> _T:
    """Give what needs a program that may not be installed."""
    try:
        return seek()
    except ServerMissing as missing:
        if os.environ.get("PENSTOCK_TEST_WITHOUT_SERVERS") == "1":
            pytest.skip(str(missing))
        raise
