"""Interrupts that meet a job in the middle of a store call: they wait for its end, and they do come."""

import io
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Penstock
from penstock.context import current_job, shielded
from penstock.model.job import Claim, Progress
from penstock.model.outcome import Ending
from penstock.worker.channel import Channel, Noted
from penstock.worker.logs import Capture, ToStderr
from penstock.worker.notes import Notes
from penstock.worker.runners.thread import ThreadRunner
from tests.worker.harness import Stage, claim

# Alone: an interrupt that arrives within a callback of a library for tests is swallowed there.
pytestmark = [pytest.mark.slow, pytest.mark.lonely]

SLOTS = 4
INTERRUPTS = 800


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Penstock]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/shop.db?durability=normal&timeout=2s"
    with Penstock(url) as app:
        yield app


@pytest.fixture(autouse=True)
def haste() -> Iterator[None]:
    """Let threads change places often, so that interrupts land between any two bytecodes."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    yield
    sys.setswitchinterval(usual)


def test_an_interrupted_enqueue_leaves_no_lock_held(app: Penstock) -> None:
    call = app.task(name="for_ever")(for_ever(lambda: app.enqueue("other")))
    assert interrupt_often(app, call.name, INTERRUPTS) == {Ending.RELEASED}
    assert within(10, lambda: (app.enqueue("other").state(), len(app.find(limit=1))))


def test_an_interrupted_read_leaves_no_lock_held(app: Penstock) -> None:
    id = app.enqueue("other").id
    call = app.task(name="for_ever")(for_ever(lambda: (app.find(limit=1), app.job(id), app.counts())))
    assert interrupt_often(app, call.name, INTERRUPTS) == {Ending.RELEASED}
    assert within(10, lambda: (app.enqueue("other").state(), len(app.find(limit=1))))


def test_no_interrupt_lands_inside_the_shield() -> None:
    app = Penstock("memory://")
    torn = []

    def work() -> None:
        done = False
        with shielded():
            try:
                sum(number for number in range(20))
                with shielded():
                    done = all(number < 5 for number in range(5))
                done = all(number < 5 for number in range(5)) and done
            finally:
                if not done:
                    torn.append(done)

    call = app.task(name="for_ever")(for_ever(work))
    assert interrupt_often(app, call.name, INTERRUPTS) == {Ending.RELEASED}
    assert torn == []


def test_no_interrupt_tears_what_a_job_says() -> None:
    """It goes through locks, and in a child down a line to its process, where half a message would end the talk."""
    app = Penstock("memory://")
    call = app.task(name="for_ever")(for_ever(say_much))
    stages: list[Telling] = []

    def stage(*given: Any) -> Telling:
        stages.append(Telling(*given))
        return stages[0]

    assert interrupt_often(app, call.name, INTERRUPTS, stage) == {Ending.RELEASED}
    assert stages[0].torn == []


def test_an_interrupted_log_call_leaves_no_lock_of_penstock_held() -> None:
    app = Penstock("memory://")
    logger = logging.getLogger("shop.unbroken")
    call = app.task(name="for_ever")(for_ever(lambda: logger.info("so far so good")))
    handlers = [Capture(), ToStderr(io.StringIO())]
    logger.propagate, logger.handlers[:] = False, handlers
    logger.setLevel(logging.INFO)
    try:
        assert interrupt_often(app, call.name, INTERRUPTS) == {Ending.RELEASED}
        assert within(10, lambda: [(handler.acquire(), handler.release()) for handler in handlers])
    finally:
        logger.propagate, logger.handlers[:] = True, []
        logger.setLevel(logging.NOTSET)


def test_an_interrupt_that_a_job_swallows_does_not_come_again(app: Penstock) -> None:
    def swallow() -> int:
        caught = 0
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            try:
                app.enqueue("other")
            except BaseException:  # noqa: BLE001 - jobs do such things
                caught += 1
        return caught

    call = app.task(name="swallow")(swallow)
    stage = Stage(lambda around: ThreadRunner(around, 0, 1), app.tasks)
    for _ in range(5):
        outcome = stage.run(claim("thread.tell", task=call.name, timeout=0.05))
        assert (outcome.ending, outcome.result) == (Ending.SUCCEEDED, b"1")
    stage.close()


def test_a_job_that_waits_for_a_result_is_interrupted_in_time(app: Penstock) -> None:
    handle = app.enqueue("nobody.runs.this")
    call = app.task(name="await_result")(lambda: handle.result())
    stage = Stage(lambda around: ThreadRunner(around, 0, 1), app.tasks)
    begun = time.monotonic()
    outcome = stage.run(claim("thread.tell", task=call.name, timeout=0.3))
    assert outcome.ending is Ending.TIMED_OUT
    assert time.monotonic() - begun < 1.3
    stage.close()


class Telling(Stage):
    """Takes words through a real channel and real notes, and notices what is cut short."""

    def __init__(self, *given: Any) -> None:
        self.torn: list[str] = []
        self.channel, self.other = Channel.pair()
        self.gathered = Notes()
        threading.Thread(target=self._swallow, daemon=True).start()
        super().__init__(*given)

    def put(self, claim: Claim, progress: Progress | None, log: str) -> None:
        done = False
        try:
            self.gathered.put(claim, progress, log)
            self.channel.send(Noted(progress, log))
            done = True
        finally:
            if not done:
                self.torn.append(log)

    def close(self) -> None:
        super().close()
        self.channel.close()

    def _swallow(self) -> None:
        with self.other:
            while self.other.recv(65536):
                self.gathered.take()


def say_much() -> None:
    me = current_job()
    me.log("x" * 20_000)
    me.progress(1, 2, "half")


def for_ever(call: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        while True:
            call()

    return run


def interrupt_often(app: Penstock, task: str, times: int, make: Callable[..., Stage] = Stage) -> set[Ending]:
    """Run a task that never ends in several slots, and interrupt all of them at random moments."""
    stage = make(lambda around: ThreadRunner(around, 0, SLOTS), app.tasks)
    endings = set()
    for _ in range(times // SLOTS):
        stage.runner.start([claim("thread.tell", task=task) for _ in range(SLOTS)])
        stage.await_running(SLOTS)
        time.sleep(random.random() * 0.002)  # the moment is what is varied; nothing is waited for
        stage.runner.interrupt()
        endings |= {stage.next(10)[1].ending for _ in range(SLOTS)}
    stage.close()
    return endings


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """Give what a call gives, or nothing if it hangs or fails."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None
