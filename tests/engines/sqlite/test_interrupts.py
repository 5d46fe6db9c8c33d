"""Exceptions from outside, at any moment: no lock stays held, and the next call finds the store whole."""

import ctypes
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from penstock.engine import AddRequest
from penstock.intake import Intake
from penstock.testing.conformance.trial import new_job
from tests.engines.sqlite.children import PROMPT_S
from tests.engines.sqlite.jobs import add_one, is_stored, opened

# Alone: an interrupt that arrives within a callback of a library for tests is swallowed there.
pytestmark = [pytest.mark.slow, pytest.mark.lonely]

INTERRUPTS = 500


@contextmanager
def interrupted() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block, 10 to 400 µs from now."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 4e-4))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_moment_leaves_no_lock_held(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(opened(path, timeout_s=2)) as engine, closing(opened(path, timeout_s=2)) as another:
        intake, heard = Intake(lambda: engine), 0
        while heard < INTERRUPTS:
            add_one(another)  # as another process would; nothing of the interrupted call stands in its way
            try:
                with interrupted():
                    while True:
                        intake.add(AddRequest((new_job(),)))
            except KeyboardInterrupt:
                heard += 1
        job = new_job()
        after = threading.Thread(target=intake.add, args=(AddRequest((job,)),), daemon=True)
        after.start()
        after.join(PROMPT_S)
        assert is_stored(engine, job.id)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupt_while_a_fork_waits_for_the_store_leaves_no_lock_held(tmp_path: Path) -> None:
    class Interrupt(BaseException):
        pass

    with closing(opened(tmp_path / "store.db")) as engine:
        add_one(engine)
        busy, go_on, forking = threading.Event(), threading.Event(), threading.Event()

        def stay(_: object) -> None:
            busy.set()
            go_on.wait()

        def fork() -> None:
            forking.set()
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)

        writer = threading.Thread(target=engine._store.write, args=(stay,))
        writer.start()
        busy.wait()
        forker = threading.Thread(target=fork)
        forker.start()
        forking.wait()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(forker.ident or 0), ctypes.py_object(Interrupt))
        go_on.set()
        for thread in (writer, forker):
            thread.join(PROMPT_S)
        assert is_stored(engine, add_one(engine))
