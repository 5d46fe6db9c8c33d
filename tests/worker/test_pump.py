"""The pump, in one process on the memory engine: what it claims, holds, gives back and delivers."""

import logging
import queue
import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from penstock.engine import AddRequest, Answer, Cancel, Engine, Filter, Want, WorkerInfo
from penstock.engines.clock import SystemClock
from penstock.engines.memory import MemoryEngine
from penstock.model.errors import EngineDown, LeaseLost, StoreInvalid
from penstock.model.job import (
    UNREADABLE_COUNTERS,
    UNREADABLE_DETAILS,
    Avoid,
    Change,
    Claim,
    Details,
    Fence,
    Job,
    JobId,
    NewJob,
    ProcessId,
    Progress,
)
from penstock.model.outcome import Ending, Outcome
from penstock.model.retry import Policy
from penstock.model.states import State
from penstock.worker.board import Board, BoardState
from penstock.worker.listener import Listener
from penstock.worker.notes import LONGEST_LOG, Notes
from penstock.worker.pump import PASSES_WORKER_MS, Pump, Wish
from penstock.worker.runners.contract import Surroundings
from penstock.worker.runners.thread import ThreadRunner
from tests.polling import await_true
from tests.worker import jobs

PROCESS = ProcessId("p1")
SUCCESS = Outcome(ending=Ending.SUCCEEDED, result=b"1")


class HandRunner:
    """A runner whose jobs start and end when the test says so."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.claims: queue.SimpleQueue[Claim] = queue.SimpleQueue()
        self.cancelled: list[Fence] = []
        self.started = 0

    def start(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self.started += 1
            self.claims.put(claim)

    def take(self, timeout: float = 10) -> Claim:
        return self.claims.get(timeout=timeout)

    def waits(self) -> bool:
        return not self.claims.empty()

    def withdraw(self) -> list[Claim]:
        return [self.claims.get_nowait() for _ in range(self.claims.qsize())]

    def cancel(self, fence: Fence) -> None:
        self.cancelled.append(fence)

    def check(self, now_ns: int) -> None: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...


class Through:
    """Passes everything on to an engine; tests override single verbs to fail before or after them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


class Rig:
    """A pump at work in a thread."""

    def __init__(
        self, engine: Engine, runner: Any = None, *, through: Any = None, others: Any = None, **options: Any
    ) -> None:
        self.engine = engine
        engine.enrol(WorkerInfo(id="w1"), [PROCESS])
        self.board, self.notes = Board.create(10), Notes()
        self.runner = runner or ThreadRunner(self.around(), 0, 2)
        reached = through or engine
        self.listener = Listener(reached, PROCESS, (), lambda: self.pump.news())
        self.pump = Pump(
            reached,
            PROCESS,
            runners={"thread": self.runner} | (others or {}),
            tasks=dict.fromkeys(jobs.app.tasks, "thread"),
            board=self.board,
            notes=self.notes,
            hints=self.listener,
            **options,
        )
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.listener.begin()
        self.thread.start()

    def around(self) -> Surroundings:
        return Surroundings(
            tasks=jobs.app.tasks,
            board=self.board,
            notes=self.notes,
            deliver=lambda runner, claim, outcome: self.pump.deliver(runner, claim, outcome),
            home=jobs.app,
        )

    def finish(self, claim: Claim, outcome: Outcome = SUCCESS) -> None:
        self.pump.deliver(self.runner, claim, outcome)

    def stop(self) -> None:
        self.pump.wish(Wish.STOP)
        self.join()

    def join(self) -> None:
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.listener.close()
        self.runner.close()

    def _run(self) -> None:
        try:
            self.pump.run()
        except LeaseLost as error:
            self.error = error


@pytest.fixture
def engine() -> MemoryEngine:
    return MemoryEngine()


def add(engine: Engine, task: str, *args: Any, **fields: Any) -> JobId:
    envelope, crc = jobs.app.tasks[task].pack(args, {})
    id = JobId(jobs.app.tasks[task].new_job(args, {}).id)
    (answer,) = engine.add([AddRequest((NewJob(id=id, task=task, envelope=envelope, crc=crc, **fields),))])
    assert isinstance(answer, list)
    return id


def state(engine: Engine, id: JobId) -> State:
    return job_of(engine, id).state


def job_of(engine: Engine, id: JobId) -> Job:
    (job,) = engine.get([id])
    assert job is not None
    return job


def test_listener_leaves_a_store_that_cannot_be_used_to_the_pump() -> None:
    class Gone(Through):
        def wait(self, *_: object) -> bool:
            raise StoreInvalid("The schema is gone.")

    listener = Listener(Gone(MemoryEngine()), PROCESS, (), lambda: None)  # type: ignore[arg-type]
    thread = threading.Thread(target=listener.run)
    thread.start()
    listener.arm(0)
    thread.join(10)
    assert not thread.is_alive()


def test_jobs_run_and_results_are_kept(engine: MemoryEngine) -> None:
    ids = [add(engine, "thread.give", n) for n in range(300)]
    rig = Rig(engine)
    await_true(lambda: all(state(engine, id) is State.SUCCEEDED for id in ids))
    assert [job_of(engine, id).result for id in ids[:3]] == [b"0", b"1", b"2"]
    rig.stop()
    assert rig.board.state is BoardState.ENDED


def test_job_added_later_wakes_the_pump(engine: MemoryEngine) -> None:
    rig = Rig(engine)
    for n in range(3):
        id = add(engine, "thread.give", n)
        await_true(lambda id=id: state(engine, id) is State.SUCCEEDED, timeout_s=0.9)
    rig.stop()


def test_failed_job_is_settled_with_its_own_policy(engine: MemoryEngine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "penstock.job")
    id = add(engine, "thread.fail", "gone", policy=Policy(max_attempts=1))
    rig = Rig(engine)
    await_true(lambda: state(engine, id) is State.BURIED)
    rig.stop()
    (line,) = [record.message for record in caplog.records if record.name == "penstock.job"]
    assert line.startswith(f"buried (failed) thread.fail id={id} queue=default attempt=1 ran=")
    assert line.endswith("error=LookupError: gone")
    assert caplog.records[-1].levelno == logging.ERROR


def test_no_more_is_claimed_than_can_start(engine: MemoryEngine) -> None:
    for n in range(10):
        add(engine, "thread.give", n)
    runner = HandRunner(2)
    rig = Rig(engine, runner)
    first, second = runner.take(), runner.take()
    assert runner.started == 2
    rig.finish(first)
    third = runner.take()
    assert runner.started == 3
    for claim in (second, third):
        rig.finish(claim)
    rig.stop()


def test_fast_jobs_are_claimed_ahead_and_given_back_when_one_turns_out_long(engine: MemoryEngine) -> None:
    for n in range(2000):
        add(engine, "thread.give", n)
    runner = HandRunner(1)
    rig = Rig(engine, runner)
    for _ in range(400):
        rig.finish(runner.take())
    await_true(runner.waits)
    last = runner.take()
    await_true(lambda: not runner.waits() and rig.board.held == 1)
    assert sum(counts.states.get(State.RUNNING, 0) for counts in engine.counts()) == 1
    assert all(not job.counters.interruptions for job in engine.find(Filter(limit=1000)).jobs)
    rig.finish(last)
    rig.stop()


def test_half_of_what_is_held_is_there_to_run_while_the_other_half_is_delivered(engine: MemoryEngine) -> None:
    seen: list[tuple[int, int, bool]] = []
    ready = threading.Event()

    class Instant(HandRunner):
        def start(self, claims: Sequence[Claim]) -> None:
            for claim in claims:
                rig.pump.deliver(self, claim, SUCCESS)

    class Watched(Through):
        def exchange(self, process: ProcessId, beat: int, changes: Sequence[Change], want: Want | None) -> Answer:
            ready.wait(10)
            answer = self.engine.exchange(process, beat, changes, want)
            seen.append((len(changes), rig.pump.held, bool(answer.claims)))
            return answer

    ids = [add(engine, "thread.give", number) for number in range(500)]
    rig = Rig(engine, Instant(2), through=Watched(engine))
    ready.set()
    await_true(lambda: state(engine, ids[-1]) is State.SUCCEEDED)
    rig.stop()
    flowing = [(delivered, kept) for (_, _, flows), (delivered, kept, _) in pairwise(seen) if flows]
    assert max(delivered for delivered, _ in flowing) > 10
    assert all(delivered <= max(2, kept + 1) for delivered, kept in flowing)


def test_lane_that_stalled_is_tried_again_soon_although_another_has_places_free(engine: MemoryEngine) -> None:
    for n in range(2):
        add(engine, "thread.give", n)
    runner = HandRunner(2)
    rig = Rig(engine, runner, others={"process": HandRunner(1)})
    running = runner.take()
    await_true(lambda: runner.started == 3, timeout_s=4)
    rig.pump.wish(Wish.STOP)
    rig.finish(running)
    rig.join()


def test_stop_gives_back_what_has_not_started_and_waits_for_what_runs(engine: MemoryEngine) -> None:
    ids = [add(engine, "thread.give", n) for n in range(2)]
    runner = HandRunner(2)
    rig = Rig(engine, runner)
    running = runner.take()
    rig.pump.wish(Wish.STOP)
    other = next(id for id in ids if id != running.id)
    await_true(lambda: state(engine, other) is State.READY)
    assert state(engine, running.id) is State.RUNNING
    rig.finish(running)
    rig.join()
    assert state(engine, running.id) is State.SUCCEEDED
    assert job_of(engine, other).counters.attempts == 0


def test_quiet_claims_no_more(engine: MemoryEngine) -> None:
    rig = Rig(engine)
    rig.pump.wish(Wish.QUIET)
    await_true(lambda: rig.board.last_beat_ns)
    id = add(engine, "thread.give", 1)
    rig.stop()
    assert state(engine, id) is State.READY


def test_claim_of_a_cancelled_job_ends_unstarted(engine: MemoryEngine) -> None:
    id = add(engine, "thread.give", 1)
    runner = HandRunner(1)
    rig = Rig(engine, runner)
    claim = runner.take()
    engine.alter([id], Cancel())
    await_true(lambda: runner.cancelled == [claim.fence])
    rig.finish(claim, Outcome(ending=Ending.RELEASED, started=False))
    await_true(lambda: state(engine, id) is State.CANCELLED)
    assert runner.started == 1
    rig.stop()


@pytest.mark.parametrize(
    ("fields", "remedy"),
    [({"details": UNREADABLE_DETAILS}, "jobs edit"), ({"counters": UNREADABLE_COUNTERS}, "jobs kick")],
)
def test_claim_of_which_not_all_can_be_read_is_buried_unstarted(
    engine: MemoryEngine, fields: dict[str, Any], remedy: str
) -> None:
    runner = HandRunner(1)
    good, bad = add(engine, "thread.give", 1), add(engine, "thread.give", 2)

    class Damaging(Through):
        def exchange(self, *arguments: Any) -> Answer:
            answer: Answer = self.engine.exchange(*arguments)
            claims = tuple(replace(claim, **fields) if claim.id == bad else claim for claim in answer.claims)
            return replace(answer, claims=claims)

    rig = Rig(engine, runner, through=Damaging(engine))
    rig.finish(runner.take())
    await_true(lambda: (state(engine, good), state(engine, bad)) == (State.SUCCEEDED, State.BURIED))
    assert runner.started == 1
    [job] = engine.get([bad])
    assert job is not None
    assert job.error is not None
    assert remedy in job.error.message
    rig.stop()


def test_exchange_of_unknown_outcome_is_repeated_as_it_was(engine: MemoryEngine) -> None:
    """The reply to every other exchange is lost; nothing runs twice and nothing is lost."""

    calls: list[tuple[int, int]] = []

    class Lossy(Through):
        def exchange(self, process: ProcessId, beat: int, changes: Sequence[Change], want: Want | None) -> Answer:
            answer = self.engine.exchange(process, beat, changes, want)
            calls.append((beat, len(changes)))
            if len(calls) % 2:
                raise EngineDown("the reply was lost")
            return answer

    ids = [add(engine, "thread.give", n) for n in range(50)]
    rig = Rig(engine, through=Lossy(engine))
    await_true(lambda: all(state(engine, id) is State.SUCCEEDED for id in ids))
    rig.stop()
    assert calls[::2] == calls[1::2]
    assert engine.describe().late_results == 0


def test_store_that_was_away_gets_the_outcomes_later(engine: MemoryEngine, caplog: pytest.LogCaptureFixture) -> None:
    gone = threading.Event()

    class Away(Through):
        def exchange(self, *args: Any) -> Answer:
            if gone.is_set():
                raise EngineDown("away")
            return self.engine.exchange(*args)

    id = add(engine, "thread.give", 1)
    runner = HandRunner(1)
    rig = Rig(engine, runner, through=Away(engine))
    claim = runner.take()
    gone.set()
    rig.finish(claim)
    await_true(lambda: any("cannot reach the store" in record.message for record in caplog.records))
    gone.clear()
    await_true(lambda: state(engine, id) is State.SUCCEEDED)
    rig.stop()
    assert len([record for record in caplog.records if "cannot reach" in record.message]) == 1


def test_lost_lease_ends_the_pump_and_names_the_late_results(
    engine: MemoryEngine, caplog: pytest.LogCaptureFixture
) -> None:
    from penstock.engine import Death

    id = add(engine, "thread.give", 1)
    runner = HandRunner(1)
    rig = Rig(engine, runner)
    claim = runner.take()
    engine.enrol(WorkerInfo(id="w2"), [ProcessId("tender")])
    engine.renew(ProcessId("tender"), [], [Death(PROCESS)])
    rig.finish(claim)
    rig.join()
    assert isinstance(rig.error, LeaseLost)
    assert any(f"late result refused job={id}" in record.message for record in caplog.records)


def test_worker_unfit_stops_the_pump_and_frees_the_job(engine: MemoryEngine) -> None:
    reasons: list[str] = []
    rig = Rig(engine, unfit=lambda reason: (reasons.append(reason), rig.pump.wish(Wish.STOP)))
    id = add(engine, "thread.steer", "unfit")
    rig.join()
    assert reasons == ["disk is full"]
    assert state(engine, id) is State.READY
    assert job_of(engine, id).counters.failures == 0


def test_a_job_passes_by_the_worker_that_was_unfit_for_it(engine: MemoryEngine) -> None:
    id = add(engine, "thread.steer", "unfit")
    rig = Rig(engine, worker="w1", boot="b1", unfit=lambda _: None)
    await_true(lambda: state(engine, id) is State.SCHEDULED)
    rig.stop()
    job = job_of(engine, id)
    assert job.claim_number == 2, "it was claimed once more, and passed on"
    [avoid] = job.details.avoid
    assert (avoid.worker, avoid.boot, job.counters.attempts) == ("w1", "b1", 1)
    now_ms = SystemClock().wall_ms()
    assert now_ms < avoid.boot_until_ms < avoid.until_ms < now_ms + 2 * PASSES_WORKER_MS


def test_a_job_that_passes_others_by_runs_here(engine: MemoryEngine) -> None:
    late = SystemClock().wall_ms() + 100_000
    avoid = (Avoid("w2", "b2", late, late), Avoid("w1", "b1", late - 200_000, late - 200_000))
    id = add(engine, "thread.give", 7, details=Details(avoid=avoid))
    rig = Rig(engine, worker="w1", boot="b1")
    await_true(lambda: state(engine, id) is State.SUCCEEDED)
    rig.stop()


def test_a_pump_that_was_quiet_claims_again(engine: MemoryEngine) -> None:
    rig = Rig(engine)
    rig.pump.wish(Wish.QUIET)
    await_true(lambda: rig.board.state is BoardState.QUIET)
    id = add(engine, "thread.give", 7)
    rig.pump.wish(Wish.WORK)
    await_true(lambda: state(engine, id) is State.SUCCEEDED)
    assert rig.board.state is BoardState.WORKING
    rig.stop()


def test_max_jobs_drains_the_pump(engine: MemoryEngine) -> None:
    ids = [add(engine, "thread.give", n) for n in range(10)]
    rig = Rig(engine, max_jobs=4)
    rig.join()
    assert sum(state(engine, id) is State.SUCCEEDED for id in ids) == 4


def test_drain_asked_in_the_store_ends_the_pump(engine: MemoryEngine) -> None:
    rig = Rig(engine)
    await_true(lambda: rig.board.last_beat_ns)
    engine.drain(["w1"])
    rig.join()
    assert rig.pump.drain_asked


def test_progress_and_log_are_stored_before_the_outcome(engine: MemoryEngine) -> None:
    id = add(engine, "thread.tell")
    rig = Rig(engine)
    await_true(lambda: state(engine, id) is State.SUCCEEDED)
    rig.stop()
    assert job_of(engine, id).progress == Progress(1, 2, "half")
    assert "a line of its own" in engine.log(id)[1]


def test_progress_of_a_running_job_is_stored_while_it_runs(engine: MemoryEngine) -> None:
    id = add(engine, "thread.give", 1)
    runner = HandRunner(1)
    rig = Rig(engine, runner)
    claim = runner.take()
    for done in range(100):
        rig.notes.put(claim, Progress(done), "")
    await_true(lambda: job_of(engine, id).progress == Progress(99), timeout_s=3)
    rig.finish(claim)
    rig.stop()


def test_log_of_an_attempt_keeps_its_tail() -> None:
    notes = Notes()
    claim = Claim(id=JobId("a"), fence=Fence(1, 1), task="t", queue="q", envelope=b"", crc=None, policy=Policy())
    for n in range(3000):
        notes.put(claim, None, f"{n:099d}\n")
    (note,) = notes.take()
    assert len(note.log) == LONGEST_LOG
    assert note.log.endswith("2999\n")
