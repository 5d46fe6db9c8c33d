"""`exchange`: what a claim takes and in which order, what a change writes, beats, fences."""

import pytest
from msgspec.structs import replace

from penstock.engine import Answer, Cancel, Note, Want
from penstock.model.errors import LeaseLost
from penstock.model.job import HISTORY_KEPT, Change, Counters, ErrorInfo, Fence, JobId, LedgerEntry, ProcessId, Progress
from penstock.model.outcome import Ending
from penstock.model.retry import Policy
from penstock.model.states import Cause, State
from penstock.testing.conformance.adding import unique
from penstock.testing.conformance.trial import ERROR, P1, P2, Conformance, Trial, change, new_job, want


class Claiming(Conformance):
    def test_claim_carries_what_is_needed_to_run_the_job(self, trial: Trial) -> None:
        new = new_job(queue="mail", priority=3, crc=5, policy=Policy(max_attempts=2), details=unique("k"))
        trial.add(new)
        trial.clock.turn(20)
        [claim] = trial.claim()
        assert (claim.id, claim.task, claim.queue, claim.envelope, claim.crc) == (new.id, "t", "mail", new.envelope, 5)
        assert (claim.policy, claim.details, claim.priority, claim.counters) == (new.policy, new.details, 3, Counters())
        assert (claim.attempt, claim.fence.number, claim.cancel_requested) == (1, 1, False)
        assert claim.enqueued_ms == trial.clock.wall_ms() - 20

    def test_claimed_job_is_running_in_its_process(self, trial: Trial) -> None:
        claim = trial.run()
        job = trial.job(claim.id)
        assert (job.state, job.process, job.claim_number) == (State.RUNNING, P1, 1)
        assert job.claimed_ms == trial.clock.wall_ms()

    def test_job_is_claimed_once(self, trial: Trial) -> None:
        trial.enrol(P2)
        trial.run()
        assert trial.claim() == trial.claim(P2) == ()

    def test_without_a_want_nothing_is_claimed(self, trial: Trial) -> None:
        trial.add()
        assert trial.exchange().claims == ()

    def test_higher_priority_goes_first_and_then_the_order_of_arrival(self, trial: Trial) -> None:
        trial.add_all(new_job("b", priority=-5), new_job("d"), new_job("a", priority=100), new_job("c"))
        assert [claim.id for claim in trial.claim()] == ["a", "d", "c", "b"]

    def test_arrival_counts_across_tasks_and_queues(self, trial: Trial) -> None:
        trial.add_all(new_job("d", queue="y"), new_job("c", task="u"), new_job("b", queue="x"), new_job("a"))
        assert [claim.id for claim in trial.claim()] == ["d", "c", "b", "a"]

    def test_job_that_returns_goes_to_the_end_of_its_priority(self, trial: Trial) -> None:
        trial.add_all(new_job("a"), new_job("b"))
        trial.end(trial.claim_one(), Ending.RELEASED, started=False)
        assert [claim.id for claim in trial.claim()] == ["b", "a"]

    def test_queue_groups_go_in_order_before_priority(self, trial: Trial) -> None:
        trial.add_all(new_job("a", queue="low", priority=9), new_job("b", queue="high"), new_job("c", queue="mid"))
        claims = trial.claim(queues=[["high"], ["low", "mid"]])
        assert [claim.id for claim in claims] == ["b", "a", "c"]

    def test_queues_that_are_not_wanted_are_left_alone(self, trial: Trial) -> None:
        trial.add(queue="other")
        assert trial.claim(queues=[["mail"]]) == trial.claim(queues=[]) == ()

    @pytest.mark.parametrize("queues", [[["mail"], ["mail"]], [["mail", "mail"]]])
    def test_queue_that_is_wanted_twice_is_refused(self, trial: Trial, queues: list[list[str]]) -> None:
        id = trial.add(queue="mail")
        with pytest.raises(ValueError, match="'mail' is wanted twice"):
            trial.claim(queues=queues)
        assert trial.state(id) is State.READY

    def test_unknown_task_is_skipped_and_stays(self, trial: Trial) -> None:
        trial.add_all(new_job("strange", task="strange", priority=50), new_job("known"))
        assert [claim.id for claim in trial.claim()] == ["known"]
        assert trial.state(JobId("strange")) is State.READY

    def test_paused_queue_is_skipped_until_it_is_resumed(self, trial: Trial) -> None:
        trial.engine.alter_queue("mail", paused=True)
        id = trial.add(queue="mail")
        assert trial.claim() == ()
        trial.engine.alter_queue("mail", paused=False)
        assert [claim.id for claim in trial.claim()] == [id]

    def test_limit_bounds_the_claims(self, trial: Trial) -> None:
        trial.add_all(*(new_job() for _ in range(5)))
        assert [len(trial.claim(limit=limit)) for limit in (0, 2, 1000)] == [0, 2, 3]

    def test_full_runner_is_skipped(self, trial: Trial) -> None:
        trial.add_all(new_job("a"), new_job("b"), new_job("c", task="slow"), new_job("d", task="slow"))
        assert [claim.id for claim in trial.claim(free={"thread": 1, "process": 1})] == ["a", "c"]
        assert [claim.id for claim in trial.claim(free={"thread": 1})] == ["b"]

    def test_job_that_runs_alone_takes_a_place_of_the_process_runner(self, trial: Trial) -> None:
        trial.end(trial.run(), Ending.CRASHED)
        assert trial.claim(free={"thread": 10}) == ()
        [claim] = trial.claim(free={"process": 1})
        assert claim.counters.runs_alone

    def test_unstarted_job_past_its_deadline_ends_expired(self, trial: Trial) -> None:
        late = trial.add(expires_in_ms=1000)
        fine = trial.add(expires_in_ms=1001)
        trial.clock.turn(1000)
        assert [claim.id for claim in trial.claim(limit=1)] == [fine]
        job = trial.job(late)
        assert (job.state, job.ended_ms, job.error) == (State.EXPIRED, trial.clock.wall_ms(), None)

    def test_job_behind_an_overdue_one_waits_for_its_turn(self, trial: Trial) -> None:
        late = trial.add(priority=5, expires_in_ms=1000)
        others = [trial.add(task="u"), trial.add(), trial.add(task="u"), trial.add()]
        trial.clock.turn(1000)
        assert [claim.id for _ in others for claim in trial.claim(limit=1)] == others
        assert trial.state(late) is State.EXPIRED

    @pytest.mark.parametrize("limit", [1, 2, 3, 1000])
    def test_overdue_jobs_in_several_lines_do_not_change_the_order_of_the_others(
        self, trial: Trial, limit: int
    ) -> None:
        expected = []
        for number in range(12):
            task = "t" if number % 3 else "u"
            trial.add(task=task, priority=number % 2, expires_in_ms=1000)
            expected.append((-(number % 2), trial.add(task=task, priority=number % 2)))
        trial.clock.turn(1000)
        claimed = [claim.id for _ in range(12) for claim in trial.claim(limit=limit)]
        assert claimed == [id for _, id in sorted(expected)]

    def test_deadline_is_over_once_an_attempt_was_charged(self, trial: Trial) -> None:
        claim = trial.run(expires_in_ms=1000)
        trial.end(claim, Ending.FAILED, after_ms=0)
        trial.clock.turn(1000)
        assert [again.id for again in trial.claim()] == [claim.id]

    def test_released_job_still_has_its_deadline(self, trial: Trial) -> None:
        claim = trial.run(expires_in_ms=1000)
        trial.end(claim, Ending.RELEASED, started=False)
        trial.clock.turn(1000)
        assert trial.claim() == ()
        assert trial.state(claim.id) is State.EXPIRED

    def test_claim_numbers_rise_and_tokens_differ(self, trial: Trial) -> None:
        first = trial.run()
        trial.end(first, Ending.RELEASED)
        second = trial.claim_one()
        assert (first.fence.number, second.fence.number) == (1, 2)
        assert first.fence.token != second.fence.token


class Changing(Conformance):
    def test_success_stores_the_result(self, trial: Trial) -> None:
        claim = trial.run()
        trial.clock.turn(40)
        assert trial.end(claim, result=b"[1,2]", ran_us=39_000).late == ()
        job = trial.job(claim.id)
        assert (job.state, job.result, job.ran_us, job.error) == (State.SUCCEEDED, b"[1,2]", 39_000, None)
        assert (job.ended_ms, job.counters) == (trial.clock.wall_ms(), Counters(attempts=1))
        assert trial.counts() == {("default", "t", State.SUCCEEDED): 1}

    def test_failure_waits_for_its_backoff_by_the_clock_of_the_store(self, trial: Trial) -> None:
        claim = trial.run()
        trial.end(claim, Ending.FAILED, after_ms=700)
        job = trial.job(claim.id)
        assert (job.state, job.due_ms) == (State.SCHEDULED, trial.clock.wall_ms() + 700)
        assert job.counters == Counters(attempts=1, failures=1)

    def test_error_is_stamped_and_kept_in_the_history(self, trial: Trial) -> None:
        claim = trial.run()
        trial.end(claim, Ending.FAILED, after_ms=0)
        job = trial.job(claim.id)
        assert job.error == replace(ERROR, at_ms=trial.clock.wall_ms())
        assert job.history == (job.error,)

    def test_error_outlives_a_later_success(self, trial: Trial) -> None:
        claim = trial.run()
        trial.end(claim, Ending.FAILED, after_ms=0)
        trial.end(trial.claim_one())
        job = trial.job(claim.id)
        assert job.error is not None
        assert job.error.message == ERROR.message

    def test_history_keeps_the_last_twenty_errors(self, trial: Trial) -> None:
        claim = trial.run(policy=Policy(max_attempts=100))
        for number in range(HISTORY_KEPT + 3):
            trial.end(claim, Ending.FAILED, after_ms=0, error=ErrorInfo("failed", message=str(number)))
            claim = trial.claim_one()
        messages = [error.message for error in trial.job(claim.id).history]
        assert messages == [str(number) for number in range(3, HISTORY_KEPT + 3)]

    def test_degraded_success_names_the_fallback(self, trial: Trial) -> None:
        claim = trial.run()
        trial.exchange(replace(change(claim), degraded="u"))
        assert trial.job(claim.id).degraded == "u"

    def test_follow_ups_are_added_outside_every_bound(self, trial: Trial) -> None:
        claim = trial.run()
        trial.engine.alter_queue("default", max_jobs=0)
        known, follow_up = new_job("known", queue="other"), new_job()
        trial.add(known)
        trial.exchange(replace(change(claim), follow_ups=(known, follow_up)))
        assert (trial.state(follow_up.id), trial.state(known.id)) == (State.READY, State.READY)

    def test_follow_ups_of_a_late_change_are_not_added(self, trial: Trial) -> None:
        claim = trial.run()
        trial.end(claim)
        follow_up = new_job()
        trial.exchange(replace(change(claim), follow_ups=(follow_up,)))
        assert trial.state(follow_up.id) is None

    def test_late_change_beside_one_in_time_loses_its_own_follow_ups(self, trial: Trial) -> None:
        claim = trial.run()
        jobs = {name: new_job(name) for name in ("in-time", "late")}
        in_time = replace(change(claim), follow_ups=(jobs["in-time"],))
        late = replace(in_time, fence=Fence(claim.fence.number, claim.fence.token ^ 1), follow_ups=(jobs["late"],))
        assert trial.exchange(in_time, late).late == (claim.id,)
        assert (trial.state(jobs["in-time"].id), trial.state(jobs["late"].id)) == (State.READY, None)

    def test_follow_ups_can_be_claimed_in_the_same_exchange(self, trial: Trial) -> None:
        claim = trial.run()
        follow_up = new_job()
        answer = trial.exchange(replace(change(claim), follow_ups=(follow_up,)), want=want())
        assert [again.id for again in answer.claims] == [follow_up.id]

    def test_returned_job_can_be_claimed_in_the_same_exchange(self, trial: Trial) -> None:
        claim = trial.run()
        answer = trial.exchange(change(claim, Ending.RELEASED), want=want())
        assert [again.fence.number for again in answer.claims] == [2]

    def test_progress_survives_the_end_of_the_attempt(self, trial: Trial) -> None:
        claim = trial.run()
        trial.engine.note([Note(claim.id, claim.fence, Progress(1, 2, "half"))])
        trial.end(claim, Ending.RELEASED)
        assert trial.job(claim.id).progress == Progress(1, 2, "half")
        trial.end(trial.claim_one())
        assert trial.job(claim.id).progress == Progress(1, 2, "half")

    def test_ledger_entries_of_a_change_are_recorded(self, trial: Trial) -> None:
        if "ledger" not in trial.engine.capabilities:
            pytest.skip("the engine has no ledger")
        claim = trial.run()
        trial.exchange(replace(change(claim), ledger=(LedgerEntry("mail", "7", b'"sent"'),)))
        again = trial.run()
        begun = trial.engine.begin(again.id, again.fence, "mail", "7", 1000)
        assert (begun.first, begun.by, begun.value) == (False, claim.id, b'"sent"')

    def test_a_thousand_changes_and_claims_are_exchanged_at_once(self, trial: Trial) -> None:
        trial.add_all(*(new_job() for _ in range(1000)))
        first = trial.claim()
        assert len(first) == 1000
        trial.add_all(*(new_job() for _ in range(1000)))
        answer = trial.exchange(*(change(claim) for claim in first), want=want())
        assert (answer.late, len(answer.claims)) == ((), 1000)
        assert trial.counts() == {("default", "t", State.SUCCEEDED): 1000, ("default", "t", State.RUNNING): 1000}


class Fencing(Conformance):
    def test_second_delivery_of_a_change_is_late_and_harmless(self, trial: Trial) -> None:
        claim = trial.run()
        trial.end(claim, result=b"1")
        assert trial.end(claim, result=b"2").late == (claim.id,)
        assert trial.job(claim.id).result == b"1"
        assert trial.engine.describe().late_results == 1

    def test_change_given_twice_in_one_exchange_is_applied_once(self, trial: Trial) -> None:
        claim = trial.run()
        answer = trial.exchange(change(claim), change(claim, Ending.FAILED))
        assert (answer.late, trial.state(claim.id)) == ((claim.id,), State.SUCCEEDED)

    @pytest.mark.parametrize("wrong", [(1, 0), (0, 1), (1, 1)])
    def test_number_and_token_are_both_compared(self, trial: Trial, wrong: tuple[int, int]) -> None:
        claim = trial.run()
        forged = Fence(claim.fence.number + wrong[0], claim.fence.token ^ wrong[1])
        assert trial.exchange(replace(change(claim), fence=forged)).late == (claim.id,)
        assert trial.state(claim.id) is State.RUNNING

    def test_fence_of_one_job_does_not_end_another(self, trial: Trial) -> None:
        trial.add_all(new_job(), new_job())
        first, second = trial.claim()
        assert trial.exchange(replace(change(first), id=second.id)).late == (second.id,)
        assert (trial.state(first.id), trial.state(second.id)) == (State.RUNNING, State.RUNNING)

    def test_unknown_job_is_late(self, trial: Trial) -> None:
        ghost = Change(id=JobId("ghost"), fence=Fence(1, 1), cause=Cause.SUCCEED, next=State.SUCCEEDED)
        assert trial.exchange(ghost).late == ("ghost",)

    def test_late_change_does_not_hold_up_the_others(self, trial: Trial) -> None:
        trial.add_all(new_job(), new_job(), new_job())
        first, second, third = trial.claim()
        trial.end(second)
        answer = trial.exchange(change(first), change(second), change(third))
        assert answer.late == (second.id,)
        assert trial.counts() == {("default", "t", State.SUCCEEDED): 3}

    def test_change_that_the_table_does_not_hold_applies_nothing(self, trial: Trial) -> None:
        trial.add_all(new_job(), new_job())
        first, second = trial.claim()
        wrong = replace(change(second), next=State.EXPIRED)
        with pytest.raises(ValueError, match="expired"):
            trial.exchange(change(first), wrong)
        assert trial.counts() == {("default", "t", State.RUNNING): 2}
        assert trial.end(first).late == ()


class Beating(Conformance):
    def test_repeated_beat_gives_the_stored_answer_and_changes_nothing(self, trial: Trial) -> None:
        trial.add_all(*(new_job() for _ in range(4)))
        first, second = trial.claim(limit=2)
        trial.end(first)
        content = (P1, 3, (change(second), change(first)), want(limit=1))
        answer = trial.engine.exchange(*content)
        before = trial.recount()
        again = trial.engine.exchange(*content)
        assert (again.claims, again.late) == (answer.claims, (first.id,))
        assert trial.recount() == before
        assert trial.engine.describe().late_results == 1

    def test_claims_of_a_lost_reply_are_in_the_repeated_answer_in_order(self, trial: Trial) -> None:
        trial.add_all(new_job("b"), new_job("c", priority=5), new_job("a"))
        claims = trial.claim()
        again = trial.repeat()
        assert again.claims == claims
        assert [claim.id for claim in again.claims] == ["c", "b", "a"]

    def test_next_beat_acknowledges_the_claims(self, trial: Trial) -> None:
        trial.run()
        assert trial.exchange(want=want()).claims == ()

    def test_repeated_answer_names_new_cancels(self, trial: Trial) -> None:
        claim = trial.run()
        assert trial.exchange().cancels == ()
        trial.alter(claim.id, Cancel())
        assert trial.repeat().cancels == (claim.fence,)

    @pytest.mark.parametrize("beat", [-1, 0, 1])
    def test_beat_before_the_last_one_is_refused(self, trial: Trial, beat: int) -> None:
        trial.run()
        trial.end(trial.run())
        with pytest.raises(ValueError, match=r"[Bb]eat"):
            trial.engine.exchange(P1, beat, (), want())

    def test_call_that_found_nothing_asks_anew_when_it_is_repeated(self, trial: Trial) -> None:
        assert trial.exchange(want=want()).claims == ()
        id = trial.add()
        [claim] = trial.engine.exchange(P1, trial.beats[P1], (), want()).claims
        assert claim.id == id
        assert trial.repeat().claims == (claim,)

    def test_call_that_found_nothing_leaves_the_answer_before_it_stored(self, trial: Trial) -> None:
        claim = trial.run()
        trial.exchange(want=want())
        assert trial.engine.exchange(P1, trial.beats[P1] - 1, (), want()).claims == (claim,)

    def test_call_with_late_changes_alone_is_remembered(self, trial: Trial) -> None:
        claim = trial.run()
        trial.end(claim)
        trial.end(claim)
        assert trial.repeat().late == (claim.id,)
        assert trial.engine.describe().late_results == 1

    def test_enrolling_again_keeps_the_beat(self, trial: Trial) -> None:
        trial.add()
        [claim] = trial.claim()
        trial.enrol(P1)
        assert trial.repeat().claims == (claim,)
        assert trial.exchange() == _silent(trial)

    def test_beats_of_processes_are_their_own(self, trial: Trial) -> None:
        trial.enrol(P2)
        trial.exchange(process=P2)
        trial.exchange(process=P2)
        trial.exchange(process=P1)
        assert trial.beats == {P1: 1, P2: 2}


class EdgeOfExchanging(Conformance):
    def test_unknown_process_has_no_lease(self, trial: Trial) -> None:
        trial.add()
        with pytest.raises(LeaseLost, match="stranger"):
            trial.engine.exchange(ProcessId("stranger"), 1, (), want())
        assert trial.counts() == {("default", "t", State.READY): 1}

    def test_lapsed_lease_is_good_until_it_is_voided(self, trial: Trial) -> None:
        claim = trial.run()
        trial.clock.turn(60_000)
        assert trial.end(claim).late == ()
        trial.add()
        assert len(trial.claim()) == 1

    def test_more_than_a_thousand_changes_are_refused(self, trial: Trial) -> None:
        claim = trial.run()
        with pytest.raises(ValueError, match="1,000"):
            trial.exchange(*[change(claim)] * 1001)

    def test_more_than_a_thousand_claims_are_not_wanted(self, trial: Trial) -> None:
        with pytest.raises(ValueError, match="1,000"):
            trial.exchange(want=Want(tasks={}, free={}, limit=1001))

    def test_answer_tells_the_time_of_the_store(self, trial: Trial) -> None:
        assert trial.exchange().now_ms == trial.clock.wall_ms()

    def test_mark_rises_when_a_job_becomes_ready(self, trial: Trial) -> None:
        marks = [trial.exchange().mark]
        trial.add()
        marks.append(trial.exchange().mark)
        trial.add(delay_ms=1)
        trial.clock.turn(1)
        trial.tend()
        marks.append(trial.exchange().mark)
        trial.end(trial.claim_one(), Ending.RELEASED)
        marks.append(trial.exchange().mark)
        assert marks == sorted(set(marks))

    def test_repeated_answer_keeps_its_mark(self, trial: Trial) -> None:
        trial.add()
        mark = trial.exchange(want=want()).mark
        trial.add()
        assert trial.repeat().mark == mark


class Stopping(Conformance):
    def test_cancel_of_a_running_job_is_named_until_its_claim_ends(self, trial: Trial) -> None:
        claim = trial.run()
        trial.alter(claim.id, Cancel())
        assert trial.exchange().cancels == trial.exchange().cancels == (claim.fence,)
        assert trial.end(claim, Ending.CANCELLED).cancels == ()
        job = trial.job(claim.id)
        assert (job.state, job.cancel_requested) == (State.CANCELLED, False)

    def test_cancel_is_told_to_its_own_process_alone(self, trial: Trial) -> None:
        trial.enrol(P2)
        trial.alter(trial.run().id, Cancel())
        assert trial.exchange(process=P2).cancels == ()

    def test_cancel_survives_the_way_back(self, trial: Trial) -> None:
        claim = trial.run()
        trial.alter(claim.id, Cancel())
        trial.end(claim, Ending.RELEASED, started=False)
        job = trial.job(claim.id)
        assert (job.state, job.cancel_requested) == (State.READY, True)
        assert trial.claim_one().cancel_requested

    def test_job_that_returns_first_succeeds(self, trial: Trial) -> None:
        claim = trial.run()
        trial.alter(claim.id, Cancel())
        trial.end(claim, cancel_requested=True)
        assert (trial.state(claim.id), trial.job(claim.id).cancel_requested) == (State.SUCCEEDED, False)

    def test_drain_is_told_to_every_process_of_the_worker(self, trial: Trial) -> None:
        trial.enrol(P2, worker="w2")
        assert trial.engine.drain(["w1", "nobody"]) == ["w1"]
        assert trial.exchange().drain
        assert not trial.exchange(process=P2).drain


def _silent(trial: Trial) -> Answer:
    return Answer(now_ms=trial.clock.wall_ms(), mark=1)
