import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.engine import Added, AddRequest, Engine
from penstock.engines.memory import MemoryEngine
from penstock.intake import Intake
from penstock.model.errors import (
    EngineBusy,
    EngineDown,
    EngineFull,
    EngineUnavailable,
    IdempotencyConflict,
    PenstockError,
)
from penstock.model.job import JobId, NewJob
from penstock.task import new_id
from tests.polling import await_true

WAIT_S = 10.0


class Gate:
    """A memory engine that can be held shut, or made to fail, while it adds."""

    def __init__(self) -> None:
        self.memory = MemoryEngine()
        self.sizes: list[int] = []
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.troubles: list[Exception] = []
        self.interrupts = 0

    def add(self, requests: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
        self.sizes.append(len(requests))
        self.entered.set()
        assert self.open.wait(WAIT_S)
        if self.troubles:
            raise self.troubles.pop(0)
        if self.interrupts and len(requests) > 1:
            self.interrupts -= 1
            self.memory.add(requests)
            raise KeyboardInterrupt
        return self.memory.add(requests)

    def __getattr__(self, name: str) -> object:
        return getattr(self.memory, name)


def an_intake(gate: Gate, deadline_s: float = 5.0) -> Intake:
    engine: Engine = gate  # type: ignore[assignment]  # the other verbs are those of the memory engine
    return Intake(lambda: engine, deadline_s=deadline_s)


def a_request(id: str | None = None, envelope: bytes = b"{}", jobs: int = 1) -> AddRequest:
    return AddRequest(tuple(NewJob(id=JobId(id) if id else new_id(), task="t", envelope=envelope) for _ in range(jobs)))


def test_callers_that_come_during_a_write_share_the_next_one() -> None:
    gate = Gate()
    intake = an_intake(gate)
    gate.open.clear()
    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(intake.add, a_request())
        assert gate.entered.wait(WAIT_S)
        others = [pool.submit(intake.add, a_request()) for _ in range(20)]
        await_true(lambda: len(intake._queued) == 20)
        gate.open.set()
        answers = [future.result(WAIT_S) for future in [first, *others]]
    assert gate.sizes == [1, 20]
    assert len({answer[0].id for answer in answers}) == 21


def test_nobody_returns_before_the_commit_that_holds_its_jobs() -> None:
    gate = Gate()
    intake = an_intake(gate)
    gate.open.clear()
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(intake.add, a_request()) for _ in range(2)]
        assert gate.entered.wait(WAIT_S)
        await_true(lambda: len(intake._queued) == 1)
        assert not any(future.done() for future in futures)
        gate.open.set()
        assert all(future.result(WAIT_S) for future in futures)


def test_one_write_takes_at_most_1000_jobs() -> None:
    gate = Gate()
    intake = an_intake(gate)
    gate.open.clear()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(intake.add, a_request())]
        assert gate.entered.wait(WAIT_S)
        futures += [pool.submit(intake.add, a_request(jobs=400)) for _ in range(3)]
        await_true(lambda: len(intake._queued) == 3)
        gate.open.set()
        assert [len(future.result(WAIT_S)) for future in futures] == [1, 400, 400, 400]
    assert gate.sizes == [1, 2, 1]


def test_a_refusal_reaches_only_the_one_who_asked() -> None:
    gate = Gate()
    intake = an_intake(gate)
    intake.add(a_request("known", b"1"))
    gate.entered.clear()
    gate.open.clear()
    with ThreadPoolExecutor(3) as pool:
        pool.submit(intake.add, a_request())
        assert gate.entered.wait(WAIT_S)
        good, bad = pool.submit(intake.add, a_request()), pool.submit(intake.add, a_request("known", b"2"))
        await_true(lambda: len(intake._queued) == 2)
        gate.open.set()
        assert good.result(WAIT_S)
        with pytest.raises(IdempotencyConflict):
            bad.result(WAIT_S)


def test_what_the_engine_refuses_to_look_at_reaches_only_the_one_who_asked() -> None:
    gate = Gate()
    intake = an_intake(gate)
    gate.open.clear()
    with ThreadPoolExecutor(3) as pool:
        pool.submit(intake.add, a_request())
        assert gate.entered.wait(WAIT_S)
        good, bad = pool.submit(intake.add, a_request()), pool.submit(intake.add, a_request("x" * 65))
        await_true(lambda: len(intake._queued) == 2)
        gate.open.set()
        assert good.result(WAIT_S)
        with pytest.raises(ValueError, match="no id of a job"):
            bad.result(WAIT_S)


def test_store_that_is_busy_for_most_of_the_time_there_is_is_not_waited_for_twice() -> None:
    gate = Gate()
    gate.troubles = [EngineBusy("locked")]
    gate.open.clear()
    letting_go = threading.Timer(0.4, gate.open.set)
    letting_go.start()
    with pytest.raises(EngineBusy):
        an_intake(gate, deadline_s=0.6).add(a_request())
    assert gate.sizes == [1]
    letting_go.join(WAIT_S)


@pytest.mark.parametrize("trouble", [EngineBusy("locked"), EngineDown("gone")])
def test_a_store_that_cannot_be_used_for_a_moment_is_asked_again(trouble: EngineUnavailable) -> None:
    gate = Gate()
    gate.troubles = [trouble, trouble]
    assert an_intake(gate).add(a_request("7")) == [Added(JobId("7"))]
    assert gate.sizes == [1, 1, 1]


def test_a_store_that_stays_unusable_is_told_at_the_deadline() -> None:
    gate = Gate()
    gate.troubles = [EngineDown("gone")] * 1000
    intake = an_intake(gate, deadline_s=0.05)
    with pytest.raises(EngineDown, match="gone"):
        intake.add(a_request())
    gate.troubles = []
    assert intake.add(a_request())


def test_a_full_store_is_told_at_once() -> None:
    gate = Gate()
    gate.troubles = [EngineFull("no room")]
    with pytest.raises(EngineFull):
        an_intake(gate).add(a_request())
    assert gate.sizes == [1]


def test_a_leader_that_is_interrupted_leaves_nobody_waiting() -> None:
    gate = Gate()
    intake = an_intake(gate)
    gate.open.clear()
    gate.troubles = [KeyboardInterrupt()]  # type: ignore[list-item]
    with ThreadPoolExecutor(3) as pool:
        leader = pool.submit(intake.add, a_request())
        assert gate.entered.wait(WAIT_S)
        followers = [pool.submit(intake.add, a_request()) for _ in range(2)]
        await_true(lambda: len(intake._queued) == 2)
        gate.open.set()
        with pytest.raises(KeyboardInterrupt):
            leader.result(WAIT_S)
        assert all(follower.result(WAIT_S) for follower in followers)


def test_many_threads_lose_nothing() -> None:
    gate = Gate()
    intake = an_intake(gate)

    def enqueue_some() -> list[str]:
        return [intake.add(a_request())[0].id for _ in range(50)]

    with ThreadPoolExecutor(16) as pool:
        ids = [id for future in [pool.submit(enqueue_some) for _ in range(16)] for id in future.result(WAIT_S)]
    assert len(set(ids)) == 800
    assert None not in gate.memory.get([JobId(id) for id in ids])


def test_coroutines_of_one_turn_share_a_write() -> None:
    gate = Gate()
    intake = an_intake(gate)

    async def main() -> list[list[Added]]:
        return await asyncio.gather(*(intake.aadd(a_request()) for _ in range(1500)))

    assert len({answer[0].id for answer in asyncio.run(main())}) == 1500
    assert gate.sizes == [1000, 500]
    intake.close()


def test_a_cancelled_coroutine_leaves_the_others_alone() -> None:
    gate = Gate()
    intake = an_intake(gate)
    gate.open.clear()

    async def main() -> list[list[Added] | BaseException]:
        tasks = [asyncio.create_task(intake.aadd(a_request())) for _ in range(3)]
        await asyncio.to_thread(gate.entered.wait, WAIT_S)
        late = asyncio.create_task(intake.aadd(a_request()))
        await asyncio.sleep(0)
        tasks[1].cancel()
        late.cancel()
        gate.open.set()
        tasks.append(asyncio.create_task(intake.aadd(a_request())))
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third, fourth = asyncio.run(main())
    assert isinstance(second, asyncio.CancelledError)
    assert [type(one) for one in (first, third, fourth)] == [list, list, list]
    intake.close()


def test_each_coroutine_has_its_own_answer() -> None:
    gate = Gate()
    intake = an_intake(gate)
    intake.add(a_request("known", b"1"))

    async def main() -> list[list[Added] | BaseException]:
        requests = [a_request(), a_request("known", b"2"), a_request("x" * 65), a_request()]
        return await asyncio.gather(*map(intake.aadd, requests), return_exceptions=True)

    answers = asyncio.run(main())
    assert [type(answer) for answer in answers] == [list, IdempotencyConflict, ValueError, list]
    intake.close()


def test_one_intake_serves_one_loop_after_the_other() -> None:
    gate = Gate()
    intake = an_intake(gate)
    for _ in range(3):
        assert asyncio.run(intake.aadd(a_request()))
    intake.close()
    assert asyncio.run(intake.aadd(a_request()))
    intake.close()


def test_a_loop_that_is_gone_does_not_hurt_the_next() -> None:
    gate = Gate()
    intake = an_intake(gate)
    gate.open.clear()

    async def leave() -> None:
        asyncio.get_running_loop().call_soon(asyncio.ensure_future, intake.aadd(a_request()))
        await asyncio.to_thread(gate.entered.wait, WAIT_S)

    asyncio.run(leave())
    gate.open.set()
    assert asyncio.run(intake.aadd(a_request()))
    intake.close()


class Interrupting:
    """A request at whose sight the thread that looks is interrupted, once, as a worker's soft timeout does."""

    def __init__(self, request: AddRequest) -> None:
        self._request = request
        self._interrupts = True

    @property
    def jobs(self) -> tuple[NewJob, ...]:
        if self._interrupts:
            self._interrupts = False
            raise KeyboardInterrupt
        return self._request.jobs

    parent = None


def add_or_error(intake: Intake, request: AddRequest) -> object:
    try:
        return intake.add(request)
    except BaseException as error:  # noqa: BLE001 (the test looks at it)
        return error


@pytest.mark.parametrize("when", ["takes", "writes"])
def test_followers_of_an_interrupted_leader_are_stored_all_the_same(when: str) -> None:
    gate = Gate()
    intake = an_intake(gate)
    gate.open.clear()
    requests = [a_request(str(number)) for number in range(4)]
    if when == "takes":
        requests[2] = Interrupting(requests[2])  # type: ignore[call-overload]
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(add_or_error, intake, a_request())
        assert gate.entered.wait(WAIT_S)
        others = [pool.submit(add_or_error, intake, request) for request in requests]
        await_true(lambda: len(intake._queued) == 4)
        if when == "writes":
            gate.interrupts = 1
        gate.open.set()
        answers = [future.result(WAIT_S) for future in [first, *others]]
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [type(error) for error in errors] == [KeyboardInterrupt]
    assert sum(isinstance(answer, list) for answer in answers) == 4
    assert not intake._queued


def test_followers_of_a_failing_leader_do_not_wait_for_as_long_again() -> None:
    gate = Gate()
    gate.troubles = [EngineBusy("locked")] * 1000
    gate.open.clear()
    intake = an_intake(gate, deadline_s=0.5)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(add_or_error, intake, a_request())
        assert gate.entered.wait(WAIT_S)
        others = [pool.submit(add_or_error, intake, a_request()) for _ in range(5)]
        await_true(lambda: len(intake._queued) == 5)
        threading.Timer(0.6, gate.open.set).start()
        errors = [future.result(WAIT_S) for future in [first, *others]]
    assert [type(error) for error in errors] == [EngineBusy] * 6
    assert len({id(error) for error in errors}) == 6, "raising an error writes into it, so each has its own"
    assert gate.sizes == [1], "the others were not tried for as long again"


def test_coroutines_that_share_a_failed_write_have_errors_of_their_own() -> None:
    gate = Gate()
    gate.troubles = [EngineDown("gone")] * 1000
    intake = an_intake(gate, deadline_s=0.05)

    async def ask() -> list[object]:
        return await asyncio.gather(*(intake.aadd(a_request()) for _ in range(3)), return_exceptions=True)

    errors = asyncio.run(ask())
    intake.close()
    assert [type(error) for error in errors] == [EngineDown] * 3
    assert len({id(error) for error in errors}) == 3


def test_a_thread_that_cannot_be_started_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    intake = an_intake(Gate())

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def ask() -> list[Added]:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(EngineDown, match="No thread could be started"):
                await asyncio.wait_for(intake.aadd(a_request()), WAIT_S)
        return await asyncio.wait_for(intake.aadd(a_request("7")), WAIT_S)

    assert asyncio.run(ask()) == [Added(JobId("7"))]
    intake.close()
