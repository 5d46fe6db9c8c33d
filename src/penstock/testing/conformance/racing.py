"""Races between real processes on one store; only for engines that outlive a process."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable

import pytest

from penstock.model.states import State
from penstock.testing.conformance.trial import Conformance, EngineFactory
from penstock.testing.racers import DEADLINE_S, Report, counted


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
            [sys.executable, "-m", "penstock.testing.racers", url, name, role, str(count)],
            stdout=subprocess.PIPE,
            text=True,
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
