"""The index of lines that have jobs, by which the Redis engine finds what to claim."""

import random
from collections.abc import Iterator

import pytest

from penstock.engine import AddRequest, Bury, Cancel, Delete, Edit, Engine, WorkerInfo
from penstock.engines.open import open_engine
from penstock.model.job import Details, JobId, Unique
from penstock.model.outcome import Ending
from penstock.model.retry import Policy
from penstock.testing.conformance.trial import P1, change, new_job, want
from tests.servers.redis import RedisServer


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    return redis_server.empty_store()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_engine(url)
    engine.enrol(WorkerInfo(id="w1"), [P1])
    yield engine
    engine.close()


def add_to(engine: Engine, *queues: str) -> None:
    for queue in queues:
        engine.add([AddRequest((new_job(queue=queue),))])


@pytest.mark.parametrize("queues", [None, (("q7", "q8"),)], ids=["any", "named"])
def test_claim_looks_at_no_more_lines_than_it_takes_jobs_from(
    redis_server: RedisServer, engine: Engine, queues: tuple[tuple[str, ...], ...] | None
) -> None:
    add_to(engine, *(f"q{number}" for number in range(200)))
    with redis_server.client() as client:
        client.config_resetstat()
        assert len(engine.exchange(P1, 1, (), want(limit=2, queues=queues)).claims) == 2
        calls = sum(told["calls"] for told in client.info("commandstats").values())
    assert calls < 60


def test_claim_goes_on_past_lines_that_are_not_for_it(engine: Engine) -> None:
    for number in range(100):
        engine.add([AddRequest((new_job(f"other-{number}", queue=f"q{number}", task="other"),))])
    engine.add([AddRequest((new_job("late", queue="q1"), new_job("paused", queue="held")))])
    engine.alter_queue("held", paused=True)
    tasks = {new_job("any").task: "thread"}
    assert [claim.id for claim in engine.exchange(P1, 1, (), want(tasks=tasks)).claims] == ["late"]


def test_paused_queues_are_out_of_the_way_and_come_back_as_they_were(
    redis_server: RedisServer, url: str, engine: Engine
) -> None:
    database = int(url.rpartition("/")[2])
    engine.add([AddRequest((new_job("first", queue="held"), new_job("gone", queue="empty"), new_job("b")))])
    for queue in ("held", "empty"):
        engine.alter_queue(queue, paused=True)
    assert [claim.id for claim in engine.exchange(P1, 1, (), want()).claims] == ["b"]
    assert index_of(redis_server, database) == {}
    engine.add(
        [AddRequest((new_job("c"), new_job("second", queue="held"), new_job("urgent", queue="held", priority=9)))]
    )
    engine.alter([JobId("gone")], Delete())
    oldest = {queue.name: queue.oldest_ms for queue in engine.queues()}
    assert oldest["held"] is not None
    assert [claim.id for claim in engine.exchange(P1, 2, (), want()).claims] == ["c"]
    for queue in ("held", "empty"):
        engine.alter_queue(queue, paused=False)
    assert index_of(redis_server, database) == heads_of(redis_server, database)
    claimed = engine.exchange(P1, 3, (), want()).claims
    assert [claim.id for claim in claimed] == ["urgent", "first", "second"]
    assert "aside" not in names_of_keys(redis_server, url)


def test_index_of_lines_says_where_each_begins(redis_server: RedisServer, url: str, engine: Engine) -> None:
    chance = random.Random(7)
    database = int(url.rpartition("/")[2])
    known: list[JobId] = []
    running = []
    for beat in range(1, 150):
        jobs = [
            new_job(f"{beat}-{at}", queue=chance.choice("abc"), priority=chance.choice([0, 0, 5, -5]))
            for at in range(chance.randrange(4))
        ]
        engine.add([AddRequest(tuple(jobs))] if jobs else [])
        known += [job.id for job in jobs]
        some = chance.sample(known, min(len(known), 2))
        engine.alter(some, chance.choice([Cancel(), Delete(), Edit(priority=9), Edit(queue="d")]))
        ending = chance.choice([Ending.SUCCEEDED, Ending.FAILED])
        done, running = running, []
        answer = engine.exchange(P1, beat, [change(claim, ending) for claim in done], want(limit=chance.randrange(4)))
        running = list(answer.claims)
        assert index_of(redis_server, database) == heads_of(redis_server, database)


def index_of(server: RedisServer, database: int) -> dict[bytes, float]:
    with server.client() as client:
        client.select(database)
        return {
            name.partition(b"\0")[0]: score for name, score in client.zrange("{penstock}:lines", 0, -1, withscores=True)
        }


def heads_of(server: RedisServer, database: int) -> dict[bytes, float]:
    with server.client() as client:
        client.select(database)
        keys = client.keys("{penstock}:line:*")
        return {key.rpartition(b":")[2]: client.zrange(key, 0, 0, withscores=True)[0][1] for key in keys}


# -- what is left of jobs that are gone -------------------------------------------------------------------------------


def names_of_keys(server: RedisServer, url: str) -> set[str]:
    with server.client() as client:
        client.select(int(url.rpartition("/")[2]))
        return {key.decode().partition(":")[2] for key in client.keys("*")}


@pytest.mark.parametrize("at_once", [1, 3])
def test_nothing_is_left_of_jobs_that_are_deleted(
    redis_server: RedisServer, url: str, engine: Engine, at_once: int
) -> None:
    jobs = [
        new_job(f"job-{at}", queue=f"q{at % 3}", policy=Policy(timeout_ms=1000 + at // 2), **more)
        for at, more in enumerate([{}, {"details": Details(unique=Unique("k"))}, {"delay_ms": 60_000}, {}, {}, {}])
    ]
    for at in range(0, len(jobs), at_once):
        engine.add([AddRequest(tuple(jobs[at : at + at_once]))])
    assert "policies" in names_of_keys(redis_server, url)
    [claim, *_] = engine.exchange(P1, 1, (), want(limit=1)).claims
    engine.exchange(P1, 2, [change(claim)], None)
    engine.alter([jobs[4].id], Bury("why"))
    engine.load(engine.get([jobs[5].id]))  # type: ignore[arg-type]  # it is there
    engine.alter([job.id for job in jobs], Delete())
    passing = {"beats", "leases", "meta", "processes", "workers", "forget"}  # what workers leave, and time takes away
    left = names_of_keys(redis_server, url) - passing
    assert {name for name in left if not name.startswith("news:")} == set()


def test_policy_is_kept_as_long_as_a_job_has_it(engine: Engine) -> None:
    policy = Policy(timeout_ms=1234)
    engine.add([AddRequest((new_job("a", policy=policy), new_job("b", policy=policy)))])
    engine.add([AddRequest((new_job("c", policy=policy),))])
    engine.alter([JobId("a"), JobId("b")], Delete())
    [job] = engine.get([JobId("c")])
    assert job is not None
    assert job.policy == policy


def test_refused_edit_leaves_no_lane_behind(redis_server: RedisServer, url: str, engine: Engine) -> None:
    unique = Details(unique=Unique("k"))
    engine.add([AddRequest((new_job("first", details=unique),))])
    engine.alter([JobId("first")], Bury("why"))
    engine.add([AddRequest((new_job("second", details=unique),))])
    [altered] = engine.alter([JobId("first")], Edit(queue="elsewhere"))
    assert "held by second" in str(altered.refused)
    with redis_server.client() as client:
        client.select(int(url.rpartition("/")[2]))
        assert client.hkeys("{penstock}:used") == [b"default"]
