"""`enrol`, `renew`, `workers`, `drain`: who is alive, and what becomes of the claims of the dead."""

import pytest

from penstock.engine import Cancel, Death, Tended, WorkerInfo
from penstock.model.errors import LeaseLost
from penstock.model.job import ProcessId
from penstock.model.outcome import Ending
from penstock.model.states import State
from penstock.testing.conformance.trial import LEASE_MS, P1, P2, P3, Conformance, Trial, change, new_job


class Enrolling(Conformance):
    def test_every_process_learns_the_epoch(self, trial: Trial) -> None:
        epoch = trial.engine.enrol(WorkerInfo(id="w2"), [P2])
        assert epoch == trial.engine.describe().epoch != ""

    def test_worker_is_seen_as_it_presents_itself(self, trial: Trial) -> None:
        info = WorkerInfo(id="w0", host="h", pid=7, queues=("mail",), tasks=("t",), slots=8, lease_ms=5000)
        trial.engine.enrol(info, [P3, P2])
        first, second = trial.engine.workers()
        assert (first.info, sorted(first.processes), first.lease_left_ms) == (info, [P2, P3], 5000)
        assert (first.running, first.drain, first.enrolled_ms) == (0, False, trial.clock.wall_ms())
        assert second.info.id == "w1"

    def test_enrolling_again_replaces_what_is_known(self, trial: Trial) -> None:
        began = trial.clock.wall_ms()
        trial.clock.turn(1000)
        trial.engine.enrol(WorkerInfo(id="w1", slots=3, lease_ms=LEASE_MS), [P1, P2])
        [worker] = trial.engine.workers()
        assert (worker.info.slots, sorted(worker.processes), worker.enrolled_ms) == (3, [P1, P2], began)
        assert worker.lease_left_ms == LEASE_MS

    def test_running_jobs_of_a_worker_are_counted(self, trial: Trial) -> None:
        trial.add_all(new_job(), new_job(), new_job())
        trial.claim(limit=2)
        assert trial.engine.workers()[0].running == 2


class Renewing(Conformance):
    def test_renewed_lease_does_not_lapse(self, trial: Trial) -> None:
        trial.enrol(P2)
        for _ in range(3):
            trial.clock.turn(LEASE_MS - 1)
            assert trial.engine.renew(P1, [P2]).void == ()
        assert trial.tend().taken == ()
        assert len(trial.engine.workers()[0].processes) == 2

    def test_lapsed_lease_is_revived_until_it_is_voided(self, trial: Trial) -> None:
        trial.enrol(P2)
        claim = trial.run(P2)
        trial.clock.turn(LEASE_MS)
        assert trial.engine.renew(P1, [P2]).void == ()
        assert trial.tend() == Tended(lapse_ms=LEASE_MS)
        assert trial.end(claim, process=P2).late == ()

    def test_lease_of_another_boot_is_revived_too(self, trial: Trial) -> None:
        trial.enrol(P2)
        trial.clock.reboot()
        trial.engine.renew(P1, [P2])
        assert trial.tend() == Tended(lapse_ms=LEASE_MS)

    def test_unknown_lease_is_void(self, trial: Trial) -> None:
        assert trial.engine.renew(P1, [P1, ProcessId("stranger")]).void == ("stranger",)

    def test_renewal_tells_who_should_drain(self, trial: Trial) -> None:
        trial.enrol(P2, worker="w2")
        trial.engine.drain(["w2"])
        assert trial.engine.renew(P1, [P1, P2]).drain == (P2,)
        [_, worker] = trial.engine.workers()
        assert worker.drain

    def test_unknown_tender_has_lost_its_lease(self, trial: Trial) -> None:
        with pytest.raises(LeaseLost, match="stranger"):
            trial.engine.renew(ProcessId("stranger"), [P1])

    def test_tender_renews_its_own_lease(self, trial: Trial) -> None:
        trial.clock.turn(LEASE_MS)
        trial.engine.renew(P1, [])
        assert trial.engine.workers()[0].lease_left_ms == LEASE_MS


class Dying(Conformance):
    def test_claims_of_the_dead_pass_to_the_tender_with_their_fate(self, trial: Trial) -> None:
        trial.enrol(P2)
        trial.add_all(new_job("begun"), new_job("waiting"))
        begun, waiting = trial.claim(P2)
        renewed = trial.engine.renew(P1, [P2], [Death(P2, frozenset({begun.fence.token}))])
        taken = {found.claim.id: found for found in renewed.taken}
        assert {id: found.fate for id, found in taken.items()} == {"begun": "crashed", "waiting": "released"}
        assert all(found.previous == P2 for found in taken.values())
        assert taken[begun.id].claim.fence.number == 2
        assert taken[begun.id].claim.fence.token != begun.fence.token
        assert renewed.void == (P2,)
        assert trial.job(waiting.id).process == P1

    def test_each_of_very_many_claims_of_the_dead_passes_on_with_its_fate(self, trial: Trial) -> None:
        trial.enrol(P2)
        for _ in range(3):
            trial.add_all(*(new_job() for _ in range(500)))
        claims = [*trial.claim(P2), *trial.claim(P2)]
        begun = {claim.id: claim.fence.token for claim in claims[::2]}
        taken = list(trial.engine.renew(P1, [], [Death(P2, frozenset(begun.values()))]).taken)
        for _ in range(2):
            taken += trial.engine.tend(P1).taken
        assert len(taken) == len(claims) == 1500
        fates = {one.claim.id: one.fate for one in taken}
        assert fates == {claim.id: "crashed" if claim.id in begun else "released" for claim in claims}

    def test_taken_claims_are_settled_by_the_tender_and_by_nobody_else(self, trial: Trial) -> None:
        trial.enrol(P2, P3)
        claim = trial.run(P2)
        [taken] = trial.engine.renew(P1, [], [Death(P2, frozenset({claim.fence.token}))]).taken
        assert trial.end(claim, process=P3).late == (claim.id,)
        assert trial.end(taken.claim, Ending.CRASHED).late == ()
        job = trial.job(claim.id)
        assert (job.state, job.counters.crashes, job.claim_number) == (State.READY, 1, 2)

    def test_the_dead_can_neither_deliver_nor_claim(self, trial: Trial) -> None:
        trial.enrol(P2)
        claim = trial.run(P2)
        trial.engine.renew(P1, [], [Death(P2)])
        with pytest.raises(LeaseLost):
            trial.end(claim, process=P2)
        assert trial.engine.describe().late_results == 1
        assert trial.engine.renew(P1, [P2]).void == (P2,)
        assert trial.engine.workers()[0].processes == (P1,)

    def test_death_of_an_unknown_process_is_no_news(self, trial: Trial) -> None:
        assert trial.engine.renew(P1, [], [Death(ProcessId("stranger"))]).taken == ()

    def test_jobs_of_others_are_left_alone(self, trial: Trial) -> None:
        trial.enrol(P2)
        claim = trial.run()
        assert trial.engine.renew(P1, [], [Death(P2, frozenset({claim.fence.token}))]).taken == ()
        assert trial.end(claim).late == ()

    def test_request_to_cancel_passes_on_with_the_claim(self, trial: Trial) -> None:
        trial.enrol(P2)
        claim = trial.run(P2)
        trial.alter(claim.id, Cancel())
        [taken] = trial.engine.renew(P1, [], [Death(P2)]).taken
        assert taken.claim.cancel_requested

    def test_a_repeated_beat_of_the_tender_does_not_name_what_it_took(self, trial: Trial) -> None:
        trial.enrol(P2)
        trial.run(P2)
        own = trial.run(P1)
        trial.engine.renew(P1, [], [Death(P2)])
        assert trial.repeat().claims == (own,)


class Evicting(Conformance):
    def test_what_an_evicted_worker_held_is_lost_to_the_tender(self, trial: Trial) -> None:
        trial.enrol(P2, worker="w2")
        claim = trial.run(P2)
        assert trial.engine.evict(["w2"]) == ["w2"]
        [taken] = trial.tend().taken
        assert (taken.claim.id, taken.fate, taken.previous) == (claim.id, "lost", P2)
        with pytest.raises(LeaseLost):
            trial.end(claim, process=P2)
        assert trial.state(claim.id) is State.RUNNING

    def test_evicted_worker_is_gone_at_once(self, trial: Trial) -> None:
        trial.enrol(P2, P3, worker="w2")
        trial.run(P2)
        trial.engine.evict(["w2"])
        assert [worker.info.id for worker in trial.engine.workers()] == ["w1"]
        assert trial.engine.renew(P1, [P2, P3]).void == (P2, P3)
        with pytest.raises(LeaseLost):
            trial.exchange(process=P3)

    def test_claims_of_an_evicted_worker_wait_for_a_tender_with_a_lease(self, trial: Trial) -> None:
        trial.enrol(P2, worker="w2")
        trial.run(P2)
        trial.engine.evict(["w2"])
        assert trial.engine.tend(ProcessId("stranger")).taken == ()
        assert len(trial.tend().taken) == 1

    def test_worker_that_was_evicted_works_on_under_new_names(self, trial: Trial) -> None:
        trial.enrol(P2, worker="w2")
        trial.engine.evict(["w2"])
        trial.enrol(P3, worker="w2")
        assert trial.run(P3).fence.number == 1

    def test_only_workers_with_a_lease_are_evicted(self, trial: Trial) -> None:
        trial.enrol(P2, worker="w2")
        assert trial.engine.evict(["nobody", "w2", "w3"]) == ["w2"]
        assert trial.engine.evict(["w2"]) == trial.engine.evict([]) == []
        assert [worker.info.id for worker in trial.engine.workers()] == ["w1"]


class Lapsing(Conformance):
    def test_lapsed_claims_are_lost_to_the_tender(self, trial: Trial) -> None:
        trial.enrol(P2, worker="w2")
        claim = trial.run(P2)
        trial.clock.turn(LEASE_MS)
        trial.keep_alive()
        [taken] = trial.tend().taken
        assert (taken.claim.id, taken.fate, taken.previous) == (claim.id, "lost", P2)
        assert (taken.claim.fence.number, trial.job(claim.id).process) == (2, P1)
        assert [worker.info.id for worker in trial.engine.workers()] == ["w1"]

    def test_lease_holds_to_its_last_millisecond(self, trial: Trial) -> None:
        trial.enrol(P2)
        trial.run(P2)
        trial.clock.turn(LEASE_MS - 1)
        trial.keep_alive()
        assert trial.tend().taken == ()
        trial.clock.turn(1)
        assert len(trial.tend().taken) == 1

    def test_jump_of_the_time_of_day_lapses_nothing(self, trial: Trial) -> None:
        trial.enrol(P2)
        trial.run(P2)
        trial.clock.jump_wall(3_600_000)
        assert trial.tend().taken == ()

    def test_another_boot_lapses_every_lease(self, trial: Trial) -> None:
        trial.enrol(P2, lease_ms=3_600_000)
        trial.run(P2)
        trial.clock.reboot()
        trial.keep_alive()
        assert len(trial.tend().taken) == 1

    def test_voided_lease_is_lost_for_good(self, trial: Trial) -> None:
        trial.enrol(P2)
        claim = trial.run(P2)
        trial.clock.turn(LEASE_MS)
        trial.keep_alive()
        [taken] = trial.tend().taken
        assert trial.engine.renew(P1, [P2]).void == (P2,)
        with pytest.raises(LeaseLost):
            trial.end(claim, process=P2)
        assert trial.state(claim.id) is State.RUNNING
        assert trial.end(taken.claim, Ending.LOST).late == ()
        assert trial.job(claim.id).counters.suspect

    def test_next_lapse_is_the_first_of_all_other_processes(self, trial: Trial) -> None:
        assert trial.tend().lapse_ms is None
        trial.enrol(P2, worker="w2", lease_ms=LEASE_MS * 3)
        assert trial.tend().lapse_ms == LEASE_MS * 3
        trial.enrol(P3, worker="w3")
        trial.clock.turn(1000)
        trial.keep_alive()
        assert trial.tend().lapse_ms == LEASE_MS - 1000
        trial.keep_alive(P3)
        assert trial.tend().lapse_ms == LEASE_MS
        assert trial.engine.tend(P3).lapse_ms == LEASE_MS

    def test_voided_lease_lapses_no_more(self, trial: Trial) -> None:
        trial.enrol(P2, worker="w2")
        trial.enrol(P3, worker="w3", lease_ms=LEASE_MS * 3)
        trial.add_all(new_job(), new_job())
        trial.claim(P2)
        trial.clock.turn(LEASE_MS)
        trial.keep_alive()
        tended = trial.tend(limit=1)
        assert (len(tended.taken), tended.more, tended.lapse_ms) == (1, True, LEASE_MS * 2)

    def test_lapsed_lease_that_was_not_voided_is_due_at_once(self, trial: Trial) -> None:
        trial.enrol(P2)
        trial.clock.turn(LEASE_MS + 1)
        assert trial.engine.tend(ProcessId("stranger")).lapse_ms == 0
        trial.clock.reboot()
        assert trial.engine.tend(ProcessId("stranger")).lapse_ms == 0

    def test_time_of_day_does_not_bring_the_next_lapse_nearer(self, trial: Trial) -> None:
        trial.enrol(P2)
        trial.clock.jump_wall(3_600_000)
        assert trial.tend().lapse_ms == LEASE_MS

    def test_tender_without_a_live_lease_takes_nothing(self, trial: Trial) -> None:
        trial.enrol(P2)
        claim = trial.run(P2)
        trial.clock.turn(LEASE_MS)
        assert trial.tend().taken == trial.engine.tend(ProcessId("stranger")).taken == ()
        trial.keep_alive()
        assert [taken.claim.id for taken in trial.tend().taken] == [claim.id]

    def test_what_was_seen_of_a_death_outlives_the_tender(self, trial: Trial) -> None:
        trial.enrol(P2, worker="w2")
        trial.enrol(P3, worker="w3", lease_ms=LEASE_MS * 10)
        trial.add_all(new_job("begun"), new_job("waiting"))
        begun, _ = trial.claim(P2)
        trial.engine.renew(P1, [], [Death(P2, frozenset({begun.fence.token}))])
        trial.clock.turn(LEASE_MS)
        taken = trial.engine.tend(P3).taken
        assert {found.claim.id: found.fate for found in taken} == {"begun": "crashed", "waiting": "released"}
        assert {found.claim.fence.number for found in taken} == {3}

    def test_next_claim_knows_nothing_of_an_earlier_fate(self, trial: Trial) -> None:
        trial.enrol(P2, P3)
        trial.run(P2)
        [taken] = trial.engine.renew(P1, [], [Death(P2)]).taken
        trial.end(taken.claim, Ending.RELEASED, started=False)
        trial.claim(P3)
        trial.clock.turn(LEASE_MS)
        trial.keep_alive()
        assert [found.fate for found in trial.tend().taken] == ["lost"]

    def test_bounded_steps_take_every_claim_in_the_end(self, trial: Trial) -> None:
        trial.enrol(P2)
        trial.add_all(*(new_job() for _ in range(5)))
        held = {claim.id for claim in trial.claim(P2)}
        trial.clock.turn(LEASE_MS)
        trial.keep_alive()
        first = trial.tend(limit=3)
        assert (len(first.taken), first.more) == (3, True)
        with pytest.raises(LeaseLost):
            trial.exchange(process=P2)
        second = trial.tend(limit=3)
        assert (len(second.taken), second.more) == (2, False)
        assert {found.claim.id for found in (*first.taken, *second.taken)} == held
        assert trial.exchange(*(change(found.claim, Ending.LOST) for found in second.taken)).late == ()

    def test_lapsed_process_that_holds_nothing_vanishes(self, trial: Trial) -> None:
        trial.enrol(P2, worker="w2")
        trial.clock.turn(LEASE_MS)
        trial.keep_alive()
        assert trial.tend() == Tended()
        assert [worker.info.id for worker in trial.engine.workers()] == ["w1"]
        with pytest.raises(LeaseLost):
            trial.exchange(process=P2)
