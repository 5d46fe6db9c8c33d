"""The records that processes leave each other, quarantine, and workers that are evicted."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Penstock
from penstock.engine import WorkerInfo
from penstock.engines.memory.engine import MemoryEngine
from penstock.fitness import Check
from penstock.model.errors import EngineDown
from penstock.model.job import Change, Claim, ErrorInfo, ProcessId
from penstock.model.outcome import Ending, Outcome
from penstock.model.record import Record, TaskRecord
from penstock.model.settle import settle
from penstock.model.states import State
from penstock.records import QUARANTINE, RECORDS, quarantined, read_records
from penstock.testing.clock import TurnedClock
from penstock.worker.fitness import Fitness
from penstock.worker.tally import SPAN_S, Tally
from tests.polling import await_true
from tests.worker import frail
from tests.worker.harness import claim, working
from tests.worker.test_pump import Through

DONE = Outcome(ending=Ending.SUCCEEDED, result=b"1", ran_us=7)
FAILED = Outcome(ending=Ending.FAILED, error=ErrorInfo(kind="failed"), ran_us=7)
GIVEN_BACK = Outcome(ending=Ending.RELEASED)
TASK = "thread.give"


def settled(outcome: Outcome, times: int = 1) -> list[tuple[Claim, Outcome, Change]]:
    held = claim(TASK, 1)
    return [(held, outcome, settle(held, outcome, 0.0))] * times


class Place:
    """A store with processes of several workers, on a clock that is turned."""

    def __init__(self) -> None:
        self.engine, self.now = MemoryEngine(), 0.0

    def tally(self, worker: str, engine: Any = None, **fields: Any) -> Tally:
        process = ProcessId(f"process of {worker}")
        return Tally(engine or self.engine, process, worker, clock=lambda: self.now, **fields)

    def work(self, worker: str, done: int, failed: int) -> Tally:
        tally = self.tally(worker)
        for _ in range(done):
            tally.count(settled(DONE), 1000)
        for _ in range(failed):
            tally.count(settled(FAILED), 1000)
        return tally

    @property
    def records(self) -> dict[str, Record]:
        return read_records(self.engine)


@pytest.fixture
def place() -> Place:
    return Place()


# -- records ----------------------------------------------------------------------------------------------------------


def test_what_was_given_back_counts_neither_as_done_nor_as_failed(place: Place) -> None:
    tally = place.work("w", 2, 1)
    tally.count(settled(GIVEN_BACK), 1000)
    tally.tell()
    assert place.records["process of w"].tasks == {TASK: TaskRecord(done=2, failed=1, ran_us=21, queue_us=3)}


def test_many_jobs_at_once_are_counted_by_some_that_stand_for_all(place: Place) -> None:
    tally = place.tally("w")
    tally.count(settled(DONE, 960), 960_000)
    tally.tell()
    found = place.records["process of w"].tasks[TASK]
    assert 960 <= found.done <= 1040
    assert found.queue_us == found.done


def test_a_record_is_of_the_last_minutes_and_goes_when_nothing_was_done(place: Place) -> None:
    tally = place.work("w", 5, 0)
    tally.tell()
    for done in (5, 0):
        place.now += SPAN_S
        tally.tell()
        assert sum(one.done for record in place.records.values() for one in record.tasks.values()) == done
    assert place.engine.shared(RECORDS) == {}


def test_a_record_is_written_only_when_it_has_changed(place: Place) -> None:
    class Counting(Through):
        writes = 0

        def share(self, *given: Any) -> bool:
            self.writes += 1
            return bool(self.engine.share(*given))

    counting = Counting(place.engine)
    tally = place.tally("w", counting)
    for _ in range(3):
        tally.tell()
    tally.count(settled(DONE), 1)
    for _ in range(3):
        tally.tell()
    assert counting.writes == 1


def test_a_record_that_somebody_removed_is_written_anew(place: Place) -> None:
    tally = place.work("w", 1, 0)
    tally.tell()
    place.engine.share(RECORDS, "process of w", None, place.engine.shared(RECORDS)["process of w"])
    tally.count(settled(DONE), 1)
    tally.tell()
    tally.tell()
    assert place.records["process of w"].tasks[TASK].done == 2


def test_records_of_processes_that_ended_long_ago_are_removed(place: Place) -> None:
    from msgspec.json import encode

    place.engine.share(RECORDS, "old", encode(Record("x", "h", 0, {TASK: TaskRecord(1)})), None)
    place.engine.share(RECORDS, "damaged", b"{", None)
    place.work("w", 1, 0).tell()
    assert place.records.keys() == {"process of w"}


# -- who is unfit -----------------------------------------------------------------------------------------------------


def test_a_worker_that_fails_what_others_do_well_finds_itself_unfit(place: Place) -> None:
    assert place.work("good", 30, 0).unfit() is None
    told = place.work("bad", 0, 30).unfit()
    assert told is not None
    assert "failed 30 of 30 jobs of thread.give" in told


def test_a_worker_that_is_told_not_to_judge_itself_does_not(place: Place) -> None:
    place.work("good", 30, 0).tell()
    tally = place.tally("bad", judges=False)
    tally.count(settled(FAILED, 16) * 2, 1)
    assert tally.unfit() is None
    assert "process of bad" in place.records


def test_a_worker_or_host_in_quarantine_is_unfit_until_it_is_readmitted(place: Place) -> None:
    app, tally = Penstock(engine=place.engine), place.tally("w")
    for name in ("w", socket.gethostname()):
        app.quarantine(name, reason="its disk is dying")
        app.quarantine(name, reason="its disk is dead")
        assert tally.unfit() == f"{name} is in quarantine: its disk is dead"
        assert app.readmit(name)
        assert not app.readmit(name)
        assert tally.unfit() is None


def test_a_quarantine_that_cannot_be_read_holds_all_the_same(place: Place) -> None:
    place.engine.share(QUARANTINE, "w", b"{", None)
    assert "cannot be read" in str(place.tally("w").unfit())
    assert quarantined(place.engine)["w"].since_ms == 0


def test_a_store_that_cannot_be_reached_makes_nobody_unfit(place: Place) -> None:
    class Down(Through):
        def shared(self, *_: object) -> dict[str, bytes]:
            raise EngineDown("gone")

    assert place.tally("w", Down(place.engine)).unfit() is None


def test_what_was_found_last_holds_while_the_store_cannot_be_read(place: Place) -> None:
    class Shaky(Through):
        down = False

        def shared(self, kind: str) -> dict[str, bytes]:
            if self.down:
                raise EngineDown("gone")
            return dict(self.engine.shared(kind))

    shaky = Shaky(place.engine)
    tally = place.tally("w", shaky)
    Penstock(engine=place.engine).quarantine("w", reason="its disk is dying")
    found = tally.unfit()
    shaky.down = True
    assert found is not None
    assert tally.unfit() == found


def test_a_record_of_very_many_tasks_is_one_of_the_busiest(place: Place) -> None:
    tally = place.tally("w")
    for number in range(3000):
        held = claim(TASK, 1, task=f"a task with a rather long name, number {number}")
        times = 2 if number == 2999 else 1
        tally.count([(held, DONE, settle(held, DONE, 0.0))] * times, 1000)
    assert tally.unfit() is None
    kept = place.records["process of w"].tasks
    assert 100 < len(kept) < 3000
    assert "a task with a rather long name, number 2999" in kept


def test_others_are_asked_after_the_checks_and_do_not_keep_a_process_waiting() -> None:
    told, word = list[str | None](), list[str | None]([None])
    fitness = Fitness({}, 0.01, told.append, lambda: word[0])
    assert fitness.is_fit
    fitness.begin()
    word[0] = "in quarantine"
    await_true(lambda: told == ["in quarantine"])
    word[0] = None
    await_true(lambda: told == ["in quarantine", None])
    fitness.end()
    checked = Fitness({"never": Check(lambda: "broken", 1.0)}, 0.01, told.append, lambda: "in quarantine")
    checked.begin()
    await_true(lambda: told[2:] == ["health check 'never' failed: broken"])
    checked.end()


# -- eviction ---------------------------------------------------------------------------------------------------------


def test_an_evicted_worker_is_in_quarantine_and_has_no_lease() -> None:
    engine = MemoryEngine(TurnedClock())
    engine.enrol(WorkerInfo(id="w"), [ProcessId("p")])
    app = Penstock(engine=engine)
    assert app.evict("w")
    assert not app.evict("w")
    assert app.workers() == []
    assert quarantined(engine)["w"].reason == "evicted by hand"


# -- whole workers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def app(url: str) -> Iterator[Penstock]:
    frail.app.redirect(url)
    yield frail.app
    frail.app.close()


FRAIL = "tests.worker.frail:app"


@pytest.mark.slow
def test_a_worker_on_a_host_in_quarantine_works_again_once_it_is_readmitted(app: Penstock, url: str) -> None:
    with working(url, app=FRAIL, when_unfit="wait", health_period="100ms", processes=2) as worker:
        assert frail.write.enqueue(1).result(timeout=20) == 1
        app.quarantine(socket.gethostname(), reason="to be looked at")
        await_true(lambda: any("to be looked at" in view.info.unfit for view in app.workers()))
        job = frail.write.enqueue(2)
        app.readmit(socket.gethostname())
        assert job.result(timeout=20) == 2
        assert worker.has_said("is in quarantine: to be looked at")


@pytest.mark.slow
def test_jobs_of_a_worker_that_does_not_answer_are_taken_from_it(app: Penstock, url: str, tmp_path: Path) -> None:
    with working(url, app=FRAIL, lease="60s", processes=1) as frozen:
        job = frail.stay.enqueue("gate")
        await_true(lambda: job.state() is State.RUNNING)
        [view] = app.workers()
        for pid in (frozen.pid, *frozen.processes()):
            os.kill(pid, signal.SIGSTOP)
        assert app.evict(view.info.id), "its lease would lapse in a minute"
        (tmp_path / "gate").touch()
        with working(url, app=FRAIL, lease="60s", processes=1):
            assert job.result(timeout=20) == "gate"
        assert job.info().counters.losses == 1
