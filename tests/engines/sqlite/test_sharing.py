"""One file and many who use it: locks held too long, processes frozen or forked, and everybody at once."""

import os
import sqlite3
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from penstock.engines.sqlite import SqliteEngine
from penstock.model.errors import EngineBusy
from penstock.testing.conformance.trial import new_job
from tests.engines.sqlite.children import PROMPT_S, Child, tell, wait_for_parent
from tests.engines.sqlite.jobs import add, add_one, assert_sound, enrol, is_stored, opened, run_all, stored_ids

SHORT_S = 0.4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


class TestLocked:
    def test_lock_of_another_program_is_reported_in_time(self, path: Path) -> None:
        engine = opened(path, timeout_s=SHORT_S)
        add_one(engine, "before")
        with locked_by_another_program(path):
            began = time.monotonic()
            with pytest.raises(EngineBusy, match=r"store\.db stayed locked .* 0\.4 s"):
                add_one(engine, "refused")
            assert SHORT_S / 2 < time.monotonic() - began < PROMPT_S
            assert is_stored(engine, "before")
        add_one(engine, "after")
        assert stored_ids(engine) == {"before", "after"}

    def test_callers_that_wait_for_each_other_are_all_told_in_time(self, path: Path) -> None:
        """The one at the gate uses up its time there; the next must not begin to count only then."""
        engines = [opened(path, timeout_s=SHORT_S) for _ in range(4)]
        for engine in engines:
            add_one(engine)
        with locked_by_another_program(path):
            began = time.monotonic()
            waiting = [threading.Thread(target=expect_busy, args=(engine,)) for engine in engines]
            for thread in waiting:
                thread.start()
            for thread in waiting:
                thread.join(PROMPT_S)
            assert time.monotonic() - began < SHORT_S * len(engines)

    def test_heartbeat_waits_for_a_lock_that_is_let_go_in_time(self, path: Path) -> None:
        engine = opened(path)
        process = enrol(engine)
        with Child(hold_the_lock, str(path), 0.5) as child:
            child.heard()
            assert engine.renew(process, [process]).void == ()
            assert child.heard() == "let go"

    def test_lease_outlives_a_lock_that_is_longer_than_a_call(self, path: Path) -> None:
        engine = opened(path, timeout_s=SHORT_S)
        process = enrol(engine)
        with locked_by_another_program(path):
            for _ in range(2):
                with pytest.raises(EngineBusy):
                    engine.renew(process, [process])
        assert engine.renew(process, [process]).void == ()

    def test_process_frozen_inside_a_transaction_holds_others_up_only_so_long(self, path: Path) -> None:
        engine = opened(path, timeout_s=SHORT_S)
        process = enrol(engine)
        with Child(stop_inside_a_transaction, str(path)) as child:
            child.heard()
            child.freeze()
            for _ in range(2):
                began = time.monotonic()
                with pytest.raises(EngineBusy):
                    engine.exchange(process, 1, (), None)
                assert time.monotonic() - began < PROMPT_S
            child.thaw()
            child.go_on()
            assert child.heard() == "stored"
        assert engine.exchange(process, 1, (), None).claims == ()
        assert stored_ids(engine) == {"frozen"}

    def test_process_killed_inside_a_transaction_lets_go_of_every_lock(self, path: Path) -> None:
        engine = opened(path, timeout_s=SHORT_S)
        add_one(engine, "before")
        with Child(stop_inside_a_transaction, str(path)) as child:
            child.heard()
            child.kill()
            add_one(engine, "after")
        assert stored_ids(engine) == {"before", "after"}
        engine.close()
        assert_sound(path)


class TestForks:
    def test_parent_and_child_both_go_on(self, path: Path) -> None:
        with Child(fork_with_an_open_engine, str(path)) as child:
            assert child.heard() == "parent and child stored and saw both"
        assert stored_ids(opened(path)) == {"before", "child", "parent"}
        assert_sound(path)

    def test_child_keeps_what_it_stores_after_its_parent_has_closed(self, path: Path) -> None:
        """A child that only believes to hold locks would write to a log that its parent deletes."""
        with Child(close_in_the_parent_first, str(path)) as child:
            assert child.heard() == "stored"
        assert stored_ids(opened(path)) == {"before", *(f"child {number}" for number in range(5))}
        assert_sound(path)

    def test_child_that_only_sleeps_keeps_no_lock_of_a_parent_that_was_killed(self, path: Path) -> None:
        engine = opened(path, timeout_s=SHORT_S)
        add_one(engine)
        with Child(fork_beside_a_transaction, str(path)) as child:
            sleeper = child.heard()
            child.heard()
            child.kill()
            try:
                add_one(engine, "after")
            finally:
                os.kill(sleeper, 9)
        assert is_stored(engine, "after")

    def test_fork_between_writing_threads_leaves_both_sides_working(self, path: Path) -> None:
        with Child(fork_while_threads_write, str(path)) as child:
            stored = child.heard()
            child.finish()
        assert stored_ids(opened(path)) == set(stored)
        assert_sound(path)


class TestEverybodyAtOnce:
    @pytest.mark.slow
    @pytest.mark.lonely
    def test_threads_and_processes_add_and_work_without_loss(self, path: Path) -> None:
        engine = opened(path)
        enrol(engine)
        children = [Child(add_and_work, str(path), f"c{number}", 150) for number in range(3)]
        counts = dict.fromkeys(range(8), 0)

        def work(number: int) -> None:
            counts[number] = add_and_finish(engine, f"t{number}", 60)

        threads = [threading.Thread(target=work, args=(number,)) for number in counts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        finished = sum(counts.values()) + sum(child.heard() for child in children)
        for child in children:
            child.finish()
            child.kill()
        finished += run_all(engine, enrol(engine, "last"))
        expected = {f"t{n}-{i}" for n in range(8) for i in range(60)} | {
            f"c{n}-{i}" for n in range(3) for i in range(150)
        }
        assert finished == len(expected)
        assert stored_ids(engine) == expected
        engine.close()
        assert_sound(path)

    @pytest.mark.slow
    @pytest.mark.lonely
    def test_no_writer_waits_for_many_turns_of_the_others(self, path: Path) -> None:
        """Waits are counted in turns: what one write of each of the four takes."""
        opened(path).counts()
        children = [Child(write_for_a_while, str(path), 2.5) for _ in range(4)]
        for child in children:
            child.heard()
        for child in children:
            child.go_on()
        told = [child.heard() for child in children]
        for child in children:
            child.kill()
        writes = [len(waits) for waits in told]
        share_s = 4 * 2.5 / sum(writes)
        usual_s = max(sorted(waits)[-1 - len(waits) // 100] for waits in told)
        assert min(writes) > statistics.mean(writes) / 2, writes
        assert usual_s < 30 * share_s, (usual_s / share_s, writes)
        assert max(map(max, told)) < 400 * share_s, (max(map(max, told)) / share_s, writes)


@contextmanager
def locked_by_another_program(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


def expect_busy(engine: SqliteEngine) -> None:
    with pytest.raises(EngineBusy):
        add_one(engine)


def add_and_finish(engine: SqliteEngine, name: str, jobs: int) -> int:
    process = enrol(engine, name)
    for number in range(0, jobs, 3):
        add(engine, *(new_job(f"{name}-{number + i}") for i in range(3)))
    return run_all(engine, process, limit=5)


# -- children ---------------------------------------------------------------------------------------------------------


def hold_the_lock(path: str, seconds: float) -> None:
    with locked_by_another_program(Path(path)):
        tell("locked")
        time.sleep(seconds)
        tell("let go")


def stop_inside_a_transaction(path: str) -> None:
    engine = opened(path)
    engine.counts()
    engine._store.write(lambda _: (tell("inside"), wait_for_parent()))
    add_one(engine, "frozen")
    tell("stored")


def fork_with_an_open_engine(path: str) -> None:
    engine = opened(path)
    add_one(engine, "before")
    engine.counts()
    child = os.fork()
    add_one(engine, "parent" if child else "child")
    if not child:
        engine.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert stored_ids(engine) == {"before", "parent", "child"}
    engine.close()
    tell("parent and child stored and saw both")


def close_in_the_parent_first(path: str) -> None:
    engine = opened(path)
    add_one(engine, "before")
    engine.counts()
    out, back = os.pipe()
    child = os.fork()
    if child:
        engine.close()
        os.write(back, b"closed")
        assert os.waitpid(child, 0)[1] == 0
        tell("stored")
        return
    add_one(engine, "child 0")
    os.read(out, 6)
    for number in range(1, 5):
        add_one(engine, f"child {number}")
    os._exit(0)


def fork_beside_a_transaction(path: str) -> None:
    """A thread stays inside a transaction while another forks a child that never uses the engine."""
    engine = opened(path, timeout_s=SHORT_S)
    engine.counts()
    inside = threading.Event()

    def stay(_: object) -> None:
        inside.set()
        threading.Event().wait()

    threading.Thread(target=engine._store.write, args=(stay,), daemon=True).start()
    inside.wait()
    child = os.fork()
    if child:
        tell(child)
        tell("inside")
        threading.Event().wait()
    os.close(1)
    threading.Event().wait()


def fork_while_threads_write(path: str) -> None:
    engine = opened(path)
    stop, stored = threading.Event(), []

    def write(name: str) -> None:
        number = 0
        while not stop.is_set():
            stored.append(add_one(engine, f"{name}-{number}"))
            engine.counts()
            number += 1

    threads = [threading.Thread(target=write, args=(f"thread {n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for number in range(10):
        child = os.fork()
        if not child:
            add_one(engine, f"child {number}")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        stored.append(f"child {number}")
    stop.set()
    for thread in threads:
        thread.join()
    tell(stored)


def add_and_work(path: str, name: str, jobs: int) -> None:
    tell(add_and_finish(opened(path), name, jobs))


def write_for_a_while(path: str, seconds: float) -> None:
    engine = opened(path)
    engine.counts()
    tell("here")
    wait_for_parent()
    waits, end = [], time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        add_one(engine)
        waits.append(time.monotonic() - began)
    tell(waits)
