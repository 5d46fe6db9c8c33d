"""The Redis engine does what the memory engine specifies."""

import itertools
from collections.abc import Iterator

import pytest
import redis
from hypothesis import settings

from penstock.engine import Clock
from penstock.engines.redis.address import Address
from penstock.engines.redis.engine import RedisEngine
from penstock.testing.conformance import EngineConformance, machine
from tests.servers.redis import RedisServer

_numbers = itertools.count(1)


class RedisFactory:
    """One prefix on a server; every handle is an engine of its own."""

    def __init__(self, server: RedisServer) -> None:
        self._server, self._prefix = server, f"store-{next(_numbers)}"
        self.url = f"{server.url}?prefix={self._prefix}"

    def make(self, clock: Clock | None, *, max_ended: int = 100_000) -> RedisEngine:
        address = Address("server", (("127.0.0.1", self._server.port),))
        return RedisEngine(address, prefix=self._prefix, clock=clock, max_ended=max_ended)

    def discard(self) -> None:
        with self._server.client() as client:
            drop_keys(client, self._prefix)


def drop_keys(client: "redis.Redis", prefix: str) -> None:
    keys = list(client.scan_iter(f"{{{prefix}}}:*", count=1000))
    if keys:
        client.delete(*keys)


class TestRedis(EngineConformance):
    TestWithin = None  # it declares no transactions

    @pytest.fixture
    def engine_factory(self, redis_server: RedisServer) -> Iterator[RedisFactory]:
        factory = RedisFactory(redis_server)
        yield factory
        factory.discard()


class Servers:
    """The session's server, for a machine that makes its stores itself."""

    running: RedisServer

    @classmethod
    def store(cls) -> RedisFactory:
        return RedisFactory(cls.running)


@pytest.fixture(autouse=True, scope="module")
def _server_of_the_machine(redis_server: RedisServer) -> None:
    Servers.running = redis_server


RedisAgainstMemory = machine(Servers.store)


class TestRedisAgainstMemory(RedisAgainstMemory.TestCase):
    settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(600)  # every look at the state is some hundred round trips
class TestRedisAgainstMemoryForLong(RedisAgainstMemory.TestCase):
    settings = settings(max_examples=15, stateful_step_count=60, deadline=None)


@pytest.mark.torture
@pytest.mark.timeout(7200)
class TestRedisAgainstMemoryForHours(RedisAgainstMemory.TestCase):
    settings = settings(settings.get_profile("drawn"), max_examples=5000, stateful_step_count=200, deadline=None)
