"""A job of which something stored can no longer be read costs no other job anything."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from penstock.engine import Added, AddRequest, Delete, Edit, Engine, Filter, Kick, WorkerInfo
from penstock.engines.open import open_engine
from penstock.model.job import Claim, Details, JobId, ProcessId, Unique
from penstock.model.outcome import Ending
from penstock.model.retry import Fixed, Policy
from penstock.model.states import State
from penstock.testing.conformance.trial import change, new_job, want
from tests.servers.redis import RedisServer

P = ProcessId("p")
GOOD, BAD = JobId("good"), JobId("bad")
RETRIED = Policy(max_attempts=5, backoff=Fixed(every_s=0))

#: Overwrites the stored `details` or `counters` of the job `bad` with what is no JSON.
Spoil = Callable[[str], None]


@pytest.fixture(params=["sqlite", "redis", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Engine, Spoil]]:
    match request.param:
        case "sqlite":
            url = f"sqlite:///{tmp_path / 'store.db'}"
            spoil = _in_sqlite(tmp_path / "store.db")
        case "redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            url = f"{server.url}?prefix=damage-{tmp_path.name}"
            spoil = _in_redis(server, f"{{damage-{tmp_path.name}}}:")
        case _:
            url = request.getfixturevalue("postgres_server").empty_store()
            spoil = _in_postgres(url)
    engine = open_engine(url)
    engine.enrol(WorkerInfo(id="w"), [P])
    jobs = (new_job(id, policy=RETRIED, details=Details(("eu",), Unique(id), idempotency_key=id)) for id in (GOOD, BAD))
    engine.add([AddRequest(tuple(jobs))])
    yield engine, spoil
    engine.close()


def _in_sqlite(path: Path) -> Spoil:
    def spoil(column: str) -> None:
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(f"UPDATE jobs SET {column} = '#' WHERE id = ? AND {column} IS NOT NULL", (BAD,))

    return spoil


def _in_postgres(url: str) -> Spoil:
    def spoil(column: str) -> None:
        with psycopg.connect(url) as db:
            query = f"UPDATE penstock.jobs SET {column} = '#' WHERE id = %s AND {column} IS NOT NULL"
            db.execute(query.encode(), (BAD,))

    return spoil


def _in_redis(server: RedisServer, prefix: str) -> Spoil:
    def spoil(column: str) -> None:
        key, begin = (f"{prefix}jobs", b'{"tags"') if column == "details" else (f"{prefix}more", b'{"attempts"')
        with server.client() as client:
            stored = client.hget(key, BAD)
            client.hset(key, BAD, stored.replace(begin, b"#" + begin[1:]))

    return spoil


def claim(engine: Engine, beat: int, *changed: Claim, ending: Ending = Ending.FAILED) -> dict[JobId, Claim]:
    answer = engine.exchange(P, beat, [change(one, ending) for one in changed], want())
    return {one.id: one for one in answer.claims}


def test_job_with_unreadable_details_is_given_out_as_such_beside_the_others(store: tuple[Engine, Spoil]) -> None:
    engine, spoil = store
    spoil("details")
    claims = claim(engine, 1)
    assert {id: one.is_readable for id, one in claims.items()} == {GOOD: True, BAD: False}
    assert {job.id: job.details.tags for job in engine.find(Filter()).jobs} == {GOOD: ("eu",), BAD: ("unreadable",)}


def test_job_with_unreadable_counters_is_given_out_as_such_beside_the_others(store: tuple[Engine, Spoil]) -> None:
    engine, spoil = store
    first = claim(engine, 1)
    engine.exchange(P, 2, [change(one, Ending.FAILED) for one in first.values()], None)
    spoil("counters")
    claims = claim(engine, 3)
    assert {id: one.is_readable for id, one in claims.items()} == {GOOD: True, BAD: False}
    assert claims[GOOD].counters.failures == 1


@pytest.mark.parametrize("column", ["details", "counters"])
def test_damaged_job_can_be_mended_by_hand(store: tuple[Engine, Spoil], column: str) -> None:
    engine, spoil = store
    first = claim(engine, 1)
    engine.exchange(P, 2, [change(one, Ending.FAILED) for one in first.values()], None)
    spoil(column)
    claims = claim(engine, 3)
    buried = change(claims[BAD], Ending.FAILED, verdict="bury")
    engine.exchange(P, 4, [change(claims[GOOD]), buried], None)
    [altered] = engine.alter([BAD], Edit(priority=1) if column == "details" else Kick())
    assert (altered.before, altered.after) == (State.BURIED, State.READY)
    assert claim(engine, 5)[BAD].is_readable


def test_keys_of_a_damaged_job_are_free_once_it_is_forgotten(store: tuple[Engine, Spoil]) -> None:
    engine, spoil = store
    spoil("details")
    claims = claim(engine, 1)
    engine.exchange(P, 2, [change(claims[BAD], Ending.FAILED, verdict="bury")], None)
    [altered] = engine.alter([BAD], Delete())
    assert altered.after is None
    again = new_job("again", details=Details(unique=Unique(BAD), idempotency_key=BAD))
    assert engine.add([AddRequest((again,))]) == [[Added(again.id)]]
