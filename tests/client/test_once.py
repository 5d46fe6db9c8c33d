"""Steps and side effects: what is done once, what is done again, and what is said where nobody knows."""

import asyncio
import dataclasses
import datetime
from collections.abc import Callable
from typing import Any

import pytest

from penstock import Bury, OutcomeInvalid, Penstock, Snooze, State, current_job
from penstock.engine import Edit, Want, WorkerInfo
from penstock.model.errors import LeaseLost, TaskInvalid
from penstock.model.job import ProcessId
from penstock.model.outcome import Ending, Outcome
from penstock.model.settle import settle
from penstock.once import Ledger
from penstock.testing import TurnedClock, memory_engine, run_jobs

ONE = Want(tasks={"shop.work": "thread"}, free={"thread": 1}, limit=1)


@dataclasses.dataclass
class Receipt:
    number: int
    at: datetime.date


class Shop:
    """A task whose body is given by each test, and what it called."""

    def __init__(self) -> None:
        self.clock = TurnedClock()
        self.app = Penstock(engine=memory_engine(self.clock))
        self.called: list[Any] = []
        self.body: Callable[[], Any] = lambda: None
        self.work = self.app.task(name="shop.work", max_attempts=3, backoff=0)(lambda: self.body())

    def call(self, *given: Any) -> int:
        self.called.append(given)
        return len(self.called)

    def run(self, body: Callable[[], Any]) -> Any:
        self.body = body
        job = self.work.enqueue()
        run_jobs(self.app)
        return job

    def leave_open(self, key: str) -> None:
        """Let a job begin a side effect and die before it can say how that ended."""
        engine, process = self.app.engine, ProcessId("doomed")
        engine.enrol(WorkerInfo(id="doomed"), [process])
        self.work.enqueue()
        [claim] = engine.exchange(process, 1, (), ONE).claims
        engine.begin(claim.id, claim.fence, "once", key, 1_000_000)
        change = settle(claim, Outcome(ending=Ending.FAILED, verdict="bury"), 0.0)
        engine.exchange(process, 2, (change,), None)


@pytest.fixture
def shop() -> Shop:
    return Shop()


# -- steps ------------------------------------------------------------------------------------------------------------


def test_a_later_attempt_skips_the_steps_of_an_earlier_one(shop: Shop) -> None:
    def body() -> list[int]:
        me = current_job()
        numbers = [me.step(name, shop.call, name) for name in ("a", "b")]
        if me.attempt < 3:
            raise ConnectionError
        return numbers

    assert shop.run(body).result() == [1, 2]
    assert shop.called == [("a",), ("b",)]


def test_a_step_that_fails_is_done_again(shop: Shop) -> None:
    def fails_first(*given: Any) -> int:
        if shop.call(*given) == 1:
            raise ConnectionError
        return 7

    assert shop.run(lambda: current_job().step("a", fails_first)).result() == 7
    assert len(shop.called) == 2


def test_each_job_has_steps_of_its_own(shop: Shop) -> None:
    results = [shop.run(lambda: current_job().step("a", shop.call)).result() for _ in range(2)]
    assert results == [1, 2]


def test_a_step_gives_the_same_the_first_time_and_later(shop: Shop) -> None:
    given: list[Any] = []

    def charge() -> Receipt:
        return Receipt(7, datetime.date(2026, 1, 2))

    def body() -> None:
        me = current_job()
        given.append(me.step("charge", charge))
        if me.attempt == 1:
            raise ConnectionError

    shop.run(body)
    assert given == [Receipt(7, datetime.date(2026, 1, 2))] * 2


def test_steps_of_a_job_whose_arguments_were_edited_are_done_again(shop: Shop) -> None:
    def body() -> None:
        current_job().step("a", shop.call)
        raise Bury("look")

    job = shop.run(body)
    shop.app.engine.alter([job.id], Edit(envelope=job.info().envelope.replace(b"{}", b"{ }"), crc=None))
    run_jobs(shop.app)
    assert len(shop.called) == 2


def test_steps_outlive_a_kick_and_serve_a_fallback(shop: Shop) -> None:
    app = shop.app

    @app.task(name="plain")
    def plain() -> int:
        return current_job().step("charge", shop.call)

    @app.task(name="fancy", max_attempts=1, fallback=plain)
    def fancy() -> None:
        current_job().step("charge", shop.call)
        raise ConnectionError

    job = fancy.enqueue()
    run_jobs(app)
    assert (job.result(), job.degraded, len(shop.called)) == (1, "plain", 1)
    app.upgrade(job.id)
    run_jobs(app)
    assert len(shop.called) == 1


def test_what_a_step_gave_and_cannot_be_kept_buries_the_job(shop: Shop) -> None:
    job = shop.run(lambda: current_job().step("a", object))
    info = job.info()
    assert (info.state, info.counters.failures) == (State.BURIED, 1)
    assert "step 'a'" in info.error.message
    assert "not run again" in info.error.message


def test_a_step_whose_job_was_handed_on_is_not_done(shop: Shop) -> None:
    def body() -> None:
        me = current_job()
        stale = type(me.claim.fence)(me.claim.fence.number, me.claim.fence.token ^ 1)
        from msgspec.structs import replace

        with pytest.raises(LeaseLost):
            Ledger(shop.app, replace(me.claim, fence=stale)).seek_step("a", shop.call)

    assert shop.run(body).state() is State.SUCCEEDED


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 501, 7, None])
def test_what_cannot_be_a_name_is_refused(shop: Shop, name: Any) -> None:
    def body() -> None:
        me = current_job()
        for call in (me.step, me.once):
            with pytest.raises(TaskInvalid, match="printable"):
                call(name, shop.call)

    assert shop.run(body).state() is State.SUCCEEDED
    assert shop.called == []


# -- once -------------------------------------------------------------------------------------------------------------


def test_a_side_effect_is_done_by_the_first_job_and_given_to_all(shop: Shop) -> None:
    results = [shop.run(lambda: current_job().once("mail:7", shop.call, "ada")).result() for _ in range(3)]
    assert (results, shop.called) == ([1, 1, 1], [("ada",)])


def test_a_side_effect_is_remembered_as_long_as_asked(shop: Shop) -> None:
    for _ in range(2):
        shop.run(lambda: current_job().once("mail:7", shop.call, keep="1h"))
        shop.clock.turn(3_600_000)
    assert len(shop.called) == 2


def test_an_exception_says_that_it_did_not_happen(shop: Shop) -> None:
    def fails_first() -> int:
        if shop.call() == 1:
            raise ConnectionError
        return 7

    assert shop.run(lambda: current_job().once("mail:7", fails_first)).result() == 7


def test_a_timeout_says_nothing(shop: Shop) -> None:
    def runs_out_of_time() -> None:
        shop.call()
        raise TimeoutError

    job = shop.run(lambda: current_job().once("mail:7", runs_out_of_time))
    assert (job.state(), len(shop.called)) == (State.BURIED, 1)
    assert "nobody knows whether 'mail:7' happened" in job.info().error.message


def test_what_nobody_knows_buries_the_job_until_a_person_says(shop: Shop) -> None:
    shop.leave_open("mail:7")
    job = shop.run(lambda: current_job().once("mail:7", shop.call))
    assert (job.state(), shop.called) == (State.BURIED, [])
    assert shop.app.settle_once("mail:7", done=True, value=4711)
    shop.app.kick(job.id)
    run_jobs(shop.app)
    assert (job.result(), shop.called) == (4711, [])


def test_what_a_person_says_did_not_happen_is_done(shop: Shop) -> None:
    shop.leave_open("mail:7")
    job = shop.run(lambda: current_job().once("mail:7", shop.call))
    assert shop.app.settle_once("mail:7", done=False)
    shop.app.kick(job.id)
    run_jobs(shop.app)
    assert job.result() == 1
    assert not shop.app.settle_once("mail:8", done=True)


def test_what_nobody_knows_is_repeated_or_left_out_as_asked(shop: Shop) -> None:
    shop.leave_open("mail:7")
    assert shop.run(lambda: current_job().once("mail:7", shop.call, unknown="skip")).result() is None
    assert shop.called == []
    assert shop.run(lambda: current_job().once("mail:7", shop.call, unknown="repeat")).result() == 1
    assert shop.run(lambda: current_job().once("mail:7", shop.call)).result() == 1


@pytest.mark.parametrize(("happened", "result"), [(True, None), (False, 1)])
def test_a_function_looks_whether_it_happened(shop: Shop, happened: bool, result: int | None) -> None:
    shop.leave_open("mail:7")
    for _ in range(2):
        assert shop.run(lambda: current_job().once("mail:7", shop.call, unknown=lambda: happened)).result() == result
    assert len(shop.called) == (not happened)


def test_another_policy_is_refused_with_those_there_are(shop: Shop) -> None:
    shop.leave_open("mail:7")
    job = shop.run(lambda: current_job().once("mail:7", shop.call, unknown="maybe"))  # type: ignore[call-overload]
    assert "'bury', 'repeat', 'skip'" in job.info().error.message


def test_a_job_waits_while_another_is_about_to_do_the_same(shop: Shop) -> None:
    engine, process = shop.app.engine, ProcessId("busy")
    engine.enrol(WorkerInfo(id="busy"), [process])
    shop.work.enqueue()
    [claim] = engine.exchange(process, 1, (), ONE).claims
    engine.begin(claim.id, claim.fence, "once", "mail:7", 1_000_000)
    job = shop.run(lambda: current_job().once("mail:7", shop.call))
    assert (job.state(), job.info().counters.snoozes, shop.called) == (State.SCHEDULED, 1, [])
    engine.record(claim.id, claim.fence, "once", "mail:7", b"9")
    shop.clock.turn(2000)
    engine.renew(process, [process])
    run_jobs(shop.app)
    assert job.result() == 9


def test_what_a_side_effect_gave_and_cannot_be_kept_buries_the_job(shop: Shop) -> None:
    job = shop.run(lambda: current_job().once("mail:7", object))
    assert job.state() is State.BURIED
    assert job.info().error.type.endswith("OutcomeInvalid")
    assert issubclass(OutcomeInvalid, Exception)
    assert issubclass(Snooze, BaseException)


# -- coroutines -------------------------------------------------------------------------------------------------------


def test_coroutines_have_steps_and_side_effects(shop: Shop) -> None:
    async def call(*given: Any) -> int:
        await asyncio.sleep(0)
        return shop.call(*given)

    async def fails(kind: type[Exception]) -> None:
        shop.call()
        raise kind

    @shop.app.task(name="shop.coroutine", max_attempts=3, backoff=0)
    async def work() -> list[int | None]:
        me = current_job()
        numbers = [await me.astep("a", call), await me.aonce("mail:8", call)]
        if me.attempt == 1:
            await me.aonce("mail:9", fails, ConnectionError)
        if me.attempt == 2:
            await me.aonce("mail:9", fails, TimeoutError)
        return [*numbers, await me.aonce("mail:9", call, unknown="skip")]

    job = work.enqueue()
    run_jobs(shop.app)
    assert (job.result(), len(shop.called)) == ([1, 2, None], 4)
