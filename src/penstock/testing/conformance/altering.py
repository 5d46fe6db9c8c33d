"""`alter` and `alter_queue`: what a person does by hand, beyond the rows of the transition table."""

from typing import Any

import pytest

from penstock.engine import Added, Altered, Bury, Cancel, Delete, Edit, Kick, Note, Reschedule
from penstock.model.job import Claim, Counters, Details, Former, JobId
from penstock.model.outcome import Ending
from penstock.model.retry import Policy
from penstock.model.states import State
from penstock.testing.conformance.adding import unique
from penstock.testing.conformance.trial import P1, Conformance, Trial, new_job


class Altering(Conformance):
    def test_unknown_job_is_named(self, trial: Trial) -> None:
        assert trial.alter(JobId("ghost"), Cancel()) == Altered(JobId("ghost"), None, None, "no such job")

    def test_each_job_has_its_own_answer_in_order(self, trial: Trial) -> None:
        running, ready = trial.run().id, trial.add()
        ghost = JobId("ghost")
        answers = trial.engine.alter([ready, ghost, running], Delete())
        assert [(answer.id, answer.before, answer.after) for answer in answers] == [
            (ready, State.READY, None),
            (ghost, None, None),
            (running, State.RUNNING, State.RUNNING),
        ]
        assert [answer.refused for answer in answers] == [None, "no such job", "job is running; cancel it or wait"]

    def test_job_that_is_named_twice_is_changed_once(self, trial: Trial) -> None:
        id = trial.add()
        first, second = trial.engine.alter([id, id], Cancel())
        assert (first.after, second.refused) == (State.CANCELLED, "job has ended cancelled")

    def test_more_than_a_thousand_ids_are_refused(self, trial: Trial) -> None:
        with pytest.raises(ValueError, match="1,000"):
            trial.engine.alter([JobId("ghost")] * 1001, Cancel())


class Cancelling(Conformance):
    def test_waiting_job_ends_cancelled(self, trial: Trial) -> None:
        id = trial.add(delay_ms=5000)
        trial.alter(id, Cancel())
        job = trial.job(id)
        assert (job.state, job.ended_ms, job.due_ms) == (State.CANCELLED, trial.clock.wall_ms(), None)
        assert trial.tend().next_ms is None

    def test_running_job_is_asked_to_stop(self, trial: Trial) -> None:
        claim = trial.run()
        assert trial.alter(claim.id, Cancel()) == Altered(claim.id, State.RUNNING, State.RUNNING)
        assert trial.alter(claim.id, Cancel()) == Altered(claim.id, State.RUNNING, State.RUNNING)
        assert trial.job(claim.id).cancel_requested

    def test_cancelled_job_cannot_be_claimed(self, trial: Trial) -> None:
        trial.alter(trial.add(), Cancel())
        assert trial.claim() == ()


class Kicking(Conformance):
    def test_kicked_job_starts_anew(self, trial: Trial) -> None:
        claim = bury(trial)
        before = trial.job(claim.id)
        assert before.error is not None
        assert trial.alter(claim.id, Kick()) == Altered(claim.id, State.BURIED, State.READY)
        job = trial.job(claim.id)
        assert (job.state, job.counters, job.error, job.ended_ms) == (State.READY, Counters(), None, None)
        assert (job.history, job.claim_number) == ((before.error,), 1)
        assert trial.claim_one().fence.number == 2

    def test_kick_forgets_what_is_charged_and_keeps_what_was_free(self, trial: Trial) -> None:
        claim = trial.run(policy=Policy(max_attempts=2, max_crashes=9))
        for ending in (Ending.RELEASED, Ending.SNOOZED, Ending.LOST, Ending.CRASHED, Ending.FAILED):
            trial.end(claim, ending, after_ms=0)
            claim = trial.claim_one()
        trial.end(claim, Ending.FAILED)
        full = Counters(attempts=5, failures=2, crashes=1, interruptions=1, losses=1, snoozes=1, suspect=True)
        assert trial.job(claim.id).counters == full
        trial.alter(claim.id, Kick())
        assert trial.job(claim.id).counters == Counters(interruptions=1, losses=1, snoozes=1)
        assert len(trial.claim(free={"thread": 1})) == 1

    def test_scheduled_job_is_ready_at_once(self, trial: Trial) -> None:
        id = trial.add(delay_ms=5000)
        trial.alter(id, Kick())
        assert trial.job(id).due_ms is None
        assert trial.claim_one().id == id

    def test_kick_takes_back_a_request_to_cancel(self, trial: Trial) -> None:
        claim = trial.run()
        trial.alter(claim.id, Cancel())
        trial.end(claim, Ending.FAILED, after_ms=1000)
        assert trial.job(claim.id).cancel_requested
        trial.alter(claim.id, Kick())
        assert not trial.claim_one().cancel_requested

    def test_deadline_that_has_passed_does_not_end_a_kicked_job_again(self, trial: Trial) -> None:
        id = trial.add(expires_in_ms=1000)
        trial.clock.turn(1000)
        trial.tend()
        trial.alter(id, Kick())
        assert trial.tend().expired == 0
        assert trial.claim_one().id == id

    def test_deadline_to_come_still_holds_after_a_kick(self, trial: Trial) -> None:
        id = trial.add(expires_in_ms=1000, delay_ms=500)
        trial.alter(id, Kick())
        trial.clock.turn(1000)
        assert trial.tend().expired == 1

    def test_key_that_another_job_holds_refuses_the_way_back(self, trial: Trial) -> None:
        claim = bury(trial, details=unique("k"))
        holder = trial.add(details=unique("k"))
        for alteration in (Kick(), Edit(priority=1)):
            refused = trial.alter(claim.id, alteration)
            assert (refused.before, refused.after) == (State.BURIED, State.BURIED)
            assert refused.refused is not None
            assert "unique key" in refused.refused
            assert f"is held by {holder}" in refused.refused
        trial.alter(holder, Cancel())
        assert trial.alter(claim.id, Kick()).refused is None

    def test_kicked_job_holds_its_key_again(self, trial: Trial) -> None:
        claim = bury(trial, details=unique("k"))
        trial.alter(claim.id, Kick())
        assert trial.add(details=unique("k")) == claim.id

    def test_kick_needs_no_room(self, trial: Trial) -> None:
        claim = bury(trial)
        trial.engine.alter_queue("default", max_jobs=0)
        assert trial.alter(claim.id, Kick()).refused is None

    @pytest.mark.parametrize("before", [State.BURIED, State.SCHEDULED])
    def test_kick_with_a_delay_lets_the_job_begin_anew_later(self, trial: Trial, before: State) -> None:
        id = bury(trial).id if before is State.BURIED else trial.add(delay_ms=9000, policy=Policy(max_attempts=1))
        assert trial.alter(id, Kick(delay_ms=700)) == Altered(id, before, State.SCHEDULED)
        job = trial.job(id)
        assert (job.state, job.due_ms, job.counters, job.error) == (
            State.SCHEDULED,
            trial.clock.wall_ms() + 700,
            Counters(),
            None,
        )
        assert trial.counts() == trial.recount()
        assert trial.claim() == ()
        trial.clock.turn(700)
        assert trial.tend().due == 1
        assert trial.claim_one().id == id

    def test_job_that_is_kicked_for_later_holds_its_key_again(self, trial: Trial) -> None:
        claim = bury(trial, details=unique("k"))
        trial.alter(claim.id, Kick(delay_ms=700))
        assert trial.add(details=unique("k")) == claim.id

    def test_trial_has_one_attempt(self, trial: Trial) -> None:
        claim = trial.run(policy=Policy(max_attempts=3))
        trial.end(claim, Ending.FAILED, verdict="bury")
        trial.alter(claim.id, Kick(trial=True))
        again = trial.claim_one()
        assert (again.counters, again.attempt) == (Counters(failures=2), 1)
        trial.end(again, Ending.FAILED)
        assert trial.state(claim.id) is State.BURIED

    def test_trial_of_a_scheduled_job_has_one_attempt_too(self, trial: Trial) -> None:
        id = trial.add(delay_ms=5000, policy=Policy(max_attempts=3))
        trial.alter(id, Kick(trial=True))
        assert trial.claim_one().counters == Counters(failures=2)

    def test_delay_below_zero_is_refused(self, trial: Trial) -> None:
        with pytest.raises(ValueError, match="-1 ms"):
            trial.alter(trial.add(delay_ms=5000), Kick(delay_ms=-1))


class Editing(Conformance):
    def test_edited_arguments_replace_the_old_which_are_kept(self, trial: Trial) -> None:
        id = trial.add(args="[1]", crc=1)
        old = trial.job(id).envelope
        trial.clock.turn(70)
        trial.alter(id, Edit(envelope=b"new", crc=2, by="ada"))
        job = trial.job(id)
        former = Former(trial.clock.wall_ms(), "ada", envelope=old.decode(), size=len(old))
        assert (job.envelope, job.crc, job.details.edits) == (b"new", 2, (former,))
        assert trial.claim_one().envelope == b"new"

    @pytest.mark.parametrize("is_buried", [False, True])
    def test_all_that_a_person_replaces_is_kept_and_nothing_else(self, trial: Trial, is_buried: bool) -> None:
        fields: dict[str, Any] = {"queue": "mail", "priority": 3, "details": Details(tags=("red",))}
        id = bury(trial, **fields).id if is_buried else trial.add(**fields)
        now = trial.clock.wall_ms()
        trial.alter(id, Edit(queue="slow", priority=4, tags=("blue",), by="ada"))
        trial.alter(id, Edit(queue="slow", priority=5, tags=("blue",), by="bob"))
        trial.alter(id, Edit(queue="slow", by="bob"))
        assert trial.job(id).details.edits == (
            Former(now, "ada", queue="mail", priority=3, tags=("red",)),
            Former(now, "bob", priority=4),
        )

    def test_edit_by_nobody_is_not_kept(self, trial: Trial) -> None:
        id = trial.add()
        trial.alter(id, Edit(envelope=b"new", queue="mail"))
        assert trial.job(id).details == Details()

    def test_last_twenty_edits_are_kept(self, trial: Trial) -> None:
        id = trial.add()
        for number in range(22):
            trial.alter(id, Edit(envelope=str(number).encode(), by="ada"))
        assert [former.envelope for former in trial.job(id).details.edits] == [str(n) for n in range(1, 21)]

    def test_long_envelopes_are_kept_as_far_as_there_is_room(self, trial: Trial) -> None:
        """An edit can always be told, but not what megabytes it replaced."""
        id = trial.add()
        for letter, size in zip(
            (b"a", b"b", b"c", b"d", b"e", b"f"), (30_000, 30_000, 70_000, 30_000, 30_000, 1), strict=True
        ):
            trial.alter(id, Edit(envelope=letter * size, by="ada"))
        kept = [(former.size, len(former.envelope)) for former in trial.job(id).details.edits][1:]
        assert kept == [(30_000, 0), (30_000, 0), (70_000, 0), (30_000, 30_000), (30_000, 30_000)]

    def test_what_is_not_named_stays(self, trial: Trial) -> None:
        details = Details(tags=("red",), topic="orders")
        id = trial.add(priority=4, crc=9, details=details)
        before = trial.job(id)
        trial.alter(id, Edit(tags=("blue",)))
        job = trial.job(id)
        assert job.details == Details(tags=("blue",), topic="orders")
        assert (job.priority, job.crc, job.envelope, job.queue) == (4, 9, before.envelope, "default")

    def test_edited_job_keeps_its_place(self, trial: Trial) -> None:
        trial.add_all(new_job("a"), new_job("b"))
        trial.alter(JobId("a"), Edit(envelope=b"new", tags=("red",), queue="default", priority=0))
        assert [claim.id for claim in trial.claim()] == ["a", "b"]

    def test_job_of_another_priority_or_queue_goes_to_the_end_there(self, trial: Trial) -> None:
        trial.add_all(new_job("a"), new_job("b", priority=5), new_job("c", queue="mail"), new_job("d", queue="mail"))
        trial.alter(JobId("a"), Edit(priority=5))
        trial.alter(JobId("c"), Edit(queue="other"))
        assert [claim.id for claim in trial.claim()] == ["b", "a", "d", "c"]

    def test_counts_follow_a_job_to_its_new_queue(self, trial: Trial) -> None:
        ready, scheduled, running = trial.add(), trial.add(delay_ms=5000), bury(trial)
        trial.engine.alter([ready, scheduled, running.id], Edit(queue="mail"))
        assert trial.counts() == {("mail", "t", State.READY): 2, ("mail", "t", State.SCHEDULED): 1}

    def test_buried_job_is_ready_again_as_after_a_kick(self, trial: Trial) -> None:
        claim = bury(trial)
        assert trial.alter(claim.id, Edit(envelope=b"new")) == Altered(claim.id, State.BURIED, State.READY)
        job = trial.job(claim.id)
        assert (job.counters, job.error, job.ended_ms, job.envelope) == (Counters(), None, None, b"new")

    @pytest.mark.parametrize("edit", [Edit(queue="a b"), Edit(queue=""), Edit(priority=101)])
    def test_value_out_of_bounds_is_refused(self, trial: Trial, edit: Edit) -> None:
        id = trial.add()
        before = trial.job(id)
        with pytest.raises(ValueError, match=r"queue|priority"):
            trial.alter(id, edit)
        assert trial.job(id) == before


class Rescheduling(Conformance):
    @pytest.mark.parametrize("delay_ms", [0, 5000])
    def test_job_waits_from_now(self, trial: Trial, delay_ms: int) -> None:
        id = trial.add(delay_ms=delay_ms)
        trial.alter(id, Reschedule(delay_ms=700))
        job = trial.job(id)
        assert (job.state, job.due_ms) == (State.SCHEDULED, trial.clock.wall_ms() + 700)
        assert trial.claim() == ()

    def test_job_waits_until_a_time(self, trial: Trial) -> None:
        id = trial.add()
        at = trial.clock.wall_ms() + 70
        trial.alter(id, Reschedule(run_at_ms=at))
        assert trial.job(id).due_ms == at

    def test_time_that_has_passed_is_due_at_once(self, trial: Trial) -> None:
        id = trial.add(delay_ms=5000)
        trial.alter(id, Reschedule(run_at_ms=1))
        assert trial.state(id) is State.SCHEDULED
        assert trial.tend().due == 1


class Burying(Conformance):
    def test_reason_becomes_the_error(self, trial: Trial) -> None:
        id = trial.add()
        trial.alter(id, Bury("wrong customer"))
        job = trial.job(id)
        assert job.error is not None
        assert (job.state, job.error.message) == (State.BURIED, "wrong customer")
        assert (job.history, job.ended_ms) == ((job.error,), trial.clock.wall_ms())
        assert job.error.at_ms == trial.clock.wall_ms()


class Deleting(Conformance):
    def test_nothing_is_left_of_a_deleted_job(self, trial: Trial) -> None:
        claim = trial.run(details=Details(idempotency_key="k"))
        trial.engine.note([Note(claim.id, claim.fence, log="hello")])
        trial.end(claim)
        trial.alter(claim.id, Delete())
        assert (trial.state(claim.id), trial.engine.log(claim.id), trial.counts()) == (None, {}, {})
        assert trial.alter(claim.id, Delete()).refused == "no such job"

    def test_deleted_job_frees_its_unique_key(self, trial: Trial) -> None:
        first = trial.add(details=unique("k"))
        trial.alter(first, Delete())
        assert trial.add(details=unique("k")) != first

    def test_deleted_id_may_be_added_again_and_its_old_claims_stay_stale(self, trial: Trial) -> None:
        new = new_job()
        trial.add(new)
        old = trial.claim_one()
        trial.end(old)
        trial.alter(new.id, Delete())
        assert trial.add_all(new) == [Added(new.id)]
        again = trial.claim_one()
        assert (again.fence.number, again.fence == old.fence) == (1, False)
        assert trial.end(old).late == (new.id,)
        assert trial.end(again).late == ()

    def test_deleted_job_leaves_its_line(self, trial: Trial) -> None:
        trial.add_all(new_job("a"), new_job("b"))
        trial.alter(JobId("a"), Delete())
        assert [claim.id for claim in trial.claim()] == ["b"]


class Queues(Conformance):
    def test_queue_that_was_only_set_is_listed(self, trial: Trial) -> None:
        info = trial.engine.alter_queue("mail", max_jobs=5)
        assert (info.name, info.paused, info.max_jobs, info.unfinished, info.oldest_ms) == ("mail", False, 5, 0, None)
        assert trial.engine.queues() == [info]

    def test_what_is_not_named_stays(self, trial: Trial) -> None:
        trial.engine.alter_queue("mail", max_jobs=5, paused=True)
        info = trial.engine.alter_queue("mail")
        assert (info.paused, info.max_jobs) == (True, 5)
        info = trial.engine.alter_queue("mail", paused=False, unlimited=True)
        assert (info.paused, info.max_jobs) == (False, None)

    def test_queues_stand_by_name(self, trial: Trial) -> None:
        trial.add_all(new_job(queue="b"), new_job(queue="c"), new_job(queue="a"))
        assert [queue.name for queue in trial.engine.queues()] == ["a", "b", "c"]

    def test_resuming_a_paused_queue_raises_the_mark(self, trial: Trial) -> None:
        trial.engine.alter_queue("mail", paused=True)
        before = trial.exchange().mark
        trial.engine.alter_queue("mail", paused=False)
        assert trial.exchange().mark > before

    def test_age_is_that_of_the_ready_job_first_in_line(self, trial: Trial) -> None:
        trial.add(delay_ms=400)
        trial.clock.turn(400)
        assert trial.engine.queues()[0].oldest_ms is None
        first = trial.add(priority=-9)
        trial.clock.turn(100)
        trial.tend()
        trial.clock.turn(50)
        assert trial.engine.queues()[0].oldest_ms == 150
        trial.alter(first, Cancel())
        assert trial.engine.queues()[0].oldest_ms == 50
        trial.claim()
        assert trial.engine.queues()[0].oldest_ms is None

    @pytest.mark.parametrize("name", ["", "a b", "x" * 129])
    def test_name_out_of_form_is_refused(self, trial: Trial, name: str) -> None:
        with pytest.raises(ValueError, match="queue"):
            trial.engine.alter_queue(name, paused=True)
        assert trial.engine.queues() == []


def bury(trial: Trial, **fields: Any) -> Claim:
    """Let a job fail for good; it is the next in line unless it has a priority of its own."""
    claim = trial.run(P1, policy=Policy(max_attempts=1), **{"priority": 100, **fields})
    trial.end(claim, Ending.FAILED)
    assert trial.state(claim.id) is State.BURIED
    return claim
