"""The list of all ids, which the Redis engine keeps in pages."""

import random
from collections.abc import Iterator

import pytest

from penstock.engine import AddRequest, Cancel, Delete, Engine, Filter
from penstock.engines.open import open_engine
from penstock.model.job import JobId
from penstock.model.states import State
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


def test_ids_that_rise_in_bulk_find_their_place_before_one_that_came_alone(engine: Engine) -> None:
    ids = [JobId(f"{number:05}") for number in range(0, 1500)]
    engine.add([AddRequest(tuple(new_job(id) for id in ids[:500]))])
    engine.add([AddRequest(tuple(new_job(id) for id in ids[500:900]))])
    engine.alter(ids[890:900], Delete())
    for id in ids[1490:]:
        engine.add([AddRequest((new_job(id),))])
    engine.add([AddRequest(tuple(new_job(id) for id in ids[900:1490]))])
    assert listed(engine) == sorted({*ids} - {*ids[890:900]}, reverse=True)
    for at in (0, 1000):
        engine.alter(ids[at : at + 1000], Delete())
    assert listed(engine) == []


def test_locale_of_the_server_does_not_order_ids(engine: Engine) -> None:
    ids = [JobId(id) for id in ("a", "B", "-b", "ä", "z", "Z", "a-", "0", "_", "aa")]
    engine.add([AddRequest((new_job(id),)) for id in ids])
    assert listed(engine) == sorted(ids, key=str.encode, reverse=True)


def bodies_read(server: RedisServer, engine: Engine, which: Filter) -> int:
    """Count the jobs that the server reads for a page."""
    with server.client() as client, client.monitor() as monitor:
        engine.find(which)
        client.echo("that was all")
        read = 0
        for told in monitor.listen():
            words = told["command"].split()
            if words[0] == "ECHO":
                return read
            if words[0] == "HMGET" and words[1].endswith(":jobs"):
                read += len(words) - 2
    raise AssertionError("the server tells no more")


@pytest.mark.parametrize(
    "which",
    [
        Filter(limit=1),
        Filter(limit=1, queue="default"),
        Filter(limit=1, text="job"),
        Filter(limit=1, states=frozenset({State.READY})),
        Filter(limit=1, states=frozenset({State.CANCELLED})),
        Filter(limit=1, ids=tuple(JobId(f"job-{number:04}") for number in range(1000))),
    ],
    ids=["all", "queue", "text", "ready", "ended", "ids"],
)
def test_page_of_one_job_is_not_worth_a_thousand(redis_server: RedisServer, engine: Engine, which: Filter) -> None:
    ids = [JobId(f"job-{number:04}") for number in range(1000)]
    engine.add([AddRequest(tuple(new_job(id) for id in ids))])
    engine.alter(ids[::2], Cancel())
    assert bodies_read(redis_server, engine, which) <= 20


@pytest.mark.parametrize("limit", [1, 10, 1000])
@pytest.mark.parametrize("text", [None, "77-"])
def test_selective_filter_finds_what_is_far_behind(engine: Engine, limit: int, text: str | None) -> None:
    rare = [JobId(f"{number:04}7-") for number in range(0, 5000, 700)]
    ids = [JobId(f"{number:04}-") for number in range(5000)]
    for at in range(0, 5000, 500):
        mine = [new_job(id, queue="rare") for id in rare if at <= int(id[:4]) < at + 500]
        engine.add([AddRequest((*(new_job(id) for id in ids[at : at + 500]), *mine))])
    found, before = [], None
    while True:
        page = engine.find(Filter(limit=limit, before=before, queue=None if text else "rare", text=text))
        found += [job.id for job in page.jobs]
        before = page.next
        if before is None:
            break
    assert found == sorted([id for id in ids if text in id] if text else rare, reverse=True)
