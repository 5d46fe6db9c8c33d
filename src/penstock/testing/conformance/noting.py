"""`note`, `log`, `begin`, `record`: what a running job writes of itself."""

import pytest

from penstock.engine import Begun, Note
from penstock.model.errors import LeaseLost
from penstock.model.job import Fence, JobId, Progress
from penstock.model.log import LOG_BYTES_KEPT, LOGS_KEPT
from penstock.model.outcome import Ending
from penstock.model.retry import Policy
from penstock.testing.conformance.trial import P1, Conformance, Trial, new_job


class Noting(Conformance):
    def test_progress_is_seen_at_once(self, trial: Trial) -> None:
        claim = trial.run()
        assert trial.engine.note([Note(claim.id, claim.fence, Progress(1, 10, "one"))]) == ()
        assert trial.job(claim.id).progress == Progress(1, 10, "one")
        trial.engine.note([Note(claim.id, claim.fence, log="no progress here")])
        assert trial.job(claim.id).progress == Progress(1, 10, "one")

    def test_text_is_appended_by_attempt(self, trial: Trial) -> None:
        claim = trial.run()
        trial.engine.note([Note(claim.id, claim.fence, log="a"), Note(claim.id, claim.fence, log="b")])
        trial.end(claim, Ending.FAILED, after_ms=0)
        again = trial.claim_one()
        trial.engine.note([Note(again.id, again.fence, log="c", attempt=2)])
        assert trial.engine.log(claim.id) == {1: "ab", 2: "c"}
        assert list(trial.engine.log(claim.id)) == [1, 2]

    def test_text_of_the_newest_attempts_is_kept(self, trial: Trial) -> None:
        claim = trial.run()
        for attempt in range(1, LOGS_KEPT + 4):
            trial.engine.note([Note(claim.id, claim.fence, log="x", attempt=attempt)])
        assert list(trial.engine.log(claim.id)) == list(range(4, LOGS_KEPT + 4))

    def test_log_outlives_the_end_of_the_job(self, trial: Trial) -> None:
        claim = trial.run()
        trial.engine.note([Note(claim.id, claim.fence, log="a")])
        trial.end(claim)
        assert trial.engine.log(claim.id) == {1: "a"}

    def test_job_without_text_has_an_empty_log(self, trial: Trial) -> None:
        claim = trial.run()
        trial.engine.note([Note(claim.id, claim.fence, Progress(1))])
        assert trial.engine.log(claim.id) == trial.engine.log(JobId("ghost")) == {}

    def test_last_64_kib_of_an_attempt_are_kept(self, trial: Trial) -> None:
        claim = trial.run()
        trial.engine.note(
            [Note(claim.id, claim.fence, log="first"), Note(claim.id, claim.fence, log="x" * LOG_BYTES_KEPT)]
        )
        assert trial.engine.log(claim.id) == {1: "x" * LOG_BYTES_KEPT}

    def test_stale_notes_are_refused_alone(self, trial: Trial) -> None:
        trial.add_all(new_job(), new_job())
        first, second = trial.claim()
        trial.end(first)
        forged = Fence(second.fence.number, second.fence.token ^ 1)
        refused = trial.engine.note(
            [
                Note(first.id, first.fence, Progress(1), "late"),
                Note(second.id, second.fence, Progress(2), "fine"),
                Note(second.id, forged, Progress(3), "forged"),
                Note(JobId("ghost"), Fence(1, 1)),
            ]
        )
        assert refused == (first.id, second.id, "ghost")
        assert (trial.job(first.id).progress, trial.engine.log(first.id)) == (None, {})
        assert (trial.job(second.id).progress, trial.engine.log(second.id)) == (Progress(2), {1: "fine"})


class Remembering(Conformance):
    """The ledger; skipped for an engine that does not declare it."""

    @pytest.fixture(autouse=True)
    def _with_ledger(self, trial: Trial) -> None:
        if "ledger" not in trial.engine.capabilities:
            pytest.skip("the engine has no ledger")

    def test_first_to_begin_is_told_so(self, trial: Trial) -> None:
        claim = trial.run()
        assert trial.engine.begin(claim.id, claim.fence, "mail", "7", 1000) == Begun(first=True)

    def test_second_to_begin_learns_of_the_first(self, trial: Trial) -> None:
        trial.add_all(new_job(), new_job())
        first, second = trial.claim()
        trial.engine.begin(first.id, first.fence, "mail", "7", 1000)
        assert trial.engine.begin(second.id, second.fence, "mail", "7", 1000) == Begun(first=False, by=first.id)
        assert trial.engine.begin(second.id, second.fence, "mail", "8", 1000).first
        assert trial.engine.begin(second.id, second.fence, "post", "7", 1000).first

    def test_what_was_recorded_is_given_to_all(self, trial: Trial) -> None:
        trial.add_all(new_job(), new_job())
        first, second = trial.claim()
        trial.engine.begin(first.id, first.fence, "mail", "7", 1000)
        trial.engine.record(first.id, first.fence, "mail", "7", b'"sent"')
        done = Begun(first=False, by=first.id, value=b'"sent"')
        assert trial.engine.begin(second.id, second.fence, "mail", "7", 1000) == done
        assert trial.engine.begin(first.id, first.fence, "mail", "7", 1000) == done

    def test_later_attempt_learns_what_the_earlier_began(self, trial: Trial) -> None:
        claim = trial.run()
        trial.engine.begin(claim.id, claim.fence, "mail", "7", 1000)
        trial.end(claim, Ending.CRASHED)
        again = trial.claim_one()
        assert trial.engine.begin(again.id, again.fence, "mail", "7", 1000) == Begun(first=False, by=claim.id)

    def test_entry_is_forgotten_after_its_time(self, trial: Trial) -> None:
        trial.add_all(new_job(), new_job())
        first, second = trial.claim()
        trial.engine.begin(first.id, first.fence, "mail", "7", 1000)
        trial.clock.turn(1000)
        assert trial.engine.begin(second.id, second.fence, "mail", "7", 1000).first

    def test_entry_without_a_time_lives_as_long_as_its_job(self, trial: Trial) -> None:
        claim = trial.run(policy=Policy(keep_ms=1000))
        trial.engine.begin(claim.id, claim.fence, "step", "x", None)
        trial.engine.record(claim.id, claim.fence, "step", "x", b"1")
        trial.clock.turn(100_000_000)
        trial.enrol(P1)
        other = trial.run()
        assert trial.engine.begin(other.id, other.fence, "step", "x", None).value == b"1"
        trial.end(claim)
        trial.clock.turn(1000)
        assert trial.tend().pruned == 1
        assert trial.engine.begin(other.id, other.fence, "step", "x", None).first

    def test_what_was_begun_and_did_not_happen_is_taken_back(self, trial: Trial) -> None:
        trial.add_all(new_job(), new_job())
        first, second = trial.claim()
        assert trial.engine.begin(first.id, first.fence, "mail", "7", 1000).first
        assert trial.engine.record(first.id, first.fence, "mail", "7", None)
        assert trial.engine.begin(second.id, second.fence, "mail", "7", 1000).first

    def test_neither_what_happened_nor_what_another_job_began_is_taken_back(self, trial: Trial) -> None:
        trial.add_all(new_job(), new_job())
        first, second = trial.claim()
        trial.engine.begin(first.id, first.fence, "mail", "7", 1000)
        trial.engine.record(second.id, second.fence, "mail", "7", None)
        assert trial.engine.begin(second.id, second.fence, "mail", "7", 1000) == Begun(first=False, by=first.id)
        trial.engine.record(first.id, first.fence, "mail", "7", b"1")
        trial.engine.record(first.id, first.fence, "mail", "7", None)
        assert trial.engine.begin(second.id, second.fence, "mail", "7", 1000).value == b"1"

    def test_a_person_says_what_nobody_else_knows(self, trial: Trial) -> None:
        trial.add_all(new_job(), new_job())
        first, second = trial.claim()
        for key in ("done", "not"):
            trial.engine.begin(first.id, first.fence, "mail", key, 1000)
        assert trial.engine.record(None, None, "mail", "done", b'"sent"')
        assert trial.engine.record(None, None, "mail", "not", None)
        told = [trial.engine.begin(second.id, second.fence, "mail", key, 1000) for key in ("done", "not")]
        assert told == [Begun(first=False, by=first.id, value=b'"sent"'), Begun(first=True)]

    def test_a_person_corrects_only_what_is_there(self, trial: Trial) -> None:
        claim = trial.run()
        trial.engine.begin(claim.id, claim.fence, "mail", "7", 1000)
        trial.clock.turn(1000)
        for value in (b"1", None):
            assert not trial.engine.record(None, None, "mail", "7", value)
            assert not trial.engine.record(None, None, "mail", "never", value)
        assert trial.engine.begin(claim.id, claim.fence, "mail", "7", 1000).first

    def test_stale_fence_writes_nothing(self, trial: Trial) -> None:
        claim = trial.run()
        forged = Fence(claim.fence.number, claim.fence.token ^ 1)
        with pytest.raises(LeaseLost):
            trial.engine.begin(claim.id, forged, "mail", "7", 1000)
        with pytest.raises(LeaseLost):
            trial.engine.record(claim.id, forged, "mail", "7", b"1")
        assert trial.engine.begin(claim.id, claim.fence, "mail", "7", 1000).first
