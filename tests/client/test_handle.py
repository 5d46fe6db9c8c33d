import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock import handle as handle_module
from penstock.client import Penstock
from penstock.engine import Engine, Note, Subject
from penstock.engines.memory import MemoryEngine
from penstock.model.errors import EngineDown, JobFailed, JobNotFound, ResultTimeout, StoreCorrupt
from penstock.model.job import Job, JobId, Progress
from penstock.model.states import State
from tests.client.hand import Hand


@dataclass
class Receipt:
    number: int


def send(order_id: int) -> Receipt:
    return Receipt(order_id)


NAME = f"{__name__}.send"


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Penstock]:
    with Penstock("memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/shop.db") as app:
        yield app


def test_a_result_is_what_the_annotation_says(app: Penstock) -> None:
    job = app.task(send).enqueue(7)
    hand = Hand(app.engine, [NAME])
    hand.succeed(hand.claim()[0], b'{"number":7}')
    assert job.result() == Receipt(7)
    assert app.job(job.id).result(timeout=1) == Receipt(7)
    assert (job.state(), job.wait(), job.degraded) == (State.SUCCEEDED, State.SUCCEEDED, None)


def test_a_result_of_an_unknown_task_is_plain_json(app: Penstock) -> None:
    job = app.enqueue("other.task", 7)
    hand = Hand(app.engine, ["other.task"])
    hand.succeed(hand.claim()[0], b'{"number":7}')
    assert job.result() == {"number": 7}


def test_waiting_ends_when_the_job_does(app: Penstock) -> None:
    job = app.task(send).enqueue(7)
    hand = Hand(app.engine, [NAME])
    claim = hand.claim()[0]
    timer = threading.Timer(0.05, hand.succeed, [claim, b'{"number":7}'])
    timer.start()
    assert job.result(timeout=10) == Receipt(7)
    timer.join()


def test_a_job_that_failed_says_how(app: Penstock) -> None:
    job = app.task(send).enqueue(7)
    hand = Hand(app.engine, [NAME])
    hand.bury(hand.claim()[0], "no paper")
    with pytest.raises(JobFailed, match="ended buried: ValueError: no paper") as caught:
        job.result()
    assert caught.value.traceback == "Traceback ..."
    assert job.wait() is State.BURIED


def test_a_cancelled_job_has_no_result(app: Penstock) -> None:
    job = app.task(send).enqueue(7)
    assert job.cancel()
    assert not job.cancel()
    with pytest.raises(JobFailed, match="ended cancelled"):
        job.result()


def test_a_timeout_says_that_no_worker_knows_the_task(app: Penstock) -> None:
    job = app.task(send).enqueue(7)
    with pytest.raises(ResultTimeout, match=r"is ready after 0.01 s\. No worker that knows task .*`penstock worker -A"):
        job.result(timeout=0.01)
    with pytest.raises(ResultTimeout, match="No worker"):
        asyncio.run(job.aresult(timeout=0.01))


def test_a_timeout_does_not_blame_a_worker_that_is_there(app: Penstock) -> None:
    job = app.task(send).enqueue(7)
    Hand(app.engine, [NAME])
    with pytest.raises(ResultTimeout, match=r"is ready after 0 s\. Wait longer"):
        job.wait(timeout=0)


def test_who_waits_long_is_warned_once(
    app: Penstock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handle_module, "PATIENCE_S", 0.01)
    job = app.task(send).enqueue(7)
    with caplog.at_level(logging.WARNING, "penstock"):
        with pytest.raises(ResultTimeout):
            job.result(timeout=0.05)
        with pytest.raises(ResultTimeout):
            asyncio.run(job.aresult(timeout=0.05))
    assert [record.name for record in caplog.records] == ["penstock", "penstock"]
    assert "No worker that knows task" in caplog.text


def test_a_job_that_is_gone_says_so(app: Penstock) -> None:
    job = app.task(send).enqueue(7)
    app.delete(job)
    for read in (job.state, job.result, lambda: app.job(job.id), lambda: asyncio.run(job.aresult())):
        with pytest.raises(JobNotFound):
            read()


def test_progress_is_read(app: Penstock) -> None:
    job = app.task(send).enqueue(7)
    assert job.progress() is None
    claim = Hand(app.engine, [NAME]).claim()[0]
    app.engine.note([Note(claim.id, claim.fence, Progress(1, 4, "half of a half"))])
    assert job.progress() == Progress(1, 4, "half of a half")


def test_many_coroutines_wait_on_one_thread(app: Penstock) -> None:
    jobs = app.task(send).enqueue_many([(n,) for n in range(300)])
    hand = Hand(app.engine, [NAME])
    claims = hand.claim()

    def end_all() -> None:
        for number, claim in enumerate(claims):
            hand.succeed(claim, b'{"number":%d}' % number)

    async def main() -> list[Receipt]:
        before = set(threading.enumerate())
        waiting = [asyncio.ensure_future(job.aresult(timeout=20)) for job in jobs]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(set(threading.enumerate()) - before) == 1
        await asyncio.to_thread(end_all)
        return await asyncio.gather(*waiting)

    assert asyncio.run(main()) == [Receipt(n) for n in range(300)]


def test_a_job_that_joins_a_long_wait_is_answered_soon(app: Penstock) -> None:
    task = app.task(send)
    slow, quick = task.enqueue(1), task.enqueue(2)
    hand = Hand(app.engine, [NAME])
    by_id = {claim.id: claim for claim in hand.claim()}

    async def main() -> None:
        waiting = asyncio.ensure_future(slow.ended())
        assert not (await asyncio.wait([waiting], timeout=0.1))[0]
        hand.succeed(by_id[quick.id], b'{"number":2}')
        assert await quick == Receipt(2)
        hand.succeed(by_id[slow.id], b"null")
        assert await waiting is State.SUCCEEDED

    asyncio.run(asyncio.wait_for(main(), 20))


def test_handles_of_one_job_are_equal(app: Penstock) -> None:
    job = app.task(send).enqueue(7)
    assert {job, app.job(job.id)} == {job}
    assert job.id in repr(job)


class Shaky:
    """A memory engine that is away for some reads, and for some waits."""

    def __init__(self) -> None:
        self.memory = MemoryEngine()
        self.away = self.away_from_waits = 0
        self.trouble: Exception = EngineDown("away")

    def get(self, ids: Sequence[JobId]) -> list[Job | None]:
        if self.away:
            self.away -= 1
            raise self.trouble
        return self.memory.get(ids)

    def wait(self, subject: Subject, since: int, timeout_s: float) -> None:
        if self.away_from_waits:
            self.away_from_waits -= 1
            raise self.trouble
        self.memory.wait(subject, since, timeout_s)

    def __getattr__(self, name: str) -> object:
        return getattr(self.memory, name)


@pytest.fixture
def shaky() -> Shaky:
    return Shaky()


@pytest.fixture
def on_shaky(shaky: Shaky) -> Penstock:
    engine: Engine = shaky  # type: ignore[assignment]  # the other verbs are those of the memory engine
    return Penstock(engine=engine)


def test_waiting_outlasts_a_store_that_is_away_for_a_while(shaky: Shaky, on_shaky: Penstock) -> None:
    job = on_shaky.enqueue("shop.send", 7)
    job.cancel()
    shaky.away = 2
    assert job.wait(timeout=10) is State.CANCELLED
    shaky.away = 2
    assert asyncio.run(job.ended(timeout=10)) is State.CANCELLED


def test_waiting_coroutines_outlast_a_store_that_fails_while_they_wait(shaky: Shaky, on_shaky: Penstock) -> None:
    job = on_shaky.enqueue("shop.send", 7)

    async def main() -> list[State]:
        shaky.away_from_waits = 3
        waiting = [asyncio.ensure_future(job.ended(timeout=10)) for _ in range(3)]
        async with asyncio.timeout(10):
            while shaky.away_from_waits:
                await asyncio.sleep(0.001)
        shaky.away = 1
        job.cancel()
        return await asyncio.gather(*waiting)

    assert asyncio.run(main()) == [State.CANCELLED] * 3


def test_an_error_of_the_store_that_will_not_pass_reaches_all_who_wait(shaky: Shaky, on_shaky: Penstock) -> None:
    jobs = [on_shaky.enqueue("shop.send", number) for number in range(3)]
    jobs[0].cancel()

    async def main() -> list[object]:
        waiting = [asyncio.ensure_future(job.aresult(timeout=10)) for job in jobs[1:]]
        assert not (await asyncio.wait(waiting, timeout=0.01))[0]
        shaky.away_from_waits, shaky.trouble = 1, StoreCorrupt("a page of it is damaged")
        return await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(found) for found in asyncio.run(main())] == [StoreCorrupt] * 2
    assert asyncio.run(jobs[0].ended(timeout=10)) is State.CANCELLED


def test_a_forked_child_waits_in_a_thread_of_its_own(tmp_path: Path) -> None:
    program = """
import asyncio, os, sys
from penstock import Penstock
app = Penstock(sys.argv[1])
job = app.enqueue("shop.send", 7)

async def wait() -> None:
    print(await job.ended(timeout=10), flush=True)

async def main() -> None:
    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    started, forked = os.pipe()
    pid = os.fork()
    if pid == 0:
        asyncio.events._set_running_loop(None)
        os.write(forked, b"x")
        asyncio.run(wait())
        os._exit(0)
    os.read(started, 1)
    job.cancel()
    await waiting
    assert os.waitpid(pid, 0)[1] == 0

asyncio.run(main())
"""
    source = str(Path(__file__).parents[2] / "src")
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, f"sqlite:///{tmp_path}/shop.db"],
        env={"PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout.split() == ["cancelled", "cancelled"]


def test_who_waits_while_the_application_is_closed_is_answered_by_the_store_opened_anew(tmp_path: Path) -> None:
    async def main() -> State:
        waiting = asyncio.ensure_future(job.ended(timeout=20))
        assert not (await asyncio.wait([waiting], timeout=0.1))[0]
        app.close()
        job.cancel()
        return await waiting

    with Penstock(f"sqlite:///{tmp_path}/shop.db") as app:
        job = app.enqueue("shop.send", 7)
        assert asyncio.run(main()) is State.CANCELLED


def test_a_store_that_stays_away_is_told_when_the_time_is_over(shaky: Shaky, on_shaky: Penstock) -> None:
    job = on_shaky.enqueue("shop.send", 7)
    shaky.away = 1000
    with pytest.raises(EngineDown, match="away"):
        job.wait(timeout=0.05)
    with pytest.raises(EngineDown, match="away"):
        asyncio.run(job.ended(timeout=0.05))


def test_the_thread_that_waits_lingers_for_the_next_one(app: Penstock, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)

    async def ask_one_after_the_other() -> None:
        for number in range(10):
            job = app.enqueue("shop.send", number)
            job.cancel()
            assert await job.ended(timeout=10) is State.CANCELLED
            async with asyncio.timeout(10):
                while app.watch._followers:  # until the thread has nobody left to wait for
                    await asyncio.sleep(0)

    asyncio.run(ask_one_after_the_other())
    assert started.count("penstock-watch") == 1


def test_whatever_ends_the_thread_that_waits_reaches_who_waits(shaky: Shaky, on_shaky: Penstock) -> None:
    job = on_shaky.enqueue("shop.send", 7)
    job.cancel()
    shaky.away, shaky.trouble = 1, ZeroDivisionError("a fault of the engine")
    with pytest.raises(ZeroDivisionError):
        asyncio.run(job.ended(timeout=10))
    assert asyncio.run(job.ended(timeout=10)) is State.CANCELLED


def test_a_thread_that_cannot_be_started_to_wait_is_told(app: Penstock, monkeypatch: pytest.MonkeyPatch) -> None:
    job = app.enqueue("shop.send", 7)
    job.cancel()

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def ask() -> State:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(EngineDown, match="No thread could be started"):
                await job.ended(timeout=10)
        return await job.ended(timeout=10)

    assert asyncio.run(ask()) is State.CANCELLED
