"""`tend`: what passing time does to jobs that nobody holds."""

from penstock.engine import Bury, Note, Tended
from penstock.model.job import Details, ProcessId
from penstock.model.outcome import Ending
from penstock.model.retry import Policy
from penstock.model.states import State
from penstock.testing.conformance.adding import unique
from penstock.testing.conformance.trial import LEASE_MS, P1, Conformance, EngineFactory, Trial, new_job


class FallingDue(Conformance):
    def test_due_job_becomes_ready(self, trial: Trial) -> None:
        id = trial.add(delay_ms=1000)
        trial.clock.turn(999)
        assert trial.tend() == Tended(next_ms=1)
        trial.clock.turn(1)
        assert trial.tend() == Tended(due=1)
        job = trial.job(id)
        assert (job.state, job.due_ms) == (State.READY, None)

    def test_due_jobs_stand_in_the_order_of_their_time(self, trial: Trial) -> None:
        trial.add_all(new_job("a", delay_ms=3), new_job("c", delay_ms=2), new_job("b", delay_ms=2))
        ready = trial.add()
        trial.clock.turn(3)
        trial.tend()
        assert [claim.id for claim in trial.claim()] == [ready, "b", "c", "a"]

    def test_bounded_steps_say_when_there_is_more(self, trial: Trial) -> None:
        trial.add_all(*(new_job(delay_ms=1) for _ in range(5)))
        trial.clock.turn(1)
        assert [(step.due, step.more) for step in (trial.tend(2), trial.tend(2), trial.tend(2), trial.tend(2))] == [
            (2, True),
            (2, True),
            (1, False),
            (0, False),
        ]

    def test_next_time_is_the_earliest_of_all(self, trial: Trial) -> None:
        assert trial.tend().next_ms is None
        trial.add(delay_ms=5000)
        assert trial.tend().next_ms == 5000
        trial.add(expires_in_ms=3000)
        assert trial.tend().next_ms == 3000
        trial.clock.turn(1000)
        assert trial.tend().next_ms == 2000

    def test_deadline_of_a_running_job_is_not_waited_for(self, trial: Trial) -> None:
        trial.run(expires_in_ms=3000)
        assert trial.tend().next_ms is None

    def test_stranger_may_tend(self, trial: Trial) -> None:
        trial.add(delay_ms=1)
        trial.clock.turn(1)
        assert trial.engine.tend(ProcessId("stranger")).due == 1


class Expiring(Conformance):
    def test_waiting_jobs_expire_at_their_deadline(self, trial: Trial) -> None:
        ready, scheduled = trial.add(expires_in_ms=1000), trial.add(expires_in_ms=1000, delay_ms=9000)
        trial.clock.turn(999)
        assert trial.tend().expired == 0
        trial.clock.turn(1)
        assert trial.tend() == Tended(expired=2)
        job = trial.job(ready)
        assert (job.state, job.ended_ms, job.claim_number) == (State.EXPIRED, trial.clock.wall_ms(), 0)
        assert trial.state(scheduled) is State.EXPIRED

    def test_running_job_does_not_expire(self, trial: Trial) -> None:
        claim = trial.run(expires_in_ms=1000)
        trial.clock.turn(1000)
        assert trial.tend() == Tended()
        assert trial.end(claim).late == ()

    def test_job_with_a_charged_attempt_does_not_expire(self, trial: Trial) -> None:
        claim = trial.run(expires_in_ms=1000)
        trial.end(claim, Ending.FAILED, after_ms=2000)
        trial.clock.turn(1000)
        assert trial.tend() == Tended(next_ms=1000)

    def test_deadline_frees_the_unique_key(self, trial: Trial) -> None:
        first = trial.add(expires_in_ms=1000, details=unique("k"))
        trial.clock.turn(1000)
        trial.tend()
        assert trial.add(details=unique("k")) != first


class Forgetting(Conformance):
    def test_ended_job_is_kept_as_long_as_its_policy_says(self, trial: Trial) -> None:
        claim = trial.run(policy=Policy(keep_ms=5000))
        trial.end(claim)
        trial.clock.turn(4999)
        assert trial.tend().pruned == 0
        trial.clock.turn(1)
        trial.keep_alive()
        assert trial.tend() == Tended(pruned=1)
        assert trial.state(claim.id) is None
        assert trial.counts() == {}
        assert trial.engine.queues() == []

    def test_buried_job_is_never_forgotten(self, trial: Trial) -> None:
        id = trial.add(policy=Policy(keep_ms=0))
        trial.alter(id, Bury())
        trial.clock.turn(10**10)
        trial.tend()
        assert trial.state(id) is State.BURIED

    def test_every_other_end_is_forgotten(self, trial: Trial) -> None:
        keep = Policy(keep_ms=1000)
        trial.end(trial.run(policy=keep), Ending.CANCELLED)
        trial.add(policy=keep, expires_in_ms=1)
        trial.clock.turn(1)
        trial.tend()
        trial.clock.turn(1000)
        assert trial.tend().pruned == 2
        assert trial.recount() == {}

    def test_unfinished_job_is_never_forgotten(self, trial: Trial) -> None:
        trial.run(policy=Policy(keep_ms=0))
        trial.add(policy=Policy(keep_ms=0))
        trial.clock.turn(LEASE_MS)
        trial.keep_alive()
        assert trial.tend().pruned == 0

    def test_queue_keeps_only_its_newest_ended_jobs(self, engine_factory: EngineFactory) -> None:
        trial = Trial(engine_factory, max_ended=2)
        ended = [trial.run(queue="mail") for _ in range(4)]
        for claim in ended:
            trial.clock.turn(1)
            trial.end(claim)
        other = trial.run(queue="other")
        trial.end(other)
        trial.alter(buried := trial.add(queue="mail"), Bury())
        assert trial.tend() == Tended(pruned=2)
        assert [trial.state(claim.id) for claim in ended] == [None, None, State.SUCCEEDED, State.SUCCEEDED]
        assert (trial.state(other.id), trial.state(buried)) == (State.SUCCEEDED, State.BURIED)

    def test_surplus_goes_in_the_order_of_its_ends(self, engine_factory: EngineFactory) -> None:
        """Not in the order in which it would be forgotten by age."""
        trial = Trial(engine_factory, max_ended=2)
        ended = [trial.run(queue="mail", policy=Policy(keep_ms=keep_ms)) for keep_ms in (9000, 5000, 7000, 1000)]
        for claim in ended:
            trial.clock.turn(1)
            trial.end(claim)
        assert trial.tend().pruned == 2
        assert [trial.state(claim.id) for claim in ended] == [None, None, State.SUCCEEDED, State.SUCCEEDED]

    def test_forgotten_job_takes_its_log_and_key_with_it(self, trial: Trial) -> None:
        details = Details(idempotency_key="k")
        claim = trial.run(policy=Policy(keep_ms=10), details=details)
        trial.engine.note([Note(claim.id, claim.fence, log="hello")])
        trial.end(claim)
        trial.clock.turn(10)
        trial.tend()
        assert trial.engine.log(claim.id) == {}
        assert trial.add(details=details, args="[2]") != claim.id

    def test_bound_is_shared_by_all_kinds_of_work(self, trial: Trial) -> None:
        trial.add(delay_ms=1)
        trial.add(expires_in_ms=1)
        trial.end(trial.run(P1, policy=Policy(keep_ms=1), priority=5))
        trial.clock.turn(1)
        steps = [trial.tend(1) for _ in range(3)]
        assert [(step.due, step.expired, step.pruned) for step in steps] == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
        assert [step.more for step in steps] == [True, True, False]
