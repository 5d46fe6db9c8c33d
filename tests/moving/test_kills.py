"""SIGKILL of the command at random moments, between real stores, until the move is done."""

import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from penstock.engine import Filter, Kick
from penstock.engines.open import open_engine
from penstock.model.states import State
from tests.cli.desk import command
from tests.moving.jobs import Worker, fill, stored
from tests.moving.routes import Route

JOBS = 3000
MOST_KILLS = 60
CARRIED = frozenset({State.READY, State.SCHEDULED, State.BURIED})


@pytest.mark.slow
def test_killed_moves_end_with_every_job_in_the_target_as_it_was(route: Route) -> None:
    with closing(open_engine(route.source)) as source, closing(open_engine(route.target)) as target:
        fill(source, JOBS)
        before = stored(source, Filter(states=CARRIED))
        kills = sum(1 for _ in move_under_fire(route))
        assert kills > 3
        assert stored(target) == before
        assert not stored(source, Filter(states=CARRIED))
        assert {job.state for job in stored(source).values()} <= {State.SUCCEEDED, State.CANCELLED}
        assert not [queue.name for queue in target.queues() if queue.name.startswith("moving-")]


@pytest.mark.slow
def test_each_job_runs_once_while_workers_work_and_moves_are_killed(route: Route) -> None:
    with closing(open_engine(route.source)) as source, closing(open_engine(route.target)) as target:
        fill(source, JOBS)
        before = stored(source, Filter(states=CARRIED))
        here, there = Worker(source, "here"), Worker(target, "there")
        for _ in move_under_fire(route):
            there.run()
            for claim in here.claim(50):
                here.end(claim)
        target.alter([*stored(target, Filter(states=frozenset({State.SCHEDULED})))], Kick())
        there.run()
        ran = here.ran + there.ran
        assert ran == Counter(id for id, job in before.items() if job.state is not State.BURIED)
        assert {job.state for job in stored(target).values()} == {State.SUCCEEDED, State.BURIED}


def move_under_fire(route: Route) -> Iterator[None]:
    """Start the move again and again and kill it, at first early, then later; yields after each kill."""
    dice = random.Random(7)
    for attempt in range(MOST_KILLS):
        with command("move", route.source, route.target, "--json") as process:
            try:
                told = process.communicate(timeout=dice.uniform(0.15, 0.3 + max(0, attempt - 10) * 0.1))
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
            else:
                assert process.returncode == 0, told
                return
        yield
    raise AssertionError("no move came to its end")
