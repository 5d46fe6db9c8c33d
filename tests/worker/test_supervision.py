"""Heartbeat, maintenance and verdicts, on the memory engine: what becomes of the jobs of those that ended."""

import itertools
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.engine import Death, Engine, Renewed, Taken, Want, WorkerInfo
from penstock.engines.memory import MemoryEngine
from penstock.engines.sqlite import SqliteEngine
from penstock.model.errors import EngineBusy, EngineDown
from penstock.model.job import Claim, JobId, ProcessId
from penstock.model.outcome import Ending
from penstock.model.states import State
from penstock.testing.clock import TurnedClock
from penstock.worker.board import Board
from penstock.worker.forensics import Remains
from penstock.worker.heart import DrainAsked, Enrolled, Heart, News, NothingLeft, Voided
from penstock.worker.patience import LONGEST_S, Patience
from penstock.worker.queues import groups, read_queues
from penstock.worker.scene import survey
from penstock.worker.tender import SCENES_KEPT, Tender
from penstock.worker.tending import LAPSE_REST_S, Tending
from penstock.worker.verdict import STOPPED, Verdict, outcome_of
from tests.polling import await_true
from tests.worker.harness import claim
from tests.worker.test_pump import Through, add, job_of, state

INFO = WorkerInfo(id="w1", lease_ms=30_000)
FIRST, SECOND = ProcessId("first"), ProcessId("second")
CRASH = Verdict(Ending.CRASHED, "its process was killed by signal 9 (SIGKILL)")


class Body:
    """A heart and what it told."""

    def __init__(self, engine: Any) -> None:
        self.news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self.closed = False
        self.tender = Tender(lambda: not self.closed)
        self.heart = Heart(lambda: engine, self.tender, INFO, self.news.put)
        self.heart.begin()

    def enrol(self, process: ProcessId) -> None:
        self.heart.enrol(process)
        assert isinstance(self.next(), Enrolled)

    def next(self) -> News:
        return self.news.get(timeout=10)

    def close(self) -> None:
        assert self.heart.close(10)
        self.closed = True


def take(engine: Engine, process: ProcessId, count: int) -> tuple[Claim, ...]:
    want = Want(tasks={"thread.give": "thread"}, free={"thread": count}, limit=count)
    return engine.exchange(process, 1, (), want).claims


def test_dead_process_is_reported_at_once_and_only_what_had_started_is_charged() -> None:
    engine = MemoryEngine()
    body = Body(engine)
    body.enrol(FIRST)
    ids = [add(engine, "thread.give", n) for n in range(2)]
    started, waiting = take(engine, FIRST, 2)
    body.heart.report(Death(FIRST, frozenset({started.fence.token})), CRASH)
    await_true(lambda: all(state(engine, id) is State.READY for id in ids), timeout_s=2)
    assert job_of(engine, started.id).counters.crashes == 1
    assert str(job_of(engine, started.id).error) == f"crashed: {CRASH.message}"
    assert job_of(engine, waiting.id).counters.attempts == 0
    body.close()
    assert engine.workers() == []


def test_void_lease_is_told() -> None:
    engine = MemoryEngine()
    body = Body(engine)
    body.enrol(FIRST)
    engine.enrol(WorkerInfo(id="w2"), [ProcessId("other")])
    engine.renew(ProcessId("other"), [], [Death(FIRST)])
    body.heart.enrol(SECOND)
    assert {type(body.next()), type(body.next())} == {Enrolled, Voided}
    body.close()


def test_drain_is_told() -> None:
    engine = MemoryEngine()
    body = Body(engine)
    body.enrol(FIRST)
    engine.drain(["w1"])
    body.heart.enrol(SECOND)
    assert {type(body.next()), type(body.next())} == {Enrolled, DrainAsked}
    body.close()


def test_heart_whose_own_lease_was_lost_takes_a_new_identity() -> None:
    engine = MemoryEngine()
    body = Body(engine)
    body.enrol(FIRST)
    before = body.tender.id
    add(engine, "thread.give", 1)
    (held,) = take(engine, FIRST, 1)
    engine.enrol(WorkerInfo(id="w2"), [ProcessId("other")])
    engine.renew(ProcessId("other"), [], [Death(before)])
    body.heart.report(Death(FIRST, frozenset({held.fence.token})), CRASH)
    await_true(lambda: state(engine, held.id) is State.READY)
    assert body.tender.id != before
    body.close()


def test_heart_that_begins_anew_during_its_own_call_blames_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Slow(Through):
        hinders = False

        def enrol(self, info: WorkerInfo, processes: Sequence[ProcessId]) -> None:
            self.engine.enrol(info, processes)
            if self.hinders:  # as maintenance does when its own call is not answered
                self.hinders = False
                body.heart.begin_anew()

    engine = MemoryEngine()
    slow = Slow(engine)
    body = Body(slow)
    body.enrol(FIRST)
    before = body.tender.id
    slow.hinders = True
    body.enrol(SECOND)
    id = add(engine, "thread.give", 1)
    (held,) = take(engine, FIRST, 1)
    body.heart.report(Death(FIRST, frozenset({held.fence.token})), CRASH)
    await_true(lambda: state(engine, id) is State.READY)
    assert body.tender.id != before
    assert "lapsed" not in caplog.text
    body.close()


def test_lost_reply_to_a_report_of_death_leaves_no_job_with_the_tender() -> None:
    class Lossy(Through):
        lost = 0

        def renew(self, tender: ProcessId, leases: Sequence[ProcessId], deaths: Sequence[Death] = ()) -> Renewed:
            renewed: Renewed = self.engine.renew(tender, leases, deaths)
            if renewed.taken and not self.lost:
                self.lost += 1
                raise EngineDown("the reply was lost")
            return renewed

    engine = MemoryEngine()
    body = Body(Lossy(engine))
    body.enrol(FIRST)
    ids = [add(engine, "thread.give", n) for n in range(2)]
    started, waiting = take(engine, FIRST, 2)
    body.heart.report(Death(FIRST, frozenset({started.fence.token})), CRASH)
    await_true(lambda: all(state(engine, id) is State.READY for id in ids))
    assert [job_of(engine, claim.id).counters.crashes for claim in (started, waiting)] == [1, 0]
    body.close()


def test_tending_makes_due_jobs_ready_and_tells_when_nothing_is_left() -> None:
    engine = MemoryEngine()
    body = Body(engine)
    body.enrol(FIRST)
    later = add(engine, "thread.give", 1, delay_ms=150)
    tending = Tending(
        lambda: engine,
        body.tender,
        body.heart,
        body.news.put,
        lease_ms=30_000,
        burst=True,
        tasks={"thread.give": "default"},
    )
    tending.begin()
    assert isinstance(body.next(), NothingLeft), "a job that is not due yet does not hold a burst up"
    await_true(lambda: state(engine, later) is State.READY, timeout_s=3)
    assert tending.close(5)
    body.close()


@pytest.mark.parametrize("hears", [True, False])
def test_news_missed_between_tending_and_waiting_delay_a_due_job_by_a_poll_at_most(tmp_path: Path, hears: bool) -> None:
    """Tending comes round every three seconds here; a job is scheduled while nobody listens."""
    added: list[JobId] = []

    class Deaf(Through):
        def wait(self, subject: Any, since: int, timeout_s: float) -> None:
            if not added:
                added.append(add(self.engine, "thread.give", 1, delay_ms=50))
                if not hears:
                    threading.Event().wait(timeout_s)
                    return
            self.engine.wait(subject, since, timeout_s)

    engine = SqliteEngine(tmp_path / "store.db")
    body = Body(engine)
    body.enrol(FIRST)
    tending = Tending(lambda: Deaf(engine), body.tender, body.heart, body.news.put, lease_ms=30_000)
    tending.begin()
    await_true(lambda: added)
    await_true(lambda: state(engine, added[0]) is State.READY, timeout_s=1.5)
    assert tending.close(5)
    body.close()


def test_jobs_of_a_lapsed_lease_are_settled_as_lost() -> None:
    clock = TurnedClock()
    engine = MemoryEngine(clock)
    engine.enrol(WorkerInfo(id="gone", lease_ms=1000), [FIRST])
    id = add(engine, "thread.give", 1)
    take(engine, FIRST, 1)
    clock.turn(2000)
    body = Body(engine)
    body.enrol(SECOND)
    tending = Tending(lambda: engine, body.tender, body.heart, body.news.put, lease_ms=1000)
    tending.begin()
    await_true(lambda: state(engine, id) is State.READY)
    counters = job_of(engine, id).counters
    assert (counters.losses, counters.suspect, counters.crashes) == (1, True, 0)
    assert tending.close(5)
    body.close()


def test_tending_looks_when_the_next_lease_lapses_and_not_only_when_it_comes_round() -> None:
    """It comes round once a minute here."""
    engine = MemoryEngine()
    body = Body(engine)
    body.enrol(SECOND)
    engine.enrol(WorkerInfo(id="gone", lease_ms=1000), [FIRST])
    id = add(engine, "thread.give", 1)
    take(engine, FIRST, 1)
    tending = Tending(lambda: engine, body.tender, body.heart, body.news.put, lease_ms=600_000)
    tending.begin()
    await_true(lambda: state(engine, id) is State.READY)
    assert job_of(engine, id).counters.losses == 1
    assert tending.close(5)
    body.close()


def test_lapsed_lease_that_cannot_be_voided_is_looked_at_again_but_not_all_the_time() -> None:
    looks: list[float] = []

    class Watched(Through):
        def tend(self, tender: ProcessId) -> Any:
            looks.append(time.monotonic())
            return self.engine.tend(tender)

    clock = TurnedClock()
    engine = MemoryEngine(clock)
    engine.enrol(WorkerInfo(id="gone", lease_ms=1000), [FIRST])
    clock.turn(2000)
    body = Body(engine)
    tending = Tending(lambda: Watched(engine), body.tender, body.heart, body.news.put, lease_ms=600_000)
    tending.begin()
    await_true(lambda: len(looks) >= 4)
    assert all(later - earlier >= LAPSE_REST_S for earlier, later in itertools.pairwise(looks))
    assert tending.close(5)
    body.close()


@pytest.mark.parametrize(
    ("fate", "verdict", "ending"),
    [
        ("released", CRASH, Ending.RELEASED),
        ("lost", CRASH, Ending.LOST),
        ("crashed", CRASH, Ending.CRASHED),
        ("crashed", None, Ending.CRASHED),
        ("crashed", STOPPED, Ending.RELEASED),
        ("crashed", Verdict(Ending.RELEASED, "", frozenset({JobId("stuck")})), Ending.TIMED_OUT),
    ],
)
def test_verdict_decides_what_was_seen_to_start(fate: Any, verdict: Verdict | None, ending: Ending) -> None:
    taken = Taken(claim("thread.give", 1, id=JobId("stuck")), fate, FIRST)
    outcome = outcome_of(taken, {} if verdict is None else {FIRST: verdict})
    assert outcome.ending is ending
    assert outcome.started is (fate != "released")


def test_what_was_found_where_processes_ended_is_kept_of_the_newest_only() -> None:
    board, tender = Board.create(1), Tender(lambda: True)
    board.occupy(0, 7, "job", 0)
    found = Verdict(Ending.CRASHED, "", scene=survey(board, Remains(9)))
    for number in range(SCENES_KEPT + 1):
        tender.judge(ProcessId(str(number)), found)
    kept = [verdict.scene is not None for verdict in tender._verdicts.values()]
    assert kept == [False] + [True] * SCENES_KEPT
    board.close()


def test_weighted_queues_come_first_in_proportion_to_their_weight() -> None:
    queues = read_queues(["a:5", "b"])
    first = Counter((groups(queues) or ((),))[0][0] for _ in range(3000))
    assert 0.78 < first["a"] / 3000 < 0.88
    assert groups(read_queues(["b", "a"])) == (("b",), ("a",))
    assert groups(None) is None


def test_each_cause_of_a_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    patience = Patience("somebody")
    for _ in range(20):
        patience.failed(EngineBusy("locked"))
    patience.failed(EngineDown("gone"))
    assert 0 < patience.pause_s() <= LONGEST_S
    patience.answered()
    assert len(caplog.records) == 3
