"""Ready and ended jobs stand in rows on Redis: many at a time, and each of them leaves alone."""

import random
from collections.abc import Callable, Iterator

import pytest

from penstock.engine import AddRequest, Cancel, Delete, Edit, Engine, Kick, Want, WorkerInfo
from penstock.engines.memory import MemoryEngine
from penstock.engines.redis.address import Address
from penstock.engines.redis.engine import RedisEngine
from penstock.model.job import Claim, JobId, NewJob, ProcessId
from penstock.model.outcome import Ending, Outcome
from penstock.model.settle import settle
from penstock.testing.clock import TurnedClock
from penstock.testing.conformance.trial import new_job
from tests.engines.test_redis import drop_keys
from tests.servers.redis import RedisServer

PROCESS = ProcessId("p1")
Step = Callable[[Engine], object]


@pytest.fixture
def engines(redis_server: RedisServer) -> Iterator[tuple[Engine, Engine, TurnedClock]]:
    clock = TurnedClock()
    address = Address("server", (("127.0.0.1", redis_server.port),))
    stored = RedisEngine(address, prefix="rows", clock=clock, max_ended=60)
    yield stored, MemoryEngine(clock, max_ended=60), clock
    stored.close()
    with redis_server.client() as client:
        drop_keys(client, "rows")


class Driver:
    """One engine, driven by steps that are drawn alike for each."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.chance = engine, random.Random(seed)
        self.beat, self.made = 0, 0
        self.held: list[Claim] = []
        self.ids: list[JobId] = []
        self.seen: list[object] = []
        engine.enrol(WorkerInfo(id="w"), [PROCESS])

    def step(self) -> None:
        self.chance.choice((self.add, self.add, self.exchange, self.exchange, self.exchange, self.alter, self.tend))()

    def add(self) -> None:
        jobs = tuple(self.new_job() for _ in range(self.chance.choice((1, 3, 20, 21, 70))))
        self.ids += [job.id for job in jobs]
        self.engine.add([AddRequest(jobs)])

    def new_job(self) -> NewJob:
        self.made += 1
        priority = self.chance.choice((0, 0, 0, 0, 0, 0, 0, 5, -100, 100))
        task = self.chance.choice(("t",) * 30 + ("u",))
        return new_job(JobId(f"{self.made:06}"), task=task, priority=priority)

    def exchange(self) -> None:
        self.beat += 1
        ended = Outcome(ending=Ending.SUCCEEDED, result=b"7")
        again = Outcome(ending=Ending.RELEASED)
        share = self.chance.randrange(len(self.held) + 1)
        changes = [settle(claim, self.chance.choice((ended, ended, again)), 0.0) for claim in self.held[:share]]
        size = self.chance.choice((0, 1, 2, 19, 20, 50))
        want = Want(tasks={"t": "thread", "u": "loop"}, free={"thread": size, "loop": 3}, limit=max(size, 1))
        answer = self.engine.exchange(PROCESS, self.beat, changes, want)
        self.held = self.held[share:] + list(answer.claims)
        self.seen.append([(claim.id, claim.fence.number, claim.priority) for claim in answer.claims])

    def alter(self) -> None:
        some = self.chance.sample(self.ids, min(len(self.ids), self.chance.choice((1, 7, 30))))
        what = self.chance.choice((Cancel(), Kick(), Delete(), Edit(priority=5)))
        self.seen.append([(one.before, one.after) for one in self.engine.alter(some, what)])

    def tend(self) -> None:
        tended = self.engine.tend(PROCESS, self.chance.choice((5, 1000)))
        self.seen.append((tended.expired, tended.pruned))


@pytest.mark.parametrize("seed", range(8))
def test_jobs_leave_rows_as_if_each_stood_alone(engines: tuple[Engine, Engine, TurnedClock], seed: int) -> None:
    stored, model, clock = engines
    pair = Driver(stored, seed), Driver(model, seed)
    for _ in range(60):
        for driver in pair:
            driver.step()
        assert pair[0].seen == pair[1].seen
        clock.turn(7)
    assert stored.counts() == model.counts()
    everything = pair[0].ids
    assert [job and (job.id, job.state) for job in stored.get(everything)] == [
        job and (job.id, job.state) for job in model.get(everything)
    ]
