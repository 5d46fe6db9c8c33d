"""`add`: what is stored, what is known, what is refused."""

from typing import Any

import pytest

from penstock.engine import ALL_CAPABILITIES, Added, AddRequest, Cancel, Delete
from penstock.model.errors import IdempotencyConflict, LeaseLost, QueueFull, UniqueConflict, Unsupported
from penstock.model.job import Counters, Details, Fence, JobId, Needs, NewJob, Unique
from penstock.model.outcome import Ending
from penstock.model.retry import Policy
from penstock.model.states import State
from penstock.testing.conformance.trial import P1, Conformance, Trial, change, new_job

ASKING = {
    "fair_key": new_job("fair", fair_key="tenant"),
    "parents": new_job("child", details=Details(parents=(JobId("fair"),))),
    "order_key": new_job("ordered", details=Details(order_key="account-7")),
    "limit_keys": new_job("limited", details=Details(limit_keys=("api",))),
    "needs": new_job("needy", details=Details(needs=Needs(tags=("gpu",)))),
}


class Adding(Conformance):
    def test_job_is_stored_as_it_was_asked_for(self, trial: Trial) -> None:
        details = Details(tags=("red", "blue"), topic="orders")
        policy = Policy(max_attempts=2, retry_on=("builtins.OSError",))
        new = new_job(queue="mail", priority=7, crc=11, policy=policy, details=details)
        trial.add(new)
        job = trial.job(new.id)
        assert (job.task, job.queue, job.priority, job.crc) == ("t", "mail", 7, 11)
        assert (job.envelope, job.policy, job.details) == (new.envelope, policy, details)
        assert (job.state, job.counters, job.claim_number) == (State.READY, Counters(), 0)
        assert (job.created_ms, job.due_ms, job.ended_ms) == (trial.clock.wall_ms(), None, None)

    def test_answers_stand_in_the_order_of_the_jobs(self, trial: Trial) -> None:
        jobs = [new_job() for _ in range(5)]
        assert trial.add_all(*jobs) == [Added(job.id) for job in jobs]

    def test_nothing_is_answered_with_nothing(self, trial: Trial) -> None:
        assert trial.engine.add([]) == []
        assert trial.engine.add([AddRequest(())]) == [[]]

    def test_delayed_job_is_scheduled_by_the_clock_of_the_store(self, trial: Trial) -> None:
        job = trial.job(trial.add(delay_ms=5000))
        assert (job.state, job.due_ms) == (State.SCHEDULED, trial.clock.wall_ms() + 5000)

    def test_job_with_a_later_time_is_scheduled(self, trial: Trial) -> None:
        at = trial.clock.wall_ms() + 1
        job = trial.job(trial.add(run_at_ms=at))
        assert (job.state, job.due_ms) == (State.SCHEDULED, at)

    def test_job_whose_time_has_come_is_ready(self, trial: Trial) -> None:
        job = trial.job(trial.add(run_at_ms=trial.clock.wall_ms()))
        assert (job.state, job.due_ms) == (State.READY, None)

    def test_deadline_may_be_a_time_or_a_duration(self, trial: Trial) -> None:
        at = trial.clock.wall_ms() + 700
        assert trial.job(trial.add(expires_ms=at)).expires_ms == at
        assert trial.job(trial.add(expires_in_ms=700)).expires_ms == at

    def test_counts_and_queues_know_a_new_job(self, trial: Trial) -> None:
        trial.add(queue="mail")
        trial.add(queue="mail", delay_ms=5)
        assert trial.counts() == {("mail", "t", State.READY): 1, ("mail", "t", State.SCHEDULED): 1}
        [queue] = trial.engine.queues()
        assert (queue.name, queue.unfinished, queue.paused, queue.max_jobs) == ("mail", 2, False, None)


class Idempotency(Conformance):
    def test_known_id_with_the_same_content_exists(self, trial: Trial) -> None:
        new = new_job()
        assert trial.add_all(new, new) == [Added(new.id), Added(new.id, existing=True)]
        assert trial.add_all(new) == [Added(new.id, existing=True)]
        assert trial.recount() == {("default", "t", State.READY): 1}

    def test_known_id_exists_whatever_became_of_the_job(self, trial: Trial) -> None:
        new = new_job()
        trial.add(new)
        trial.end(trial.claim_one())
        assert trial.add_all(new) == [Added(new.id, existing=True)]
        assert trial.state(new.id) is State.SUCCEEDED

    @pytest.mark.parametrize("other", [new_job("same", args="[2]"), new_job("same", task="u", args="[1]")])
    def test_known_id_with_other_content_is_a_conflict(self, trial: Trial, other: object) -> None:
        trial.add(new_job("same", args="[1]"))
        refused = trial.try_add(new_job("before"), other)  # type: ignore[arg-type]
        assert isinstance(refused, IdempotencyConflict)
        assert (refused.key, refused.holder) == ("same", "same")
        assert trial.state(JobId("before")) is None

    def test_known_key_answers_with_its_holder(self, trial: Trial) -> None:
        details = Details(idempotency_key="order-7")
        first = trial.add(details=details)
        assert trial.add_all(new_job(details=details)) == [Added(first, existing=True)]

    def test_known_key_with_other_content_is_a_conflict(self, trial: Trial) -> None:
        details = Details(idempotency_key="order-7")
        first = trial.add(details=details)
        refused = trial.try_add(new_job(args="[2]", details=details))
        assert isinstance(refused, IdempotencyConflict)
        assert (refused.key, refused.holder) == ("order-7", first)

    def test_key_is_seen_by_later_jobs_of_the_same_request(self, trial: Trial) -> None:
        details = Details(idempotency_key="order-7")
        first, second = new_job(details=details), new_job(details=details)
        assert trial.add_all(first, second) == [Added(first.id), Added(first.id, existing=True)]

    def test_key_is_free_once_its_job_is_deleted(self, trial: Trial) -> None:
        details = Details(idempotency_key="order-7")
        trial.alter(trial.add(details=details), Delete())
        again = new_job(args="[2]", details=details)
        assert trial.add_all(again) == [Added(again.id)]


class Uniqueness(Conformance):
    def test_held_key_keeps_its_holder(self, trial: Trial) -> None:
        first = trial.add(details=unique("k"))
        assert trial.add_all(new_job(details=unique("k"))) == [Added(first, existing=True)]

    def test_held_key_refuses_when_asked_to(self, trial: Trial) -> None:
        first = trial.add(details=unique("k"))
        refused = trial.try_add(new_job("other"), new_job(details=unique("k", clash="refuse")))
        assert isinstance(refused, UniqueConflict)
        assert (refused.key, refused.holder) == ("k", first)
        assert trial.state(JobId("other")) is None

    @pytest.mark.parametrize("delay_ms", [0, 5000])
    def test_waiting_holder_is_replaced_when_asked_to(self, trial: Trial, delay_ms: int) -> None:
        first = trial.add(details=unique("k"), delay_ms=delay_ms)
        second = new_job(details=unique("k", clash="replace"))
        assert trial.add_all(second) == [Added(second.id)]
        ended = trial.job(first)
        assert (ended.state, ended.ended_ms) == (State.CANCELLED, trial.clock.wall_ms())
        assert ended.error is not None
        assert (ended.error.kind, ended.error.message) == ("cancelled", f"replaced by {second.id}")
        assert ended.history == (ended.error,)

    def test_running_holder_is_not_replaced(self, trial: Trial) -> None:
        first = trial.run(details=unique("k"))
        second = new_job(details=unique("k", clash="replace"))
        assert trial.add_all(second) == [Added(first.id, existing=True)]

    def test_key_is_seen_by_later_jobs_of_the_same_request(self, trial: Trial) -> None:
        first, second = new_job(details=unique("k")), new_job(details=unique("k"))
        third = new_job(details=unique("k", clash="replace"))
        assert trial.add_all(first, second, third) == [Added(first.id), Added(first.id, existing=True), Added(third.id)]
        assert (trial.state(first.id), trial.state(third.id)) == (State.CANCELLED, State.READY)

    def test_refused_request_replaces_nothing(self, trial: Trial) -> None:
        first = trial.add(details=unique("k"))
        held = trial.add(details=unique("other"))
        refused = trial.try_add(
            new_job(details=unique("k", clash="replace")), new_job(details=unique("other", clash="refuse"))
        )
        assert isinstance(refused, UniqueConflict)
        assert (trial.state(first), trial.state(held)) == (State.READY, State.READY)
        assert trial.add_all(new_job(details=unique("k"))) == [Added(first, existing=True)]

    @pytest.mark.parametrize("ending", [Ending.SUCCEEDED, Ending.CANCELLED])
    def test_key_until_ended_is_free_in_a_final_state(self, trial: Trial, ending: Ending) -> None:
        claim = trial.run(details=unique("k"))
        assert trial.add(details=unique("k")) == claim.id
        trial.end(claim, ending)
        assert trial.add(details=unique("k")) != claim.id

    def test_buried_job_frees_its_key(self, trial: Trial) -> None:
        claim = trial.run(details=unique("k"), policy=Policy(max_attempts=1))
        trial.end(claim, Ending.FAILED)
        assert trial.state(claim.id) is State.BURIED
        assert trial.add(details=unique("k")) != claim.id

    def test_key_stays_held_between_attempts(self, trial: Trial) -> None:
        claim = trial.run(details=unique("k"))
        trial.end(claim, Ending.FAILED)
        assert trial.add(details=unique("k")) == claim.id

    def test_key_until_started_is_free_once_claimed(self, trial: Trial) -> None:
        first = trial.add(details=unique("k", until="started"))
        assert trial.add(details=unique("k", until="started")) == first
        trial.claim_one()
        assert trial.add(details=unique("k", until="started")) != first

    def test_key_until_started_is_free_when_the_job_ends_unstarted(self, trial: Trial) -> None:
        first = trial.add(details=unique("k", until="started"))
        trial.alter(first, Cancel())
        assert trial.add(details=unique("k", until="started")) != first

    def test_window_holds_its_key_however_the_job_fares(self, trial: Trial) -> None:
        details = unique("k", until="window", window_ms=1000)
        claim = trial.run(details=details)
        trial.end(claim)
        assert trial.add(details=details) == claim.id
        trial.alter(claim.id, Delete())
        assert trial.add(details=details) == claim.id
        trial.clock.turn(999)
        assert trial.add(details=details) == claim.id
        trial.clock.turn(1)
        assert trial.add(details=details) != claim.id


class Capacity(Conformance):
    def test_full_queue_refuses_the_request_and_says_when_to_come_back(self, trial: Trial) -> None:
        trial.engine.alter_queue("mail", max_jobs=2)
        trial.add(queue="mail")
        refused = trial.try_add(new_job("a", queue="mail"), new_job("b", queue="mail"))
        assert isinstance(refused, QueueFull)
        assert (refused.queue, refused.limit, refused.retry_after) == ("mail", 2, 5.0)
        assert trial.state(JobId("a")) is None
        assert trial.add(queue="mail")

    def test_other_requests_of_the_call_are_not_touched(self, trial: Trial) -> None:
        trial.engine.alter_queue("mail", max_jobs=1)
        answers = trial.engine.add(
            [
                AddRequest((new_job("a", queue="mail"),)),
                AddRequest((new_job("b", queue="mail"),)),
                AddRequest((new_job("c", queue="other"),)),
            ]
        )
        assert answers[0] == [Added(JobId("a"))]
        assert isinstance(answers[1], QueueFull)
        assert answers[2] == [Added(JobId("c"))]

    def test_running_and_scheduled_jobs_take_room_and_ended_ones_do_not(self, trial: Trial) -> None:
        trial.engine.alter_queue("mail", max_jobs=2)
        claim = trial.run(queue="mail")
        trial.add(queue="mail", delay_ms=1000)
        assert isinstance(trial.try_add(new_job(queue="mail")), QueueFull)
        trial.end(claim)
        assert trial.add(queue="mail")

    def test_known_and_replaced_jobs_take_no_room(self, trial: Trial) -> None:
        trial.engine.alter_queue("mail", max_jobs=1)
        new = new_job(queue="mail", details=unique("k"))
        trial.add(new)
        assert trial.add_all(new) == [Added(new.id, existing=True)]
        successor = new_job(queue="mail", details=unique("k", clash="replace"))
        assert trial.add_all(successor) == [Added(successor.id)]

    def test_lifted_bound_takes_every_job(self, trial: Trial) -> None:
        trial.engine.alter_queue("mail", max_jobs=0)
        assert isinstance(trial.try_add(new_job(queue="mail")), QueueFull)
        trial.engine.alter_queue("mail", unlimited=True)
        assert trial.add(queue="mail")

    def test_retry_after_follows_the_measured_rate(self, trial: Trial) -> None:
        for _ in range(20):
            trial.add(queue="mail")
        trial.tend()
        trial.exchange(*(change(claim) for claim in trial.claim()))
        trial.clock.turn(10_000)
        trial.keep_alive(P1)
        trial.tend()
        trial.engine.alter_queue("mail", max_jobs=0)
        assert trial.engine.queues()[0].rate == pytest.approx(2.0)
        refused = trial.try_add(*(new_job(queue="mail") for _ in range(5)))
        assert isinstance(refused, QueueFull)
        assert refused.retry_after == pytest.approx(2.5)


class Children(Conformance):
    def test_running_job_adds_children(self, trial: Trial) -> None:
        claim = trial.run()
        child = new_job()
        assert trial.engine.add([AddRequest((child,), (claim.id, claim.fence))]) == [[Added(child.id)]]

    def test_stale_claim_adds_nothing(self, trial: Trial) -> None:
        claim = trial.run()
        trial.end(claim)
        child = new_job()
        [refused] = trial.engine.add([AddRequest((child,), (claim.id, claim.fence))])
        assert isinstance(refused, LeaseLost)
        assert trial.state(child.id) is None

    def test_claim_with_another_token_adds_nothing(self, trial: Trial) -> None:
        claim = trial.run()
        forged = Fence(claim.fence.number, claim.fence.token ^ 1)
        [refused] = trial.engine.add([AddRequest((new_job(),), (claim.id, forged))])
        assert isinstance(refused, LeaseLost)


class EdgeOfAdding(Conformance):
    def test_request_of_a_thousand_jobs_is_taken_and_one_more_is_not(self, trial: Trial) -> None:
        jobs = [new_job() for _ in range(1001)]
        with pytest.raises(ValueError, match="1,000"):
            trial.try_add(*jobs)
        assert len(trial.add_all(*jobs[:1000])) == 1000
        assert trial.engine.queues()[0].unfinished == 1000

    @pytest.mark.parametrize("priority", [-101, 101])
    def test_priority_out_of_bounds_is_refused(self, trial: Trial, priority: int) -> None:
        with pytest.raises(ValueError, match=str(priority)):
            trial.add(priority=priority)

    @pytest.mark.parametrize("queue", ["", "a b", "ä", "a/b", "x" * 129, "mail\n"])
    def test_queue_name_out_of_form_is_refused(self, trial: Trial, queue: str) -> None:
        with pytest.raises(ValueError, match="queue"):
            trial.add(queue=queue)

    @pytest.mark.parametrize("id", ["", "x" * 65])
    def test_id_out_of_form_is_refused(self, trial: Trial, id: str) -> None:
        with pytest.raises(ValueError, match="id"):
            trial.engine.add([AddRequest((new_job("fine"), _with_id(id)))])
        assert trial.recount() == {}

    @pytest.mark.parametrize("capability", sorted(ASKING))
    def test_field_is_refused_without_its_capability(self, trial: Trial, capability: str) -> None:
        if capability in trial.engine.capabilities:
            pytest.skip(f"the engine declares {capability}")
        with pytest.raises(Unsupported, match=capability):
            trial.add(ASKING[capability])
        assert trial.recount() == {}

    def test_capabilities_are_known_ones(self, trial: Trial) -> None:
        assert trial.engine.capabilities <= ALL_CAPABILITIES
        assert trial.engine.describe().capabilities == trial.engine.capabilities


def unique(key: str, **fields: Any) -> Details:
    """Make the details of a job with a unique key."""
    return Details(unique=Unique(key, **fields))


def _with_id(id: str) -> NewJob:
    return NewJob(id=JobId(id), task="t", envelope=b"{}")
