"""`load`: jobs of another store enter as they were there, each once, with their keys."""

from typing import Any

import pytest
from msgspec.structs import replace

from penstock.engine import Added, Delete, Edit, Kick, Subject, Tended
from penstock.model.errors import IdempotencyConflict, PenstockError, UniqueConflict, Unsupported
from penstock.model.job import Avoid, Counters, Details, ErrorInfo, Former, Job, JobId, NewJob, ProcessId, Progress
from penstock.model.outcome import Ending
from penstock.model.retry import Policy
from penstock.model.states import FINAL, State
from penstock.testing.clock import MORNING_MS
from penstock.testing.conformance.adding import ASKING, unique
from penstock.testing.conformance.trial import Conformance, EngineFactory, Trial, new_job

LOADABLE = (State.SCHEDULED, State.READY, State.SUCCEEDED, State.CANCELLED, State.EXPIRED, State.BURIED)
EARLIER_MS = MORNING_MS - 60_000
FAILURES = tuple(ErrorInfo("failed", type="builtins.OSError", message=f"try {n}", attempt=n, at_ms=n) for n in (1, 2))
KEEP = Policy(max_attempts=5, keep_ms=3_600_000)


class Loading(Conformance):
    @pytest.mark.parametrize("state", LOADABLE)
    def test_job_is_stored_as_the_other_store_had_it(self, trial: Trial, state: State) -> None:
        job = seasoned_job(state)
        assert load(trial, job) == [Added(job.id)]
        assert trial.job(job.id) == job

    @pytest.mark.parametrize("state", LOADABLE)
    def test_plain_job_is_stored_as_the_other_store_had_it(self, trial: Trial, state: State) -> None:
        job = loaded_job(state)
        assert load(trial, job) == [Added(job.id)]
        assert trial.job(job.id) == job

    def test_error_that_was_forgiven_stays_in_the_history_alone(self, trial: Trial) -> None:
        jobs = [loaded_job(state, history=FAILURES) for state in (State.READY, State.SUCCEEDED)]
        load(trial, *jobs)
        assert [trial.job(job.id) for job in jobs] == jobs

    def test_answers_stand_in_the_order_of_the_jobs(self, trial: Trial) -> None:
        known = loaded_job(State.READY)
        load(trial, known)
        jobs = [loaded_job(state) for state in LOADABLE]
        expected = [Added(known.id, existing=True), *(Added(job.id) for job in jobs)]
        assert load(trial, known, *jobs) == expected
        assert load(trial) == []

    @pytest.mark.parametrize("state", LOADABLE)
    def test_known_job_exists_and_stays_as_it_is(self, trial: Trial, state: State) -> None:
        new = new_job()
        trial.add(new)
        before = trial.job(new.id)
        other = replace(seasoned_job(state), id=new.id)
        assert load(trial, other) == [Added(new.id, existing=True)]
        assert trial.job(new.id) == before
        assert trial.counts() == trial.recount()

    def test_job_that_is_named_twice_is_stored_once(self, trial: Trial) -> None:
        job = loaded_job(State.READY)
        assert load(trial, job, job) == [Added(job.id), Added(job.id, existing=True)]
        assert [claim.id for claim in trial.claim()] == [job.id]

    def test_counts_and_queues_know_loaded_jobs(self, trial: Trial) -> None:
        load(trial, *(loaded_job(state, queue="mail", task="u") for state in LOADABLE))
        assert trial.counts() == {("mail", "u", state): 1 for state in LOADABLE}
        [queue] = trial.engine.queues()
        assert (queue.name, queue.unfinished, queue.paused, queue.oldest_ms) == ("mail", 2, False, 0)

    def test_bounds_do_not_hold_for_loaded_jobs(self, trial: Trial) -> None:
        trial.engine.alter_queue("default", max_jobs=0)
        job = loaded_job(State.READY)
        assert load(trial, job) == [Added(job.id)]

    def test_loaded_job_is_known_when_it_is_added(self, trial: Trial) -> None:
        new = new_job()
        load(trial, loaded_job(State.SUCCEEDED, id=new.id, envelope=new.envelope))
        assert trial.add_all(new) == [Added(new.id, existing=True)]

    def test_loaded_ends_do_not_count_in_the_rate_of_a_queue(self, trial: Trial) -> None:
        trial.end(trial.run(queue="mail"))
        trial.tend()
        load(trial, *(loaded_job(State.SUCCEEDED, queue="mail") for _ in range(50)))
        trial.clock.turn(20_000)
        trial.tend()
        [queue] = trial.engine.queues()
        assert queue.rate == 0

    def test_loaded_ready_job_raises_the_mark(self, trial: Trial) -> None:
        mark = trial.exchange().mark
        load(trial, loaded_job(State.READY))
        trial.engine.wait(Subject(queues=()), mark, 60)
        assert trial.exchange().mark > mark

    def test_loaded_end_is_told_to_those_who_wait_for_it(self, trial: Trial) -> None:
        job = loaded_job(State.SUCCEEDED)
        load(trial, job)
        trial.engine.wait(Subject(jobs=(job.id,)), 0, 60)


class GoingOn(Conformance):
    """What becomes of a job after it was loaded."""

    def test_ready_jobs_stand_behind_those_that_are_there(self, trial: Trial) -> None:
        trial.add_all(new_job("m"), new_job("z", priority=-5))
        load(trial, *(loaded_job(State.READY, id=id) for id in "cab"))
        load(trial, loaded_job(State.READY, id="high", priority=5), loaded_job(State.READY, id="last"))
        assert [claim.id for claim in trial.claim()] == ["high", "m", "c", "a", "b", "last", "z"]

    def test_claim_goes_on_from_what_was_loaded(self, trial: Trial) -> None:
        job = seasoned_job(State.READY)
        load(trial, job)
        claim = trial.claim_one()
        assert (claim.fence.number, claim.attempt, claim.stage) == (job.claim_number + 1, 4, job.stage)
        assert (claim.counters, claim.policy, claim.details) == (job.counters, job.policy, job.details)
        assert (claim.envelope, claim.crc, claim.enqueued_ms) == (job.envelope, job.crc, job.created_ms)
        assert (claim.priority, claim.cancel_requested) == (job.priority, True)
        trial.end(claim, Ending.FAILED, after_ms=1000)
        after = trial.job(job.id)
        assert (after.state, after.history[:2], after.counters.failures) == (State.SCHEDULED, FAILURES, 3)

    @pytest.mark.parametrize("counters", [Counters(suspect=True), Counters(attempts=1, crashes=1)])
    def test_job_that_runs_alone_still_does(self, trial: Trial, counters: Counters) -> None:
        load(trial, loaded_job(State.READY, counters=counters))
        assert trial.claim(free={"thread": 9}) == ()
        assert len(trial.claim(free={"process": 9})) == 1

    def test_scheduled_job_is_ready_when_it_is_due(self, trial: Trial) -> None:
        due, later = loaded_job(State.SCHEDULED, due_ms=1), loaded_job(State.SCHEDULED, due_ms=MORNING_MS + 700)
        load(trial, later, due)
        assert trial.tend() == Tended(due=1, next_ms=700)
        assert [claim.id for claim in trial.claim()] == [due.id]

    def test_job_that_never_started_still_expires(self, trial: Trial) -> None:
        jobs = [loaded_job(state, expires_ms=MORNING_MS + 1000) for state in (State.READY, State.SCHEDULED)]
        load(trial, *jobs)
        assert trial.tend().next_ms == 1000
        trial.clock.turn(1000)
        assert trial.tend().expired == 2

    def test_job_with_a_charged_attempt_no_longer_expires(self, trial: Trial) -> None:
        ready = loaded_job(State.READY, expires_ms=EARLIER_MS, counters=Counters(attempts=1, failures=1))
        scheduled = replace(ready, id=JobId("scheduled"), state=State.SCHEDULED, due_ms=MORNING_MS + 700)
        load(trial, ready, scheduled)
        assert trial.tend() == Tended(next_ms=700)
        assert [claim.id for claim in trial.claim()] == [ready.id]

    def test_retention_runs_from_when_a_job_ended(self, trial: Trial) -> None:
        policy = Policy(keep_ms=61_000)
        jobs = [loaded_job(state, policy=policy, ended_ms=EARLIER_MS) for state in FINAL]
        load(trial, *jobs)
        assert trial.tend().pruned == 0
        trial.clock.turn(1000)
        assert trial.tend().pruned == 3
        assert trial.recount() == {("default", "t", State.BURIED): 1}

    def test_loaded_ends_count_among_those_that_a_queue_keeps(self, engine_factory: EngineFactory) -> None:
        trial = Trial(engine_factory, max_ended=2)
        load(trial, *(loaded_job(State.SUCCEEDED, ended_ms=EARLIER_MS + n, policy=KEEP) for n in range(5)))
        assert trial.tend().pruned == 3

    @pytest.mark.parametrize("alteration", [Kick(), Edit(priority=3)])
    def test_buried_job_comes_back_as_it_would_have(self, trial: Trial, alteration: Kick | Edit) -> None:
        job = seasoned_job(State.BURIED)
        load(trial, job)
        assert trial.alter(job.id, alteration).after is State.READY
        after = trial.job(job.id)
        assert (after.error, after.history, after.claim_number) == (None, FAILURES, job.claim_number)
        assert trial.claim_one().fence.number == job.claim_number + 1

    def test_waiting_job_can_be_brought_to_another_queue(self, trial: Trial) -> None:
        load(trial, *(loaded_job(State.READY, id=id, queue="here") for id in "ba"))
        trial.engine.alter([JobId("a"), JobId("b")], Edit(queue="there"))
        assert [(claim.queue, claim.id) for claim in trial.claim()] == [("there", "a"), ("there", "b")]

    @pytest.mark.parametrize("state", LOADABLE)
    def test_deleted_job_can_be_loaded_again(self, trial: Trial, state: State) -> None:
        job = seasoned_job(state, details=Details(idempotency_key="order-7", unique=unique("k").unique))
        load(trial, job)
        trial.alter(job.id, Delete())
        assert trial.counts() == {}
        assert load(trial, job) == [Added(job.id)]
        assert trial.job(job.id) == job


class LoadingKeys(Conformance):
    @pytest.mark.parametrize("state", [State.SCHEDULED, State.READY])
    @pytest.mark.parametrize("until", ["started", "ended", "window"])
    def test_waiting_job_holds_its_key(self, trial: Trial, state: State, until: str) -> None:
        job = loaded_job(state, details=unique("k", until=until, window_ms=70_000))
        load(trial, job)
        assert trial.add_all(new_job(details=unique("k", until=until, window_ms=1))) == [Added(job.id, existing=True)]

    @pytest.mark.parametrize("state", sorted(FINAL))
    @pytest.mark.parametrize("until", ["started", "ended"])
    def test_ended_job_holds_no_key_but_a_window(self, trial: Trial, state: State, until: str) -> None:
        load(trial, loaded_job(state, details=unique("k", until=until)))
        assert not trial.add_all(new_job(details=unique("k")))[0].existing

    def test_key_until_the_start_is_over_once_a_job_was_claimed(self, trial: Trial) -> None:
        load(trial, loaded_job(State.READY, claim_number=1, details=unique("k", until="started")))
        assert not trial.add_all(new_job(details=unique("k", until="started")))[0].existing

    def test_key_until_the_end_is_held_once_a_job_was_claimed(self, trial: Trial) -> None:
        job = loaded_job(State.READY, claim_number=1, details=unique("k"))
        load(trial, job)
        assert trial.add_all(new_job(details=unique("k"))) == [Added(job.id, existing=True)]

    def test_keys_are_freed_at_the_start_and_the_end(self, trial: Trial) -> None:
        load(trial, loaded_job(State.READY, id="s", details=unique("s", until="started")))
        load(trial, loaded_job(State.READY, id="e", details=unique("e", until="ended")))
        claims = {claim.id: claim for claim in trial.claim()}
        assert not trial.add_all(new_job(details=unique("s", until="started")))[0].existing
        assert trial.add_all(new_job(details=unique("e")))[0].existing
        trial.end(claims[JobId("e")])
        assert not trial.add_all(new_job(details=unique("e")))[0].existing

    @pytest.mark.parametrize("state", LOADABLE)
    def test_of_a_window_there_is_what_is_left(self, trial: Trial, state: State) -> None:
        window = unique("k", until="window", window_ms=61_000)
        job = loaded_job(state, details=window, created_ms=EARLIER_MS)
        load(trial, job)
        trial.clock.turn(999)
        assert trial.add_all(new_job(details=window)) == [Added(job.id, existing=True)]
        trial.clock.turn(1)
        assert not trial.add_all(new_job(details=window))[0].existing

    def test_window_that_is_over_holds_nothing(self, trial: Trial) -> None:
        window = unique("k", until="window", window_ms=60_000)
        load(trial, loaded_job(State.READY, details=window, created_ms=EARLIER_MS))
        assert not trial.add_all(new_job(details=window))[0].existing

    @pytest.mark.parametrize("state", LOADABLE)
    def test_window_that_a_deleted_job_left_is_its_own_when_it_comes_back(self, trial: Trial, state: State) -> None:
        job = loaded_job(state, details=unique("k", until="window", window_ms=70_000))
        load(trial, job)
        trial.alter(job.id, Delete())
        assert load(trial, job) == [Added(job.id)]
        assert trial.add_all(new_job(details=unique("k"))) == [Added(job.id, existing=True)]

    @pytest.mark.parametrize("clash", ["keep", "replace", "refuse"])
    def test_key_that_another_job_holds_is_a_conflict_whatever_the_clash(self, trial: Trial, clash: str) -> None:
        holder = trial.add(details=unique("k"))
        job = loaded_job(State.READY, details=unique("k", clash=clash))
        [refused] = load(trial, job)
        assert isinstance(refused, UniqueConflict)
        assert (refused.key, refused.holder) == ("k", holder)
        assert (trial.state(job.id), trial.state(holder)) == (None, State.READY)

    def test_ended_job_lets_go_of_a_window_that_another_holds(self, trial: Trial) -> None:
        holder = trial.add(details=unique("k"))
        job = loaded_job(State.CANCELLED, details=unique("k", until="window", window_ms=99_000))
        assert load(trial, job) == [Added(job.id)]
        assert trial.add_all(new_job(details=unique("k"))) == [Added(holder, existing=True)]
        trial.end(trial.claim_one())
        assert not trial.add_all(new_job(details=unique("k")))[0].existing

    @pytest.mark.parametrize("state", LOADABLE)
    def test_idempotency_key_is_taken(self, trial: Trial, state: State) -> None:
        new = new_job(details=Details(idempotency_key="order-7"))
        job = loaded_job(state, envelope=new.envelope, details=new.details)
        load(trial, job)
        assert trial.add_all(new) == [Added(job.id, existing=True)]

    def test_idempotency_key_of_another_job_is_a_conflict_whatever_the_content(self, trial: Trial) -> None:
        new = new_job(details=Details(idempotency_key="order-7", unique=unique("k").unique))
        other = trial.add(details=Details(idempotency_key="order-7"))
        [refused] = load(trial, loaded_job(State.READY, envelope=new.envelope, details=new.details))
        assert isinstance(refused, IdempotencyConflict)
        assert (refused.key, refused.holder) == ("order-7", other)
        assert not trial.add_all(new_job(details=unique("k")))[0].existing

    def test_keys_are_seen_by_later_jobs_of_the_same_load(self, trial: Trial) -> None:
        first, second = (loaded_job(State.READY, details=unique("k")) for _ in range(2))
        third = loaded_job(State.READY)
        answers = load(trial, first, second, third)
        assert isinstance(answers[1], UniqueConflict)
        assert [answers[0], answers[2]] == [Added(first.id), Added(third.id)]
        assert trial.counts() == trial.recount()


class EdgeOfLoading(Conformance):
    @pytest.mark.parametrize("state", [State.RUNNING, State.BLOCKED])
    def test_job_that_is_bound_to_others_is_refused(self, trial: Trial, state: State) -> None:
        before = loaded_job(State.READY)
        with pytest.raises(ValueError, match=state.value):
            load(trial, before, loaded_job(state))
        assert trial.state(before.id) is None

    @pytest.mark.parametrize(
        ("state", "fields"),
        [
            (State.READY, {"due_ms": 1}),
            (State.SCHEDULED, {"due_ms": None}),
            (State.READY, {"ended_ms": 1}),
            (State.BURIED, {"ended_ms": None}),
            (State.BURIED, {"cancel_requested": True}),
            (State.READY, {"result": b"1"}),
            (State.BURIED, {"result": b"1"}),
            (State.READY, {"error": FAILURES[0]}),
            (State.READY, {"error": FAILURES[0], "history": FAILURES}),
            (State.READY, {"queue": "a b"}),
            (State.READY, {"priority": 101}),
            (State.READY, {"id": ""}),
        ],
    )
    def test_job_at_odds_with_itself_is_refused(self, trial: Trial, state: State, fields: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"Job|job|queue|priority"):
            load(trial, loaded_job(state, **fields))
        assert trial.recount() == {}

    def test_more_than_a_thousand_jobs_are_refused(self, trial: Trial) -> None:
        job = loaded_job(State.READY)
        with pytest.raises(ValueError, match="1,000"):
            load(trial, *[job] * 1001)

    @pytest.mark.parametrize("capability", sorted(ASKING))
    def test_capability_that_is_not_declared_is_refused(self, trial: Trial, capability: str) -> None:
        if capability in trial.engine.capabilities:
            return
        asking: NewJob = ASKING[capability]
        job = loaded_job(State.READY, fair_key=asking.fair_key, details=asking.details)
        with pytest.raises(Unsupported, match=capability):
            load(trial, job)
        assert trial.state(job.id) is None


def load(trial: Trial, *jobs: Job) -> list[Added | PenstockError]:
    return trial.engine.load(jobs)


def loaded_job(state: State, *, id: str | None = None, task: str = "t", **fields: Any) -> Job:
    """Make a job as another store had it, with the times that its state asks for."""
    new = new_job(task=task)
    fields.setdefault("envelope", new.envelope)
    fields.setdefault("queue", "default")
    fields.setdefault("created_ms", EARLIER_MS)
    if state is State.SCHEDULED:
        fields.setdefault("due_ms", MORNING_MS + 30_000)
    if state.is_final:
        fields.setdefault("ended_ms", EARLIER_MS + 500)
    return Job(id=new.id if id is None else JobId(id), state=state, task=task, **fields)


def seasoned_job(state: State, **fields: Any) -> Job:
    """Make a job that has been through a lot, so that no field has its default."""
    counters = Counters(attempts=3, failures=2, interruptions=4, losses=1, snoozes=5)
    filled: dict[str, Any] = {
        "queue": "mail",
        "crc": 7,
        "priority": 9,
        "policy": Policy(max_attempts=9, max_crashes=8, keep_ms=9_000_000),
        "details": Details(
            tags=("red",),
            idempotency_key="i",
            topic="orders",
            edits=(Former(7, "ada", envelope="old", size=3),),
            avoid=(Avoid("w9", "boot", 7, 5),),
        ),
        "counters": counters,
        "claim_number": 12,
        "stage": 1,
        "cancel_requested": not state.is_final,
        "expires_ms": MORNING_MS + 90_000,
        "claimed_ms": EARLIER_MS + 10,
        "ran_us": 777,
        "error": FAILURES[-1],
        "history": FAILURES,
        "progress": Progress(3.0, 4.0, "nearly"),
        "process": ProcessId("p-of-there"),
    }
    if state is State.SUCCEEDED:
        filled |= {"result": b'{"sum":7}', "degraded": "plan_b", "error": None}
    return loaded_job(state, **{**filled, **fields})
