"""SIGKILL at random points of producers, workers and their supervisors: what was accepted is done, once and for all."""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from penstock.engine import WorkerInfo
from penstock.engines.open import open_engine
from penstock.model.job import ProcessId
from tests.conftest import lasting_server
from tests.histories import reading
from tests.histories.judging import judge
from tests.polling import await_true
from tests.servers.process import ServerProcess
from tests.torture import mines
from tests.torture.clock import SetClock, clock_that_can_be_set
from tests.torture.evidence import Evidence, damage_of_file
from tests.torture.records import ERRANDS, QUEUES, STORE
from tests.torture.torment import Kill, Torment

MOST_WAITING, MOST_ERRANDS = 2000, 60


class Store(NamedTuple):
    """A store to torment; `server` is its process, if it has one, and `clock` the clock of its machine."""

    url: str
    server: ServerProcess | None
    clock: SetClock | None


@pytest.fixture(params=["sqlite", "redis", "postgresql"])
def store(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with clock_that_can_be_set() as clock:
        if request.param == "sqlite":
            yield Store(f"sqlite:///{folder}/store.db", None, clock)
            return
        for name, value in (clock.environment if clock is not None else {}).items():
            monkeypatch.setenv(name, value)
        with lasting_server(request.param) as server:
            monkeypatch.setenv(STORE, server.url)
            yield Store(server.url, server, clock)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_hundred_kills_lose_nothing_and_accept_nothing_stale(folder: Path, store: Store) -> None:
    torment(folder, store, kills=300, jobs=20_000 if store.server is None else 6_000, operations=10_000)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_thousands_of_kills_lose_nothing_and_accept_nothing_stale(folder: Path, store: Store) -> None:
    torment(folder, store, kills=3000, jobs=100_000 if store.server is None else 40_000, operations=50_000)


def torment(folder: Path, store: Store, *, kills: int, jobs: int, operations: int) -> None:
    """Kill so often, while so many jobs are accepted, and judge a history of so many operations at least."""
    seed = os.environ.get("TORTURE_SEED") or str(random.SystemRandom().randrange(10**6))
    print(f"\nseed {seed}; $TORTURE_SEED sets it")
    _limit_queues(store.url)
    began = time.monotonic()
    with Torment(folder, seed, store.url, store.server, store.clock) as killer:
        killer.run(kills, jobs)
        killer.finish()
        assert killer.work_off(120), f"seed {seed}: jobs are left that no worker finishes"
    tormented = time.monotonic()
    late = _settle_leases(store.url)
    engine = open_engine(store.url)
    evidence = Evidence(folder, engine)
    reading.keep(folder, reading.see(engine), store.clock.jumps if store.clock is not None else ())
    engine.close()
    heard = (folder / "log").read_text(errors="replace").count("late result refused")
    report = "\n".join(
        [
            f"seed {seed}; {len(killer.kills)} kills on {store.url.partition(':')[0]}",
            *_table(killer.kills, evidence),
            f"{len(evidence.accepted_names()):,} jobs accepted, {len(evidence.ended):,} ended,"
            f" {sum(evidence.began.values()):,} runs; {late} late results refused, {heard} of them logged",
            f"besides kills: {dict(killer.troubles.made)}",
            f"{tormented - began:.0f} s of kills, {time.monotonic() - tormented:.0f} s to look",
        ]
    )
    print(report)
    print(_judged(folder, store, seed, operations))
    _assert_sound(evidence, report)
    if store.server is None:
        assert damage_of_file(folder / "store.db") == [], report
    _assert_telling(killer.kills, evidence, store, report)


def _judged(folder: Path, store: Store, seed: str, least: int) -> str:
    """Check what all processes have written down of what they asked of the store."""
    engine = store.url.partition(":")[0]
    again = f"TORTURE_SEED={seed} python -m pytest 'tests/torture/test_kills.py' -k 'three_hundred and {engine}'"
    line = judge(folder, engine, seed, again)
    assert int(line.partition(" ")[0].replace(",", "")) >= least, line
    return line


def _limit_queues(url: str) -> None:
    """Let producers stay ahead of the workers, but not by far."""
    engine = open_engine(url)
    for queue in QUEUES:
        engine.alter_queue(queue, max_jobs=MOST_WAITING)
    engine.alter_queue(ERRANDS, max_jobs=MOST_ERRANDS)
    engine.close()


def _settle_leases(url: str) -> int:
    """Let the leases of the killed lapse; give how many late results the store has refused."""
    engine, tender = open_engine(url), ProcessId("the last one")
    engine.enrol(WorkerInfo(id="the last one", lease_ms=60_000), [tender])
    await_true(lambda: not engine.tend(tender).taken and len(engine.workers()) == 1, "dead leases lapse")
    engine.renew(tender, [tender])
    late = engine.describe().late_results
    engine.close()
    return late


def _assert_sound(evidence: Evidence, report: str) -> None:
    assert evidence.unfinished == [], report
    assert Counter(job.state for job in evidence.ended.values()).keys() == {"succeeded"}, report
    assert evidence.accepted_names() <= evidence.ended.keys(), report
    assert {name for name, count in evidence.names.items() if count > 1} == set(), report
    assert evidence.torn() == [], report
    assert evidence.stale() == [], report
    assert evidence.counted == evidence.recounted, report
    assert (evidence.workers, evidence.held) == (["the last one"], 0), report


def _assert_telling(kills: Sequence[Kill], evidence: Evidence, store: Store, report: str) -> None:
    """The kills must have fallen on what they are meant to try, each of which is about three times as often."""
    assert sum(1 for kill in kills if kill.running or kill.undelivered) >= 15, report
    assert sum(1 for kill in kills if kill.waiting) >= 15, report
    if store.server is not None:
        assert sum(1 for kill in kills if kill.role == "store") >= 3, report
        return
    assert len(_unacknowledged(kills, evidence)) >= 3, report
    points = Counter(kill.point for kill in kills)
    assert all(points[point.replace(" ", "-")] >= 3 for point in mines.POINTS), report


def _unacknowledged(kills: Sequence[Kill], evidence: Evidence) -> set[int]:
    """Give the killed producers of which a commit stands that they never heard of."""
    producers = {evidence.attempted[batch][0] for batch in evidence.stored_unacknowledged()}
    return producers & {kill.pid for kill in kills if kill.role == "producer"}


def _table(kills: Sequence[Kill], evidence: Evidence) -> list[str]:
    """Say who was killed where, and what these kills found."""
    unacknowledged = _unacknowledged(kills, evidence)
    lines = [f"{'who':<12}{'where':<16}{'kills':>7}{'started':>9}{'claimed':>9}{'unheard':>9}"]
    for role, point in sorted({(kill.role, kill.point) for kill in kills}):
        these = [kill for kill in kills if (kill.role, kill.point) == (role, point)]
        started = sum(1 for kill in these if kill.running or kill.undelivered)
        claimed = sum(1 for kill in these if kill.waiting)
        unheard = sum(1 for kill in these if kill.pid in unacknowledged)
        lines.append(f"{role:<12}{point or 'anywhere':<16}{len(these):>7}{started:>9}{claimed:>9}{unheard:>9}")
    return lines
