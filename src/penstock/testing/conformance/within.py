"""Adding within the caller's transaction: what commits is there once, what is taken back was never there."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.engine import Added, AddRequest
from penstock.model.errors import ConnectionInvalid, LeaseLost, PenstockError, QueueFull, UniqueConflict, Unsupported
from penstock.model.job import Details, Fence, NewJob, Unique
from penstock.model.states import State
from penstock.testing.conformance.trial import Conformance, EngineFactory, Trial, new_job

_DEADLINE_S = 60.0


class Within(Conformance):
    """`add_within`, on engines that declare `transactions`."""

    @pytest.fixture
    def trial(self, engine_factory: EngineFactory) -> Trial:
        trial = Trial(engine_factory)
        if "transactions" not in trial.engine.capabilities:
            pytest.skip("the engine declares no transactions")
        return trial

    @pytest.fixture
    def caller(self, trial: Trial, engine_factory: EngineFactory) -> Iterator["Caller"]:
        with contextlib.closing(engine_factory.connect()) as connection:
            yield Caller(trial, connection)

    def test_job_appears_with_the_commit(self, trial: Trial, caller: "Caller") -> None:
        [added] = caller.add_all(new_job())
        assert trial.state(added.id) is None
        assert trial.counts() == {}
        caller.connection.commit()
        assert [claim.id for claim in trial.claim()] == [added.id]
        assert trial.claim() == ()

    def test_rollback_leaves_nothing(self, trial: Trial, caller: "Caller") -> None:
        [added] = caller.add_all(new_job(queue="new"))
        caller.connection.rollback()
        assert trial.state(added.id) is None
        assert trial.counts() == {}
        assert trial.claim() == ()
        later = trial.add(queue="new")
        assert [claim.id for claim in trial.claim()] == [later]

    def test_another_lane_may_be_made_after_a_rollback(self, trial: Trial, caller: "Caller") -> None:
        caller.add_all(new_job(queue="a"))
        caller.connection.rollback()
        first = trial.add(queue="b")
        [second] = caller.add_all(new_job(queue="a"))
        caller.connection.commit()
        assert trial.job(first).queue == "b"
        assert trial.job(second.id).queue == "a"
        assert trial.counts() == trial.recount()

    def test_counts_are_right_after_commit_and_after_rollback(self, trial: Trial, caller: "Caller") -> None:
        caller.add_all(new_job(), new_job(delay_ms=5000), new_job(queue="mail"))
        caller.connection.commit()
        assert trial.counts() == trial.recount()
        assert sum(trial.counts().values()) == 3
        caller.add_all(new_job(), new_job(queue="other"))
        caller.connection.rollback()
        assert trial.counts() == trial.recount()
        assert sum(trial.counts().values()) == 3

    def test_jobs_of_a_transaction_keep_their_order(self, trial: Trial, caller: "Caller") -> None:
        first = caller.add_all(new_job(), new_job())
        second = caller.add_all(new_job())
        caller.connection.commit()
        assert [claim.id for claim in trial.claim()] == [added.id for added in [*first, *second]]

    def test_delay_counts_from_when_it_was_added(self, trial: Trial, caller: "Caller") -> None:
        [added] = caller.add_all(new_job(delay_ms=1000))
        caller.connection.commit()
        assert trial.state(added.id) is State.SCHEDULED
        trial.clock.turn(1000)
        trial.tend()
        assert trial.state(added.id) is State.READY

    def test_known_id_answers_existing(self, trial: Trial, caller: "Caller") -> None:
        job = new_job()
        trial.add(job)
        assert caller.add_all(job) == [Added(job.id, existing=True)]
        other = new_job()
        assert caller.add_all(other) == [Added(other.id)]
        assert caller.add_all(other) == [Added(other.id, existing=True)]
        caller.connection.commit()
        assert len(trial.claim()) == 2

    def test_id_of_a_rolled_back_job_can_be_added_again(self, trial: Trial, caller: "Caller") -> None:
        job = new_job(details=Details(idempotency_key="k", unique=Unique("u", clash="refuse")))
        caller.add_all(job)
        caller.connection.rollback()
        assert trial.add_all(job) == [Added(job.id)]

    def test_refusal_leaves_the_transaction_usable(self, trial: Trial, caller: "Caller") -> None:
        trial.engine.alter_queue("full", max_jobs=1)
        held = trial.add(details=Details(unique=Unique("u")))
        [kept] = caller.add_all(new_job(queue="full"))
        refused = caller.add(new_job(queue="full"))
        clashing = caller.add(new_job(), new_job(details=Details(unique=Unique("u", clash="refuse"))))
        assert isinstance(refused, QueueFull)
        assert isinstance(clashing, UniqueConflict)
        assert clashing.holder == held
        [last] = caller.add_all(new_job())
        caller.connection.commit()
        assert {claim.id for claim in trial.claim()} == {held, kept.id, last.id}
        assert trial.counts() == trial.recount()

    def test_refusal_alone_locks_nobody_out(self, trial: Trial, caller: "Caller") -> None:
        trial.engine.alter_queue("full", max_jobs=0)
        assert isinstance(caller.add(new_job(queue="full")), QueueFull)
        trial.add()
        caller.connection.rollback()

    def test_stale_parent_is_refused(self, trial: Trial, caller: "Caller") -> None:
        claim = trial.run()
        request = AddRequest((new_job(),), (claim.id, Fence(claim.fence.number, claim.fence.token ^ 1)))
        [answer] = trial.engine.add_within(caller.connection, [request])
        assert isinstance(answer, LeaseLost)
        [answer] = trial.engine.add_within(caller.connection, [AddRequest((new_job(),), (claim.id, claim.fence))])
        assert not isinstance(answer, PenstockError)
        caller.connection.commit()
        assert len(trial.claim()) == 1

    def test_each_request_has_its_own_answer(self, trial: Trial, caller: "Caller") -> None:
        trial.engine.alter_queue("full", max_jobs=0)
        good, bad = new_job(), new_job(queue="full")
        answers = trial.engine.add_within(caller.connection, [AddRequest((bad,)), AddRequest((good,))])
        caller.connection.commit()
        assert isinstance(answers[0], QueueFull)
        assert answers[1] == [Added(good.id)]
        assert [claim.id for claim in trial.claim()] == [good.id]

    def test_replacing_is_taken_back_with_the_rest(self, trial: Trial, caller: "Caller") -> None:
        rule = Details(unique=Unique("u", clash="replace"))
        old = trial.add(queue="old", details=rule)
        caller.add_all(new_job(details=rule))
        caller.connection.rollback()
        assert trial.state(old) is State.READY
        [new] = caller.add_all(new_job(details=rule))
        caller.connection.commit()
        assert trial.state(old) is State.CANCELLED
        assert trial.state(new.id) is State.READY
        assert trial.counts() == trial.recount()

    def test_two_callers_at_once_are_both_heard(self, trial: Trial, engine_factory: EngineFactory) -> None:
        def add_and_end(number: int) -> list[Any]:
            with contextlib.closing(engine_factory.connect()) as connection:
                caller, kept = Caller(trial, connection), []
                for turn in range(10):
                    [added] = caller.add_all(new_job(id=f"{number}-{turn}"))
                    if turn % 2:
                        connection.rollback()
                    else:
                        connection.commit()
                        kept.append(added.id)
                return kept

        kept = [id for ids in together(4, add_and_end) for id in ids]
        assert sorted(claim.id for claim in trial.claim()) == sorted(kept)
        assert trial.counts() == trial.recount()

    def test_one_of_many_callers_gets_a_unique_key(self, trial: Trial, engine_factory: EngineFactory) -> None:
        def race(number: int) -> list[Any]:
            job = new_job(id=f"racer-{number}", details=Details(unique=Unique("u", clash="refuse")))
            with contextlib.closing(engine_factory.connect()) as connection:
                answer = Caller(trial, connection).add(job)
                connection.commit()
            return [answer]

        answers = [answer for [answer] in together(6, race)]
        [won] = [answer[0].id for answer in answers if isinstance(answer, list)]
        assert all(isinstance(answer, list) or answer.holder == won for answer in answers)
        assert [claim.id for claim in trial.claim()] == [won]

    def test_what_is_no_connection_of_this_store_is_refused(self, trial: Trial) -> None:
        with pytest.raises(ConnectionInvalid, match="object"):
            trial.engine.add_within(object(), [AddRequest((new_job(),))])

    def test_closed_connection_is_refused(self, caller: "Caller") -> None:
        caller.connection.close()
        with pytest.raises(ConnectionInvalid, match="closed"):
            caller.add(new_job())

    def test_unsound_job_is_refused_and_the_transaction_goes_on(self, trial: Trial, caller: "Caller") -> None:
        [added] = caller.add_all(new_job())
        with pytest.raises(ValueError, match="delay"):
            caller.add(new_job(delay_ms=-1))
        caller.connection.commit()
        assert trial.state(added.id) is State.READY


class NotWithin(Conformance):
    """What engines do that do not declare `transactions`."""

    def test_engine_without_transactions_refuses_add_within(self, trial: Trial) -> None:
        if "transactions" in trial.engine.capabilities:
            pytest.skip("the engine declares transactions")
        with pytest.raises(Unsupported, match=r"transactions; leave connection= out"):
            trial.engine.add_within(object(), [AddRequest((new_job(),))])


class Caller:
    """A program that has a connection of its own to the store's database, and adds in its transactions."""

    def __init__(self, trial: Trial, connection: Any) -> None:
        self.engine, self.connection = trial.engine, connection

    def add(self, *jobs: NewJob) -> list[Added] | PenstockError:
        [answer] = self.engine.add_within(self.connection, [AddRequest(jobs)])
        return answer

    def add_all(self, *jobs: NewJob) -> list[Added]:
        """Add jobs in one request; raises what the request was refused with."""
        answer = self.add(*jobs)
        if isinstance(answer, PenstockError):
            raise answer
        return answer


def together(count: int, work: Callable[[int], list[Any]]) -> list[list[Any]]:
    """Do work in so many threads that begin at once; give what each one gave, or raise what one raised."""
    barrier = threading.Barrier(count)
    done: list[list[Any] | Exception] = [[] for _ in range(count)]

    def run(number: int) -> None:
        try:
            barrier.wait(_DEADLINE_S)
            done[number] = work(number)
        except Exception as error:  # noqa: BLE001 (raised where the test can see it)
            done[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_DEADLINE_S)
    answers = []
    for one in done:
        if isinstance(one, Exception):
            raise one
        answers.append(one)
    return answers
