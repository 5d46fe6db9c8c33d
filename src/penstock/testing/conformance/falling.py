"""Falling back: a change that moves its job to another task, and the way back to the first."""

from typing import Any

import pytest

from penstock.engine import Added, AddRequest, Altered, Edit, Filter, Kick, Upgrade
from penstock.model.errors import IdempotencyConflict
from penstock.model.job import Claim, Counters, Details, Home, JobId
from penstock.model.outcome import Ending
from penstock.model.retry import Policy, Stage
from penstock.model.states import State
from penstock.testing.conformance.adding import unique
from penstock.testing.conformance.trial import Conformance, Trial, change, new_job, want

SIMPLE = Stage("simple", "spare", Policy(max_attempts=2))
SIMPLEST = Stage("simplest", "spare", Policy(max_attempts=1))
ONCE = Policy(max_attempts=1, max_crashes=1, fallbacks=(SIMPLE, SIMPLEST))


class FallingBack(Conformance):
    def test_job_goes_on_under_the_fallback_in_its_queue(self, trial: Trial) -> None:
        claim = fall(trial, priority=7, details=Details(tags=("red",)))
        job = trial.job(claim.id)
        assert (job.state, job.task, job.queue, job.stage, job.priority) == (State.READY, "simple", "spare", 1, 7)
        assert (job.details.home, job.details.tags, job.origin) == (Home("t", "default"), ("red",), "t")
        assert (job.counters, job.claim_number, len(job.history)) == (Counters(), 1, 1)
        assert trial.counts() == trial.recount() == {("spare", "simple", State.READY): 1}

    def test_claim_of_the_fallback_has_the_same_arguments_and_the_next_fence(self, trial: Trial) -> None:
        first = fall(trial)
        second = trial.claim_one()
        assert (second.id, second.task, second.queue, second.stage) == (first.id, "simple", "spare", 1)
        assert (second.envelope, second.crc, second.policy) == (first.envelope, first.crc, first.policy)
        assert (second.fence.number, second.attempt, second.terms) == (2, 1, SIMPLE.policy)

    def test_only_who_knows_the_fallback_and_takes_its_queue_gets_the_job(self, trial: Trial) -> None:
        fall(trial)
        assert trial.claim(tasks={"t": "thread"}) == ()
        assert trial.claim(queues=[["default"]]) == ()
        assert len(trial.claim(tasks={"simple": "process"}, queues=[["spare"]], free={"process": 1})) == 1

    def test_fallback_can_be_claimed_in_the_same_exchange(self, trial: Trial) -> None:
        claim = trial.run(policy=ONCE)
        answer = trial.exchange(change(claim, Ending.FAILED), want=want())
        assert [(again.id, again.task) for again in answer.claims] == [(claim.id, "simple")]
        assert trial.repeat() == answer

    def test_result_of_a_fallback_is_marked_and_found(self, trial: Trial) -> None:
        whole = trial.run()
        trial.end(whole)
        fall(trial)
        second = trial.claim_one()
        trial.end(second, result=b"2")
        job = trial.job(second.id)
        assert (job.state, job.degraded, job.result) == (State.SUCCEEDED, "simple", b"2")
        found = {given: trial.engine.find(Filter(degraded=given)).jobs for given in (True, False, None)}
        assert [[job.id for job in jobs] for jobs in found.values()] == [[second.id], [whole.id], [second.id, whole.id]]

    def test_fallback_fails_by_its_own_policy_and_is_followed_by_the_next(self, trial: Trial) -> None:
        fall(trial)
        trial.end(trial.claim_one(), Ending.FAILED, after_ms=0)
        claim = trial.claim_one()
        assert (claim.task, claim.attempt) == ("simple", 2)
        trial.end(claim, Ending.FAILED)
        claim = trial.claim_one()
        assert (claim.task, claim.stage, claim.details.home) == ("simplest", 2, Home("t", "default"))
        trial.end(claim, Ending.FAILED)
        job = trial.job(claim.id)
        assert (job.state, job.stage, len(job.history)) == (State.BURIED, 2, 4)

    def test_crash_that_is_one_too_many_falls_back_and_runs_among_others(self, trial: Trial) -> None:
        claim = trial.run(policy=ONCE)
        trial.end(claim, Ending.CRASHED)
        assert trial.job(claim.id).counters == Counters()
        assert len(trial.claim(free={"thread": 1})) == 1

    def test_deadline_is_over_once_a_fallback_has_the_job(self, trial: Trial) -> None:
        claim = fall(trial, expires_in_ms=1000)
        trial.clock.turn(1000)
        assert (trial.tend().expired, trial.job(claim.id).expires_ms) == (0, None)
        assert trial.claim_one().id == claim.id

    def test_late_change_moves_nothing(self, trial: Trial) -> None:
        claim = trial.run(policy=ONCE)
        trial.end(claim)
        assert trial.exchange(change(claim, Ending.FAILED)).late == (claim.id,)
        job = trial.job(claim.id)
        assert (job.state, job.task, job.stage) == (State.SUCCEEDED, "t", 0)
        assert trial.counts() == trial.recount()

    def test_job_that_a_fallback_has_is_known_when_it_is_added_again(self, trial: Trial) -> None:
        new = new_job(policy=ONCE, details=Details(idempotency_key="once"))
        trial.add(new)
        trial.end(trial.claim_one(), Ending.FAILED)
        twin = new_job(policy=ONCE, details=Details(idempotency_key="once"))
        other = new_job("other", args="[2]", details=Details(idempotency_key="once"))
        again, by_key, refused = trial.engine.add([AddRequest((job,)) for job in (new, twin, other)])
        assert again == by_key == [Added(new.id, existing=True)]
        assert isinstance(refused, IdempotencyConflict)

    def test_unique_key_is_held_while_a_fallback_has_the_job(self, trial: Trial) -> None:
        claim = fall(trial, details=unique("k"))
        assert trial.try_add(new_job(details=unique("k"))) == [Added(claim.id, existing=True)]
        trial.end(trial.claim_one())
        assert trial.try_add(new := new_job(details=unique("k"))) == [Added(new.id)]

    def test_job_that_was_lost_while_a_fallback_had_it_runs_that_again(self, trial: Trial) -> None:
        fall(trial)
        claim = trial.claim_one()
        trial.end(claim, Ending.LOST)
        again = trial.claim_one()
        assert (again.task, again.stage, again.counters.suspect) == ("simple", 1, True)

    def test_waiting_job_of_a_fallback_can_be_edited_and_kicked(self, trial: Trial) -> None:
        claim = fall(trial)
        trial.alter(claim.id, Edit(queue="mail", envelope=b'{"v":1,"task":"t","args":[2]}'))
        again = trial.claim_one()
        assert (again.task, again.queue, again.envelope) == ("simple", "mail", b'{"v":1,"task":"t","args":[2]}')
        trial.end(again, Ending.FAILED, after_ms=5000)
        trial.alter(claim.id, Kick())
        assert (trial.claim_one().task, trial.job(claim.id).stage) == ("simple", 1)


class Upgrading(Conformance):
    def test_degraded_job_goes_back_to_its_own_task_and_queue(self, trial: Trial) -> None:
        claim = fall(trial, details=Details(tags=("red",)))
        trial.end(trial.claim_one())
        assert trial.alter(claim.id, Upgrade()) == Altered(claim.id, State.SUCCEEDED, State.READY)
        job = trial.job(claim.id)
        assert (job.task, job.queue, job.stage, job.counters) == ("t", "default", 0, Counters())
        assert (job.result, job.degraded, job.details) == (None, None, Details(tags=("red",)))
        again = trial.claim_one()
        assert (again.envelope, again.fence.number, again.terms) == (claim.envelope, 3, ONCE)
        assert trial.counts() == trial.recount()

    def test_upgraded_job_may_fall_back_again(self, trial: Trial) -> None:
        claim = fall(trial)
        trial.end(trial.claim_one())
        trial.alter(claim.id, Upgrade())
        trial.end(trial.claim_one(), Ending.FAILED)
        trial.end(trial.claim_one(), result=b"3")
        assert (trial.job(claim.id).degraded, trial.job(claim.id).result) == ("simple", b"3")

    def test_job_that_was_buried_by_its_last_fallback_can_be_upgraded(self, trial: Trial) -> None:
        claim = trial.run(policy=Policy(max_attempts=1, fallbacks=(SIMPLEST,)))
        for _ in range(2):
            trial.end(claim, Ending.FAILED)
            [claim] = trial.claim(limit=1) or [claim]
        assert trial.alter(claim.id, Upgrade()) == Altered(claim.id, State.BURIED, State.READY)
        assert trial.claim_one().task == "t"

    @pytest.mark.parametrize("ending", [Ending.SUCCEEDED, Ending.FAILED])
    def test_job_that_no_fallback_had_is_left_alone(self, trial: Trial, ending: Ending) -> None:
        claim = trial.run(policy=Policy(max_attempts=1))
        trial.end(claim, ending)
        before = trial.job(claim.id)
        altered = trial.alter(claim.id, Upgrade())
        assert (altered.after, altered.refused) == (before.state, "no fallback took it over")
        assert trial.job(claim.id) == before

    def test_key_that_another_job_holds_refuses_the_upgrade(self, trial: Trial) -> None:
        claim = fall(trial, details=unique("k"))
        trial.end(trial.claim_one())
        holder = trial.add(details=unique("k"))
        assert f"is held by {holder}" in str(trial.alter(claim.id, Upgrade()).refused)
        trial.end(trial.claim_one())
        assert trial.alter(claim.id, Upgrade()).refused is None


def fall(trial: Trial, **fields: Any) -> Claim:
    """Run a job whose task fails for good, and give the claim that it had; its fallback has it then."""
    claim = trial.run(policy=ONCE, **fields)
    trial.end(claim, Ending.FAILED)
    assert trial.state(JobId(claim.id)) is State.READY
    return claim
