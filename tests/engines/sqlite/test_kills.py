"""SIGKILL at random points of writing: what was accepted stands, and every request is whole or absent."""

import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from penstock.engines.sqlite import SqliteEngine
from penstock.model.job import Change
from penstock.testing.conformance.trial import change, new_job, want
from tests.engines.sqlite.children import Child, tell
from tests.engines.sqlite.jobs import add, all_jobs, assert_sound, enrol, opened

KILLS = 100
WRITERS = 3
JOBS_PER_REQUEST = 7


@pytest.mark.slow
def test_hundred_kills_of_writers_lose_nothing_and_leave_no_half_request(tmp_path: Path) -> None:
    path, dice = tmp_path / "store.db", random.Random(7)
    keeper = opened(path)
    keeper.counts()
    told = Told()
    with Child(keep_writers, str(path)) as nursery:
        for kill in range(KILLS):
            for _ in range(dice.randrange(1, 20)):
                told.hear(nursery.heard())
            while len(told.living) < WRITERS:
                told.hear(nursery.heard())
            wait_for_no_good_moment(dice)
            victim = dice.choice(sorted(told.living))
            told.living.remove(victim)
            os.kill(victim, signal.SIGKILL)
            if kill % 50 == 49:
                assert_nothing_is_lost(keeper, told)
        while told.ended < KILLS:
            told.hear(nursery.heard())
    assert_nothing_is_lost(keeper, told)
    assert len(told.accepted) > KILLS * JOBS_PER_REQUEST
    assert told.finished
    keeper.close()
    assert_sound(path)


class Told:
    """What the writers have heard from the store, and which of them live."""

    def __init__(self) -> None:
        self.living: set[int] = set()
        self.ended = 0
        self.accepted: set[str] = set()
        self.finished: set[str] = set()

    def hear(self, line: tuple[str, object]) -> None:
        kind, what = line
        match kind:
            case "accepted":
                self.accepted.update(what)  # type: ignore[call-overload]
            case "finished":
                self.finished.update(what)  # type: ignore[call-overload]
            case "started":
                self.living.add(what)  # type: ignore[arg-type]
            case "ended":
                self.ended += 1


def wait_for_no_good_moment(dice: random.Random) -> None:
    """Let up to about a request's time pass, so that each kill falls on another point of it."""
    for _ in range(dice.randrange(20_000)):
        dice.random()


def assert_nothing_is_lost(engine: SqliteEngine, told: Told) -> None:
    jobs = list(all_jobs(engine))
    assert told.accepted <= {job.id for job in jobs}
    assert told.finished <= {job.id for job in jobs if job.state.is_final}
    assert set(Counter(job.id.rpartition(".")[0] for job in jobs).values()) <= {JOBS_PER_REQUEST}


# -- children ---------------------------------------------------------------------------------------------------------


def keep_writers(path: str) -> None:
    """Fork writers, and another for each that was killed."""
    for number in range(WRITERS + KILLS):
        if number >= WRITERS:
            tell(["ended", os.wait()[0]])
        writer = os.fork()
        if not writer:
            write_until_killed(path, f"writer {number}")
        tell(["started", writer])
    os.wait()


def write_until_killed(path: str, name: str) -> None:
    nursery, engine = os.getppid(), opened(path)
    process = enrol(engine, name)
    changes: tuple[Change, ...] = ()
    beat = 0
    while os.getppid() == nursery:
        beat += 1
        jobs = [new_job(f"{name}-{beat}.{number}") for number in range(JOBS_PER_REQUEST)]
        add(engine, *jobs)
        tell(["accepted", [job.id for job in jobs]])
        claims = engine.exchange(process, beat, changes, want(limit=5)).claims
        tell(["finished", [one.id for one in changes]])
        changes = tuple(change(claim) for claim in claims)
    os._exit(0)
