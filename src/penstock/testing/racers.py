"""Processes that race on one store, each started as `python -m penstock.testing.racers URL NAME ROLE COUNT`.

A racer prints one JSON object at its end. It stands outside the conformance suite, because importing any part of that
imports pytest and Hypothesis, which takes longer than many a race.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from penstock.engine import Added, AddRequest, Engine, Subject, Taken, Want, WorkerInfo
from penstock.engines.open import open_engine
from penstock.model.errors import LeaseLost
from penstock.model.job import Change, Claim, Details, JobId, NewJob, ProcessId, Unique
from penstock.model.outcome import Ending, Outcome
from penstock.model.settle import settle
from penstock.model.states import State

__all__ = ["DEADLINE_S", "Report", "counted"]

DEADLINE_S = 60.0
LONG_LEASE_MS, SHORT_LEASE_MS = 60_000, 1000
WANT = Want(tasks={"t": "thread"}, free={"thread": 20, "process": 20}, limit=20)

Report = dict[str, Any]


def counted(engine: Engine) -> dict[State, int]:
    """Give the number of jobs in each state, as the store kept count."""
    found: Counter[State] = Counter()
    for row in engine.counts():
        found.update(row.states)
    return dict(found)


def add(engine: Engine, name: str, count: int) -> Report:
    """Add jobs of its own, a few in each call."""
    added = 0
    while added < count:
        jobs = [_new_job(f"{name}-{added + number}") for number in range(min(random.randint(1, 9), count - added))]
        added += _added(engine.add([AddRequest((job,)) for job in jobs]))
    return {"added": added, "claimed": [], "taken": 0}


def add_same(engine: Engine, name: str, count: int) -> Report:  # noqa: ARG001
    """Add the jobs that all others add."""
    answers = [engine.add([AddRequest((_new_job(f"same-{number}"),))]) for number in range(count)]
    return {"added": sum(map(_added, answers))}


def add_unique(engine: Engine, name: str, count: int) -> Report:
    """Add jobs of its own with the unique keys that all others use."""
    keys = [Details(unique=Unique(f"key-{number}")) for number in range(count)]
    jobs = [_new_job(f"{name}-{number}", details=details) for number, details in enumerate(keys)]
    return {"added": sum(_added(engine.add([AddRequest((job,))])) for job in jobs)}


def work(engine: Engine, name: str, count: int) -> Report:
    """Work under a long lease until all jobs have succeeded."""
    return Racer(engine, name, LONG_LEASE_MS).run(count)


def survive(engine: Engine, name: str, count: int) -> Report:
    """Work under a short lease, and take over what others leave."""
    return Racer(engine, name, SHORT_LEASE_MS).run(count)


def die(engine: Engine, name: str, count: int) -> Report:
    """Claim twice and be killed with jobs in hand, before or after half of them were delivered."""
    return Racer(engine, name, SHORT_LEASE_MS, dies=True).run(count)


ROLES = {role.__name__: role for role in (add, add_same, add_unique, work, survive, die)}


class Racer:
    """One process that claims, ends what it claimed, and tends the store."""

    def __init__(self, engine: Engine, name: str, lease_ms: int, *, dies: bool = False) -> None:
        self._engine, self._name, self._lease_ms, self._dies = engine, name, lease_ms, dies
        self._lives = 0
        self._claimed: list[str] = []
        self._taken = 0

    def run(self, count: int) -> Report:
        """Work until `count` jobs have succeeded."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline and counted(self._engine).get(State.SUCCEEDED, 0) < count:
            try:
                self._live(count)
            except LeaseLost:
                continue
        return {"added": 0, "claimed": self._claimed, "taken": self._taken}

    def _live(self, count: int) -> None:
        """Work under a lease of its own until it is lost or all is done."""
        self._lives += 1
        process, beat = ProcessId(f"{self._name}-{self._lives}"), 0
        self._engine.enrol(WorkerInfo(id=self._name, lease_ms=self._lease_ms), [process])
        held: list[Claim] = []
        while counted(self._engine).get(State.SUCCEEDED, 0) < count:
            beat += 1
            answer = self._engine.exchange(process, beat, [_succeeded(claim) for claim in held], WANT)
            held = list(answer.claims)
            self._claimed += [f"{claim.id} {claim.fence.number}" for claim in held]
            if self._dies and beat > 1 and held:
                os.kill(os.getpid(), signal.SIGKILL)
            self._engine.renew(process, [])
            beat = self._settle_taken(process, beat, self._engine.tend(process).taken)
            if not held:
                self._engine.wait(Subject(queues=()), answer.mark, 0.1)

    def _settle_taken(self, process: ProcessId, beat: int, taken: Sequence[Taken]) -> int:
        self._taken += len(taken)
        if not taken:
            return beat
        changes = [settle(one.claim, Outcome(ending=Ending(one.fate), started=False), 0.5) for one in taken]
        self._engine.exchange(process, beat + 1, changes, None)
        return beat + 1


def _new_job(id: str, **fields: Any) -> NewJob:
    return NewJob(id=JobId(id), task="t", envelope=b'{"v":1,"task":"t","args":[1]}', **fields)


def _succeeded(claim: Claim) -> Change:
    return settle(claim, Outcome(ending=Ending.SUCCEEDED, result=b'"done"'), 1.0)


def _added(answers: list[Any]) -> int:
    new = [added for answer in answers for added in answer if isinstance(added, Added) and not added.existing]
    return len(new)


def main() -> None:
    """Run one racer as the arguments say."""
    url, name, role, count = sys.argv[1:]
    sys.stdout.write(json.dumps(ROLES[role](open_engine(url), name, int(count))))


if __name__ == "__main__":
    main()
