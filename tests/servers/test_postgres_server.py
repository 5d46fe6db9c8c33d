"""The tests' own PostgreSQL freezes and dies as a whole: its sessions are processes in groups of their own."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.conftest import start
from tests.servers.postgres import PostgresServer
from tests.servers.process import DEADLINE_S, children_of, state_of


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="penstock-postgres-") as folder:
        server = PostgresServer(Path(folder), fsync="off")
        start(server)
        yield server
        server.kill()


def test_sessions_are_frozen_and_thawed_with_their_server(server: PostgresServer) -> None:
    with psycopg.connect(server.url) as session:
        server.freeze()
        assert session.info.backend_pid in children_of(server.pid)
        deadline = time.monotonic() + DEADLINE_S
        while {state_of(pid) for pid in [server.pid, *children_of(server.pid)]} != {"T"}:
            assert time.monotonic() < deadline
        server.thaw()
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_sessions_die_with_their_server_which_starts_again_at_once(server: PostgresServer) -> None:
    session = psycopg.connect(server.url)
    children = children_of(server.pid)
    assert session.info.backend_pid in children
    server.kill()
    assert {state_of(pid) for pid in children} <= {None, "Z"}
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    server.start()
    assert server.answers()
    session.close()
