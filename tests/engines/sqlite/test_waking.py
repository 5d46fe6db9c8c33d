"""Waking up when another process has written, with and without the kernel's help."""

import os
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.engine import Cancel, Subject
from penstock.engines.sqlite.watching import NEWS, Bell, Ear
from penstock.model.job import JobId
from penstock.testing.conformance.trial import want
from tests.engines.sqlite.children import PROMPT_S, Child, tell
from tests.engines.sqlite.jobs import P1, add_one, enrol, is_stored, opened, run_all

LONG_S = 60.0


@pytest.mark.parametrize("has_inotify", [True, False])
@pytest.mark.parametrize("news", ["ready", "ended", "due", "cancel"])
def test_waiting_ends_soon_after_another_process_wrote(tmp_path: Path, news: str, has_inotify: bool) -> None:
    path = tmp_path / "store.db"
    engine = opened(path)
    enrol(engine)
    id = add_one(engine, "known")
    if news == "cancel":
        engine.exchange(P1, 1, (), want())
    with Child(wait_for, str(path), news, has_inotify) as child:
        assert child.heard() == "about to wait"
        acts: dict[str, Callable[[], object]] = {
            "ready": lambda: add_one(engine),
            "ended": lambda: run_all(engine),
            "due": lambda: add_one(engine, delay_ms=5000),
            "cancel": lambda: engine.alter([id], Cancel()),
        }
        acts[news]()
        assert child.heard() < PROMPT_S
    engine.close()


def test_without_inotify_an_ear_polls(tmp_path: Path) -> None:
    with Child(listen_without_descriptors, str(tmp_path)) as child:
        assert child.heard() == "has no inotify"


def test_ear_hears_its_own_kinds_of_news_only(tmp_path: Path) -> None:
    """Whoever tends the store would otherwise look at it twice for each job."""
    bell, ear = Bell(tmp_path / "folder"), Ear(tmp_path / "folder", ("due", "steer"))
    for _ in range(1000):
        bell.ring("work")
        bell.ring("done")
    assert ear.listen(0.01) == set()
    for _ in range(1000):
        bell.ring("due")
        bell.ring("steer")
    assert ear.listen(1) == {"due", "steer"}
    assert ear.listen(0.01) == set()
    ear.close()
    bell.close()


def test_wake_files_that_cannot_be_made_only_mean_polling(tmp_path: Path) -> None:
    """What a listener cannot listen to it finds out by looking; nobody hears of an error."""
    (tmp_path / "file").touch()
    ear = Ear(tmp_path / "file" / "folder")
    ear.forget()
    ear.listen(0.01)
    ear.close()


def test_job_is_accepted_even_if_nobody_can_be_woken(tmp_path: Path) -> None:
    engine = opened(tmp_path / "store.db")
    engine.counts()
    for news in NEWS:
        (tmp_path / "store.db-penstock" / news).mkdir()
    assert is_stored(engine, add_one(engine))
    engine.close()


def test_removed_folder_does_not_keep_news_back(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    waiter, engine = opened(path), opened(path)
    id = add_one(engine)
    enrol(engine)
    waiter.wait(Subject(jobs=(id,)), 0, 0.01)
    for news in NEWS:
        (tmp_path / "store.db-penstock" / news).unlink(missing_ok=True)
    woken = threading.Event()

    def wait() -> None:
        waiter.wait(Subject(jobs=(id,)), 0, LONG_S)
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    fresh = opened(path)
    run_all(fresh)
    assert woken.wait(PROMPT_S)
    thread.join()
    for one in (waiter, engine, fresh):
        one.close()


# -- children ---------------------------------------------------------------------------------------------------------


def wait_for(path: str, news: str, has_inotify: bool) -> None:
    engine = opened(path)
    query = "SELECT count FROM counters WHERE lane = 0 AND what = 0"
    seq = engine._store.write(lambda db: db.execute(query).fetchone()[0])
    engine.counts()
    subjects = {
        "ready": Subject(queues=()),
        "ended": Subject(jobs=(JobId("known"),)),
        "due": Subject(due=True),
        "cancel": Subject(process=P1),
    }
    if not has_inotify:
        leave_no_descriptor()
    tell("about to wait")
    began = time.monotonic()
    engine.wait(subjects[news], seq, LONG_S)
    tell(time.monotonic() - began)


def listen_without_descriptors(folder: str) -> None:
    leave_no_descriptor()
    ear = Ear(Path(folder))
    ear.listen(0.01)
    tell("has no inotify" if ear._descriptor is None else "has inotify")


def leave_no_descriptor() -> None:
    """Let the process open nothing more, as when the kernel has no inotify instance left for this user."""
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))
