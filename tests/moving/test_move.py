"""Jobs move from one store to another, each once and as it was, wherever the move is killed."""

from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from penstock.engine import AddRequest, Bury, Cancel, Delete, Edit, Engine, Filter, Kick
from penstock.model.job import Details, Job, JobId, ProcessId, Unique
from penstock.model.outcome import Ending
from penstock.model.states import State
from penstock.moving import Mover, MoveRefused, Tally
from penstock.testing import TurnedClock, memory_engine
from tests.moving.jobs import KEEP_MS, Worker, fill, job_id, new_job, stored

WAITING = frozenset({State.READY, State.SCHEDULED})
CARRIED = WAITING | {State.BURIED}


class Killed(BaseException):
    """Ends a move as SIGKILL would, between two calls to a store."""


class Mortal:
    """An engine through which calls pass until the fatal one, which is not made, or is made and not answered."""

    def __init__(self, engine: Engine, calls: Iterator[int], fatal: int, *, after: bool = False) -> None:
        self._engine, self._calls, self._fatal, self._after = engine, calls, fatal, after

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._engine, name)
        if not callable(verb):
            return verb

        def call(*args: Any, **kwargs: Any) -> Any:
            is_fatal = next(self._calls) == self._fatal
            if is_fatal and not self._after:
                raise Killed
            answer = verb(*args, **kwargs)
            if is_fatal:
                raise Killed
            return answer

        return call


class Pair:
    """Two empty stores on one clock."""

    def __init__(self) -> None:
        self.clock = TurnedClock()
        self.source, self.target = memory_engine(self.clock), memory_engine(self.clock)

    def move(self, **options: Any) -> Tally:
        return Mover(self.source, self.target, **options).run()

    def move_until(self, fatal: int, *, after: bool) -> bool:
        """Move until the fatal call; say whether there was one."""
        calls = count(1)
        source = Mortal(self.source, calls, fatal, after=after)
        target = Mortal(self.target, calls, fatal, after=after)
        try:
            Mover(source, target).run()
        except Killed:
            return True
        return False

    def add(self, *numbers: int, **fields: Any) -> list[JobId]:
        self.source.add([AddRequest(tuple(new_job(number, **fields) for number in numbers))])
        return [job_id(number) for number in numbers]


@pytest.fixture
def pair() -> Pair:
    return Pair()


def totals(tally: Tally) -> tuple[int, int, int, int]:
    assert all(line.adds_up for line in tally.queues.values())
    total = tally.total()
    return total.found, total.moved, total.there, total.left


# -- what is carried --------------------------------------------------------------------------------------------------


def test_waiting_scheduled_and_buried_jobs_are_moved_as_they_are(pair: Pair) -> None:
    fill(pair.source, 300)
    before = stored(pair.source, Filter(states=CARRIED))
    ended = stored(pair.source, Filter(states=frozenset({State.SUCCEEDED, State.CANCELLED})))
    assert {job.state for job in before.values()} == CARRIED
    assert totals(pair.move()) == (len(before), len(before), 0, 0)
    assert stored(pair.target) == before
    assert stored(pair.source) == ended


def test_history_is_moved_when_it_is_asked_for(pair: Pair) -> None:
    fill(pair.source, 300)
    before = stored(pair.source)
    assert totals(pair.move(history=True)) == (300, 300, 0, 0)
    assert stored(pair.target) == before
    assert stored(pair.source) == {}


def test_more_than_a_page_is_moved_in_the_order_of_arrival(pair: Pair) -> None:
    for start in range(0, 2500, 500):
        pair.add(*range(start, start + 500))
    assert pair.move().total().moved == 2500
    worker, claimed = Worker(pair.target, "p"), []
    while claims := worker.claim():
        claimed += [claim.id for claim in claims]
    assert claimed == [job_id(number) for number in range(2500)]


def test_keys_are_held_in_the_target_and_free_in_the_source(pair: Pair) -> None:
    details = Details(unique=Unique("k"), idempotency_key="i")
    [first] = pair.add(1, details=details)
    pair.move()
    for engine, existing in ((pair.target, True), (pair.source, False)):
        again = replace(new_job(1, details=details), id=job_id(3))
        [[answer]] = engine.add([AddRequest((again,))])
        assert (answer.existing, answer.id == first) == (existing, existing)


def test_switches_are_carried_and_what_is_set_in_the_target_stays(pair: Pair) -> None:
    pair.add(1)
    pair.source.alter_queue("mail", paused=True, max_jobs=5)
    pair.source.alter_queue("slow", max_jobs=7)
    pair.target.alter_queue("mail", max_jobs=50)
    pair.target.alter_queue("slow", paused=True)
    pair.move()
    switches = {queue.name: (queue.paused, queue.max_jobs) for queue in pair.target.queues()}
    assert switches == {"mail": (True, 50), "slow": (True, 7)}


def test_switches_are_carried_once(pair: Pair) -> None:
    pair.source.alter_queue("mail", paused=True)
    pair.move()
    pair.target.alter_queue("mail", paused=False)
    pair.add(1)
    pair.move()
    [queue] = pair.target.queues()
    assert (queue.name, queue.paused, queue.unfinished) == ("mail", False, 1)


def test_second_move_finds_nothing(pair: Pair) -> None:
    fill(pair.source, 50)
    pair.move()
    before = stored(pair.target)
    assert totals(pair.move()) == (0, 0, 0, 0)
    assert stored(pair.target) == before


def test_nothing_of_the_move_is_left_in_the_target(pair: Pair) -> None:
    pair.add(1)
    pair.move()
    assert [queue.name for queue in pair.target.queues()] == ["mail"]


# -- the source meanwhile ---------------------------------------------------------------------------------------------


def test_queues_of_the_source_stay_paused_until_they_are_resumed(pair: Pair) -> None:
    pair.add(1)
    pair.source.alter_queue("slow", paused=True)
    assert pair.move().held == ("mail", "slow")
    pair.add(2)
    worker = Worker(pair.source, "p")
    assert worker.claim() == ()
    _, resumed = Mover(pair.source, pair.target).give_up()
    assert resumed == ("mail",)
    assert [(queue.name, queue.paused) for queue in pair.source.queues()] == [("mail", False), ("slow", True)]
    assert len(worker.claim()) == 1


def test_queue_with_the_longest_name_is_paused_and_resumed(pair: Pair) -> None:
    name = "q" * 128
    pair.add(1, queue=name)
    assert totals(pair.move()) == (1, 1, 0, 0)
    assert Mover(pair.source, pair.target).give_up()[1] == (name,)


def test_running_jobs_are_left_to_end_and_counted(pair: Pair) -> None:
    pair.add(1, 2, 3)
    worker = Worker(pair.source, "p")
    claim = worker.claim(1)[0]
    tally = pair.move()
    assert (totals(tally), tally.running) == ((2, 2, 0, 0), Counter(mail=1))
    worker.end(claim, Ending.FAILED)
    assert totals(pair.move()) == (1, 1, 0, 0)
    assert pair.target.get([job_id(1)])[0].counters.failures == 1


def test_wait_ends_with_the_last_running_job(pair: Pair) -> None:
    pair.add(1, 2)
    worker = Worker(pair.source, "p")
    first, second = worker.claim()
    moves: list[int] = []
    told: list[int] = []

    class Ends(Mortal):
        """Ends one running job each time the mover waits for them."""

        def wait(self, *_: object) -> None:
            worker.end(*((first, Ending.FAILED) if not moves else (second, Ending.SUCCEEDED)))
            moves.append(len(stored(pair.target)))

    source: Any = Ends(pair.source, count(1), 0)
    tally = Mover(source, pair.target).run(wait=told.append)
    assert (totals(tally), tally.running.total(), moves, told) == ((1, 1, 0, 0), 0, [0, 1], [2, 1])


def test_job_that_was_cancelled_between_two_steps_stays_cancelled(pair: Pair) -> None:
    ids = pair.add(1, 2)

    class Meddled(Mortal):
        def load(self, jobs: list[Job]) -> Any:
            answers = self._engine.load(jobs)
            pair.source.alter(ids[:1], Cancel())
            return answers

    target: Any = Meddled(pair.target, count(1), 0)
    tally = Mover(pair.source, target).run()
    assert totals(tally) == (1, 1, 0, 0)
    assert (stored(pair.source)[ids[0]].state, [*stored(pair.target)]) == (State.CANCELLED, ids[1:])


def test_job_that_expires_on_its_way_is_expired_in_its_queue(pair: Pair) -> None:
    pair.add(1, expires_in_ms=1000)

    class Late(Mortal):
        def load(self, jobs: list[Job]) -> Any:
            answers = self._engine.load(jobs)
            pair.clock.turn(1000)
            pair.target.tend(ProcessId("p"))
            return answers

    expired_ms = pair.clock.wall_ms() + 1000
    target: Any = Late(pair.target, count(1), 0)
    assert totals(Mover(pair.source, target).run()) == (1, 1, 0, 0)
    [job] = stored(pair.target).values()
    assert (job.queue, job.state, job.ended_ms) == ("mail", State.EXPIRED, expired_ms)


def test_buried_job_that_was_kicked_between_two_steps_is_kicked_in_the_target(pair: Pair) -> None:
    ids = pair.add(1)
    pair.source.alter(ids, Bury())

    class Meddled(Mortal):
        def load(self, jobs: list[Job]) -> Any:
            answers = self._engine.load(jobs)
            pair.source.alter(ids, Kick())
            return answers

    target: Any = Meddled(pair.target, count(1), 0)
    assert totals(Mover(pair.source, target).run()) == (1, 1, 0, 0)
    assert ([*stored(pair.source)], stored(pair.target)[ids[0]].state) == ([], State.READY)


# -- what cannot be moved ---------------------------------------------------------------------------------------------


def test_one_store_is_refused_as_source_and_target(pair: Pair) -> None:
    with pytest.raises(MoveRefused, match="are one store"):
        Mover(pair.source, pair.source)


def test_job_whose_key_is_held_in_the_target_is_left_and_says_so(pair: Pair) -> None:
    details = Details(unique=Unique("k"))
    pair.add(1, details=details)
    pair.add(2)
    pair.target.add([AddRequest((new_job(9, details=details),))])
    tally = pair.move()
    assert totals(tally) == (2, 1, 0, 1)
    [refusal] = tally.refusals
    assert (refusal.id, refusal.queue) == (job_id(1), "mail")
    assert "unique key 'k'" in refusal.why
    assert stored(pair.source)[job_id(1)].state is State.READY
    pair.target.alter([job_id(9)], Cancel())
    assert totals(pair.move()) == (1, 1, 0, 0)


def test_job_that_the_target_has_already_leaves_the_source(pair: Pair) -> None:
    pair.add(1, 2)
    pair.target.load([*stored(pair.source).values()])
    Worker(pair.target, "p").run()
    assert totals(pair.move()) == (2, 0, 2, 0)
    assert (stored(pair.source), {job.state for job in stored(pair.target).values()}) == ({}, {State.SUCCEEDED})


def test_job_that_starts_in_the_source_though_the_target_has_it_is_left_in_both(pair: Pair) -> None:
    """Nothing of the target is deleted but copies that this move made."""
    [id] = pair.add(1)
    pair.target.load([*stored(pair.source).values()])
    Worker(pair.target, "there").run()
    worker = Worker(pair.source, "here")

    class Meddled(Mortal):
        def load(self, jobs: list[Job]) -> Any:
            answers = self._engine.load(jobs)
            pair.source.alter_queue("mail", paused=False)
            assert len(worker.claim()) == 1
            return answers

    target: Any = Meddled(pair.target, count(1), 0)
    tally = Mover(pair.source, target).run()
    assert (totals(tally), tally.running) == ((1, 0, 0, 1), Counter(mail=1))
    assert (stored(pair.source)[id].state, stored(pair.target)[id].state) == (State.RUNNING, State.SUCCEEDED)


def test_copy_that_was_let_run_by_hand_is_named_and_left(pair: Pair) -> None:
    pair.add(1)
    pair.target.load([replace(job, queue="moving-in.0123") for job in stored(pair.source).values()])
    assert len(Worker(pair.target, "there").claim()) == 1
    tally = pair.move()
    assert totals(tally) == (1, 0, 0, 1)
    assert "moving-in" in tally.refusals[0].why


def test_copy_that_a_move_under_another_epoch_left_is_replaced(pair: Pair) -> None:
    [id] = pair.add(1)
    pair.target.alter_queue("moving-in.0123", paused=True)
    pair.target.load([replace(job, queue="moving-in.0123") for job in stored(pair.source).values()])
    pair.source.alter([id], Edit(priority=7))
    assert totals(pair.move()) == (1, 1, 0, 0)
    job = stored(pair.target)[id]
    assert (job.queue, job.priority) == ("mail", 7)


def test_other_job_of_the_same_id_is_left(pair: Pair) -> None:
    pair.add(1)
    pair.clock.turn(5)
    pair.target.add([AddRequest((new_job(1),))])
    tally = pair.move()
    assert totals(tally) == (1, 0, 0, 1)
    assert "another job of this id" in tally.refusals[0].why


def test_store_between_two_moves_is_refused_until_the_first_is_finished(pair: Pair) -> None:
    pair.add(1)
    third = memory_engine(pair.clock)
    assert pair.move_until(_call_of_release(pair), after=False)
    with pytest.raises(MoveRefused, match="was not finished"):
        Mover(pair.source, third)
    with pytest.raises(MoveRefused, match="moving-in"):
        Mover(pair.target, third)
    pair.move()
    assert totals(Mover(pair.target, third).run()) == (1, 1, 0, 0)


def test_job_that_the_target_lost_after_it_was_given_away_is_kept_and_named(pair: Pair) -> None:
    [id] = pair.add(1)
    assert pair.move_until(_call_of_release(pair), after=False)
    pair.target.alter([id], Delete())
    tally = pair.move()
    assert totals(tally) == (1, 0, 0, 1)
    assert f"jobs kick {id}" in tally.refusals[0].why
    pair.source.alter([id], Kick())
    assert totals(pair.move()) == (1, 1, 0, 0)
    assert stored(pair.target)[id].state is State.READY


def _call_of_release(pair: Pair) -> int:
    """Find the call that brings copies out of the staging queue, on a pair like this one."""
    seen: list[str] = []

    class Noted(Mortal):
        def alter(self, ids: list[JobId], alteration: object) -> Any:
            next(self._calls)
            seen.append(f"{type(alteration).__name__}:{len(calls_so_far)}")
            return self._engine.alter(ids, alteration)

    calls_so_far: list[int] = []

    def counting() -> Iterator[int]:
        for number in count(1):
            calls_so_far.append(number)
            yield number

    twin = Pair()
    twin.source.load([*stored(pair.source).values()])
    calls = counting()
    source: Any = Noted(twin.source, calls, 0)
    target: Any = Noted(twin.target, calls, 0)
    Mover(source, target).run()
    return next(int(one.partition(":")[2]) for one in seen if one.startswith("Edit"))


# -- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before-a-call", "after-a-call"])
@pytest.mark.parametrize("between", ["nothing", "target works", "source is resumed", "source is resumed and forgets"])
def test_each_job_runs_once_wherever_the_move_is_killed(between: str, after: bool) -> None:
    """The sweep kills at each call in turn; then the stores are worked on, then the move is run again."""
    for fatal in count(1):
        pair = Pair()
        _fill_for_sweep(pair)
        before = stored(pair.source, Filter(states=CARRIED))
        workers = Worker(pair.source, "s"), Worker(pair.target, "t")
        was_killed = pair.move_until(fatal, after=after)
        _go_on(pair, between, *workers)
        assert all(line.adds_up for line in pair.move().queues.values())
        pair.clock.turn(1000)
        pair.target.tend(ProcessId("t"))
        for id, job in stored(pair.target, Filter(states=frozenset({State.BURIED}))).items():
            assert before[id].state is State.BURIED
            assert job == before[id]
        workers[1].run()
        ran = workers[0].ran + workers[1].ran
        assert ran == Counter(id for id, job in before.items() if job.state in WAITING), f"killed at call {fatal}"
        assert not stored(pair.source, Filter(states=CARRIED))
        assert not [queue.name for queue in pair.target.queues() if queue.name.startswith("moving-")]
        if not was_killed:
            assert fatal > 20
            return


def _fill_for_sweep(pair: Pair) -> None:
    pair.add(1, 2, 3, details=Details(tags=("red",)))
    pair.add(4, 5, queue="slow", delay_ms=1000)
    pair.add(6, 7)
    pair.source.alter([job_id(6), job_id(7)], Bury("to look at"))
    pair.source.alter_queue("slow", max_jobs=50)


def _go_on(pair: Pair, between: str, here: Worker, there: Worker) -> None:
    if between == "target works":
        there.run()
    if between.startswith("source is resumed"):
        for name in ("mail", "slow"):
            pair.source.alter_queue(name, paused=False)
        here.run()
    if between.endswith("forgets"):
        ended = stored(pair.source, Filter(states=frozenset({State.SUCCEEDED})))
        pair.source.alter([*ended], Delete())


@pytest.mark.parametrize("after", [False, True], ids=["before-a-call", "after-a-call"])
def test_move_that_is_given_up_leaves_each_job_in_one_store(after: bool) -> None:
    for fatal in count(1):
        pair = Pair()
        _fill_for_sweep(pair)
        before = stored(pair.source)
        was_killed = pair.move_until(fatal, after=after)
        Mover(pair.source, pair.target).give_up()
        here, there = stored(pair.source, Filter(states=WAITING)), stored(pair.target, Filter(states=WAITING))
        assert not here.keys() & there.keys()
        assert here | there == {id: job for id, job in before.items() if job.state in WAITING}
        assert [(queue.name, queue.paused) for queue in pair.source.queues() if queue.paused] == []
        if not was_killed:
            return


@pytest.mark.parametrize("after", [False, True], ids=["before-a-call", "after-a-call"])
def test_move_killed_again_and_again_ends_with_every_job_in_the_target(after: bool) -> None:
    pair = Pair()
    fill(pair.source, 200)
    before = stored(pair.source, Filter(states=CARRIED))
    for fatal in count(6):
        if not pair.move_until(fatal, after=after):
            break
    assert stored(pair.target) == before
    assert not stored(pair.source, Filter(states=CARRIED))


def test_edit_in_the_target_of_a_job_that_is_there_is_not_undone(pair: Pair) -> None:
    [id] = pair.add(1)
    assert pair.move_until(_call_of_release(pair), after=True)
    pair.target.alter([id], Edit(priority=9))
    pair.move()
    assert stored(pair.target)[id].priority == 9


def test_delayed_jobs_keep_their_time(pair: Pair) -> None:
    [id] = pair.add(1, delay_ms=KEEP_MS)
    pair.move()
    assert stored(pair.target)[id].due_ms == pair.clock.wall_ms() + KEEP_MS
