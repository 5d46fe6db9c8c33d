"""Races between real processes on one store; only for engines that outlive a process.

Each racer is this module run as a program, `python -m penstock.testing.conformance.racing URL NAME ROLE COUNT`, and
prints one JSON object at its end.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from penstock.engine import Added, AddRequest, Engine, Subject, Taken, Want, WorkerInfo
from penstock.engines.open import open_engine
from penstock.model.errors import LeaseLost
from penstock.model.job import Claim, Details, ProcessId, Unique
from penstock.model.outcome import Ending, Outcome
from penstock.model.settle import settle
from penstock.model.states import State
from penstock.testing.conformance.trial import Conformance, EngineFactory, change, new_job

DEADLINE_S = 60.0
LONG_LEASE_MS, SHORT_LEASE_MS = 60_000, 1000
WANT = Want(tasks={"t": "thread"}, free={"thread": 20, "process": 20}, limit=20)

Report = dict[str, Any]


class Racing(Conformance):
    """Skipped for a store that does not outlive its process."""

    @pytest.fixture
    def url(self, engine_factory: EngineFactory) -> str:
        if engine_factory.url is None:
            pytest.skip("the store does not outlive its process")
        return engine_factory.url

    @pytest.mark.slow
    def test_no_job_is_claimed_twice_and_none_is_lost(self, engine_factory: EngineFactory, url: str) -> None:
        total = 3 * 500
        adders = [(f"adder-{number}", "add", 500) for number in range(3)]
        workers = [(f"worker-{number}", "work", total) for number in range(3)]
        reports = race(url, [*adders, *workers])
        engine = engine_factory.make(None)
        claims = Counter(name for report in reports for name in report["claimed"])
        assert (len(claims), set(claims.values())) == (total, {1})
        assert counted(engine) == {State.SUCCEEDED: total}
        assert engine.describe().late_results == 0

    @pytest.mark.slow
    def test_jobs_that_many_add_at_once_are_stored_once(self, engine_factory: EngineFactory, url: str) -> None:
        reports = race(url, [(f"adder-{number}", "add_same", 200) for number in range(4)])
        assert sum(report["added"] for report in reports) == 200
        assert counted(engine_factory.make(None)) == {State.READY: 200}

    @pytest.mark.slow
    def test_unique_key_that_many_want_at_once_has_one_holder(self, engine_factory: EngineFactory, url: str) -> None:
        reports = race(url, [(f"adder-{number}", "add_unique", 100) for number in range(4)])
        assert sum(report["added"] for report in reports) == 100
        assert counted(engine_factory.make(None)) == {State.READY: 100}

    @pytest.mark.slow
    def test_jobs_of_killed_workers_are_done_by_the_others(self, engine_factory: EngineFactory, url: str) -> None:
        adders = [("adder", "add", 500)]
        victims = [(f"victim-{number}", "die", 500) for number in range(3)]
        race(url, [*adders, *victims])
        reports = race(url, [("survivor-0", "survive", 500), ("survivor-1", "survive", 500)])
        claims = Counter(name for report in reports for name in report["claimed"])
        assert set(claims.values()) == {1}
        assert sum(report["taken"] for report in reports) > 0
        engine = engine_factory.make(None)
        assert counted(engine) == {State.SUCCEEDED: 500}
        assert sum(view.running for view in engine.workers()) == 0


def race(url: str, racers: Iterable[tuple[str, str, int]]) -> list[Report]:
    """Run the racers at the same time and give what each of them reports; one that was killed reports nothing."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", __name__, url, name, role, str(count)], stdout=subprocess.PIPE, text=True
        )
        for name, role, count in racers
    ]
    try:
        outputs = [racer.communicate(timeout=DEADLINE_S)[0] for racer in started]
    finally:
        for racer in started:
            racer.kill()
            racer.wait()
    assert {racer.returncode for racer in started} <= {0, -signal.SIGKILL}
    return [json.loads(output) for output in outputs if output]


def counted(engine: Engine) -> dict[State, int]:
    """Give the number of jobs in each state, as the store kept count."""
    found: Counter[State] = Counter()
    for row in engine.counts():
        found.update(row.states)
    return dict(found)


# -- racers -----------------------------------------------------------------------------------------------------------


def add(engine: Engine, name: str, count: int) -> Report:
    """Add jobs of its own, a few in each call."""
    added = 0
    while added < count:
        jobs = [new_job(f"{name}-{added + number}") for number in range(min(random.randint(1, 9), count - added))]
        added += _added(engine.add([AddRequest((job,)) for job in jobs]))
    return {"added": added, "claimed": [], "taken": 0}


def add_same(engine: Engine, name: str, count: int) -> Report:  # noqa: ARG001
    """Add the jobs that all others add."""
    answers = [engine.add([AddRequest((new_job(f"same-{number}"),))]) for number in range(count)]
    return {"added": sum(map(_added, answers))}


def add_unique(engine: Engine, name: str, count: int) -> Report:
    """Add jobs of its own with the unique keys that all others use."""
    keys = [Details(unique=Unique(f"key-{number}")) for number in range(count)]
    jobs = [new_job(f"{name}-{number}", details=details) for number, details in enumerate(keys)]
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
            answer = self._engine.exchange(process, beat, [change(claim) for claim in held], WANT)
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


def _added(answers: list[Any]) -> int:
    new = [added for answer in answers for added in answer if isinstance(added, Added) and not added.existing]
    return len(new)


def main() -> None:
    """Run one racer as the arguments say."""
    url, name, role, count = sys.argv[1:]
    sys.stdout.write(json.dumps(ROLES[role](open_engine(url), name, int(count))))


if __name__ == "__main__":
    main()
