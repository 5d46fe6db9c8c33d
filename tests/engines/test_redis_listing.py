"""The list of all ids, which the Redis engine keeps in pages."""

import random
from collections.abc import Iterator

import pytest

from penstock.engine import AddRequest, Delete, Engine, Filter
from penstock.engines.open import open_engine
from penstock.model.job import JobId
from penstock.testing.conformance.trial import new_job
from tests.servers.redis import RedisServer


@pytest.fixture
def engine(redis_server: RedisServer) -> Iterator[Engine]:
    engine = open_engine(redis_server.empty_store())
    yield engine
    engine.close()


def listed(engine: Engine) -> list[JobId]:
    found: list[JobId] = []
    page = engine.find(Filter(limit=700))
    while True:
        found += [job.id for job in page.jobs]
        if page.next is None:
            return found
        page = engine.find(Filter(limit=700, before=page.next))


@pytest.mark.parametrize("order", ["rising", "falling", "random"])
@pytest.mark.parametrize("at_once", [7, 1000])
def test_ids_are_listed_in_order_however_they_came_and_went(engine: Engine, order: str, at_once: int) -> None:
    chance = random.Random(f"{order} {at_once}")
    ids = [JobId(f"{number:05}-{'ü' if number % 3 else '-'}") for number in range(3000)]
    if order == "falling":
        ids.reverse()
    if order == "random":
        chance.shuffle(ids)
    for at in range(0, len(ids), at_once):
        engine.add([AddRequest(tuple(new_job(id) for id in ids[at : at + at_once]))])
    gone = set(chance.sample(ids, 2000))
    for at in range(0, 2000, 1000):
        engine.alter(sorted(gone)[at : at + 1000], Delete())
    left = sorted(set(ids) - gone, reverse=True)
    assert listed(engine) == left
    engine.alter(left, Delete())
    assert listed(engine) == []


def test_locale_of_the_server_does_not_order_ids(engine: Engine) -> None:
    ids = [JobId(id) for id in ("a", "B", "-b", "ä", "z", "Z", "a-", "0", "_", "aa")]
    engine.add([AddRequest((new_job(id),)) for id in ids])
    assert listed(engine) == sorted(ids, key=str.encode, reverse=True)
