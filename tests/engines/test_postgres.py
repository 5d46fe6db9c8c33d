"""The PostgreSQL engine does what the memory engine specifies."""

import itertools
import os
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import settings

from penstock.engine import Clock
from penstock.engines.postgres import PostgresEngine
from penstock.testing.conformance import EngineConformance, machine
from tests.servers.postgres import PostgresServer

_numbers = itertools.count(1)


class PostgresFactory:
    """One schema of its own; every handle is an engine of its own."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._schema = f"store_{os.getpid()}_{next(_numbers)}"
        self._made: list[PostgresEngine] = []
        self.url = f"{server_url}?schema={self._schema}"

    def make(self, clock: Clock | None, *, max_ended: int = 100_000) -> PostgresEngine:
        engine = PostgresEngine(self._server_url, schema=self._schema, shown=self.url, clock=clock, max_ended=max_ended)
        self._made.append(engine)
        return engine

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self._server_url)

    def discard(self) -> None:
        for engine in self._made:
            engine.close()
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE".encode())


class TestPostgres(EngineConformance):
    TestNotWithin = None  # it declares transactions

    @pytest.fixture
    def engine_factory(self, postgres_server: PostgresServer) -> Iterator[PostgresFactory]:
        factory = PostgresFactory(postgres_server.url)
        yield factory
        factory.discard()


@pytest.fixture(scope="module", autouse=True)
def _server_of_the_machine(postgres_server: PostgresServer) -> None:
    """Tell the machine, which makes its stores itself, where the server is."""
    PostgresAgainstMemory.make_store = lambda: PostgresFactory(postgres_server.url)


PostgresAgainstMemory = machine(lambda: PostgresFactory(""))


class TestPostgresAgainstMemory(PostgresAgainstMemory.TestCase):
    settings = settings(max_examples=15, stateful_step_count=40, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestPostgresAgainstMemoryForLong(PostgresAgainstMemory.TestCase):
    settings = settings(max_examples=6, stateful_step_count=60, deadline=None)


@pytest.mark.torture
@pytest.mark.timeout(7200)
class TestPostgresAgainstMemoryForHours(PostgresAgainstMemory.TestCase):
    settings = settings(settings.get_profile("drawn"), max_examples=5000, stateful_step_count=200, deadline=None)
