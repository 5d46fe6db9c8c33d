import importlib.metadata
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.client import Penstock
from penstock.context import JobContext, entered
from penstock.engines.memory import MemoryEngine
from penstock.model.errors import (
    ArgumentsInvalid,
    JobNotFound,
    LeaseLost,
    QueueFull,
    SettingsInvalid,
    TaskInvalid,
    Unsupported,
)
from penstock.model.job import Progress
from penstock.model.states import State
from tests.client.hand import Hand

ROOT = Path(__file__).parents[2]


def double(n: int) -> int:
    return 2 * n


async def adouble(n: int) -> int:
    return 2 * n


@pytest.fixture
def app() -> Penstock:
    return Penstock("memory://")


def a_context(app: Penstock) -> JobContext:
    class Silence:
        def note(self, progress: Progress | None, log: str) -> None: ...

        def is_cancelled(self) -> bool:
            return False

    app.enqueue("parent")
    return JobContext(Hand(app.engine, ["parent"]).claim()[0], Silence(), home=app)


# -- the store --------------------------------------------------------------------------------------------------------


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    app = Penstock(f"sqlite:///{tmp_path}/shop.db")
    app.task(double)
    assert list(tmp_path.iterdir()) == []
    app.enqueue("x")
    assert (tmp_path / "shop.db").exists()
    app.close()


def test_url_comes_from_the_environment_or_a_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_URL", raising=False)
    assert Penstock().settings.url == "sqlite:///penstock.db"
    (tmp_path / "penstock.toml").write_text('url = "memory://file"\n')
    assert Penstock().settings.url == "memory://file"
    monkeypatch.setenv("PENSTOCK_URL", "memory://environment")
    assert Penstock().settings.url == "memory://environment"
    assert Penstock("memory://argument").settings.url == "memory://argument"


def test_unknown_options_are_told_when_the_settings_are_read() -> None:
    with pytest.raises(SettingsInvalid, match="Did you mean max_payload"):
        Penstock("memory://", max_paylod=1).enqueue("x")


def test_a_closed_application_opens_its_store_again(tmp_path: Path) -> None:
    with Penstock(f"sqlite:///{tmp_path}/shop.db") as app:
        id = app.enqueue("x").id
    assert app.job(id).state() is State.READY
    app.close()


def test_a_redirected_application_uses_the_other_store(app: Penstock, tmp_path: Path) -> None:
    app.enqueue("x")
    app.redirect(f"sqlite:///{tmp_path}/shop.db")
    assert app.find() == []
    assert app.engine.describe().kind == "sqlite"
    app.close()
    given = Penstock(engine=MemoryEngine())
    given.redirect("memory://redirected")
    assert given.engine.describe().epoch == Penstock("memory://redirected").engine.describe().epoch


def test_a_given_engine_is_used() -> None:
    engine = MemoryEngine()
    assert Penstock(engine=engine).engine.describe().epoch == engine.describe().epoch


def test_the_engine_is_opened_once_for_all_threads(app: Penstock) -> None:
    seen: list[object] = []
    threads = [threading.Thread(target=lambda: seen.append(app.engine)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, seen))) == 1


def test_a_forked_child_enqueues_on_a_connection_of_its_own(tmp_path: Path) -> None:
    program = """
import os, sys
from penstock import Penstock
app = Penstock(sys.argv[1])
app.enqueue("before")
pid = os.fork()
app.enqueue("child" if pid == 0 else "parent")
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
app.enqueue("after")
print(*sorted(job.task for job in app.find()))
"""
    run = subprocess.run(
        [sys.executable, "-c", program, f"sqlite:///{tmp_path}/shop.db"],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert run.stdout.split() == ["after", "before", "child", "parent"]


# -- enqueue ----------------------------------------------------------------------------------------------------------


def test_jobs_of_registered_names_are_checked_and_keep_the_options_of_the_task(app: Penstock) -> None:
    app.task(name="shop.double", queue="math", max_attempts=2)(double)
    with pytest.raises(ArgumentsInvalid):
        app.enqueue("shop.double", "x")
    info = app.enqueue("shop.double", 7).info()
    assert (info.queue, info.policy.max_attempts) == ("math", 2)


def test_jobs_of_other_programs_are_enqueued_by_name(app: Penstock) -> None:
    info = app.using(queue="billing", priority=5).enqueue("billing.charge", 7, currency="EUR").info()
    assert (info.task, info.queue, info.priority) == ("billing.charge", "billing", 5)
    assert b'"args":[7],"kwargs":{"currency":"EUR"}' in info.envelope


@pytest.mark.parametrize("name", ["", 5, None])
def test_a_name_that_is_no_text_is_refused(app: Penstock, name: Any) -> None:
    with pytest.raises(TaskInvalid, match="is no task's name"):
        app.enqueue(name, 1)


def test_coroutines_enqueue_too(app: Penstock) -> None:
    import asyncio

    task = app.task(adouble)

    async def main() -> list[Any]:
        return [
            await task.aenqueue(1),
            await task.using(queue="slow").aenqueue(2),
            await task.bind(3).aenqueue(),
            await app.aenqueue("other", 4),
            await app.using(priority=1).aenqueue("other", 5),
            await task(6),
        ]

    found = asyncio.run(main())
    assert [job.state() for job in found[:5]] == [State.READY] * 5
    assert found[5] == 12


def test_jobs_enqueued_inside_a_job_know_their_parent(app: Penstock) -> None:
    with entered(a_context(app)) as me:
        child = app.enqueue("child")
    assert child.info().details.parent_job == me.id


def test_a_job_that_was_handed_on_can_enqueue_no_more(app: Penstock) -> None:
    with entered(a_context(app)) as me:
        Hand(app.engine, []).succeed(me.claim, b"null")
        with pytest.raises(LeaseLost):
            app.enqueue("child")
        assert Penstock("memory://").enqueue("elsewhere").info().details.parent_job == me.id


def test_a_connection_is_handed_to_the_engine(app: Penstock) -> None:
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(Unsupported):
        app.using(connection=connection).enqueue("x")


def test_a_full_queue_refuses(app: Penstock) -> None:
    app.queue("mail").limit(max_jobs=1)
    mail = app.using(queue="mail")
    mail.enqueue("x")
    with pytest.raises(QueueFull):
        mail.enqueue("x")
    app.queue("mail").limit(max_jobs=None)
    mail.enqueue("x")


# -- read and control -------------------------------------------------------------------------------------------------


def test_jobs_are_found_by_all_that_is_given(app: Penstock) -> None:
    app.using(queue="mail", tags=["vip"]).enqueue("send", "ada")
    app.using(queue="mail", delay=60).enqueue("send", "bob")
    app.enqueue("other")
    assert [job.task for job in app.find()] == ["other", "send", "send"]
    assert len(app.find(queue="mail")) == len(app.find(task="send")) == 2
    assert len(app.find(state="scheduled")) == len(app.find(tag="vip")) == len(app.find(text="ADA")) == 1
    assert len(app.find(state=["scheduled", State.READY], limit=2)) == 2


def test_more_jobs_than_a_page_are_found(app: Penstock) -> None:
    app.task(double).enqueue_many([(n,) for n in range(2100)])
    assert len({job.id for job in app.find(limit=2050)}) == 2050


def test_counts_are_by_queue_and_state_over_all_tasks(app: Penstock) -> None:
    app.using(queue="mail").enqueue("a")
    app.using(queue="mail").enqueue("b")
    app.using(queue="mail", delay=60).enqueue("b")
    assert app.counts()["mail"] == {State.READY: 2, State.SCHEDULED: 1}
    assert app.counts()["mail"]["buried"] == 0


def test_a_queue_is_paused_and_resumed(app: Penstock) -> None:
    assert app.queue("mail").pause().paused
    assert app.queue("mail").info().paused
    assert not app.queue("mail").resume().paused
    assert app.queue("never-used").info().unfinished == 0
    for limit in (-1, 1.5, True):
        with pytest.raises(TaskInvalid, match="max_jobs"):
            app.queue("mail").limit(max_jobs=limit)  # type: ignore[arg-type]


def test_jobs_are_steered_by_id_handle_or_list(app: Penstock) -> None:
    first, second = app.enqueue("a"), app.enqueue("b")
    assert [one.after for one in app.bury([first, second.id], reason="wait")] == [State.BURIED] * 2
    assert app.find(text="wait")
    assert [one.after for one in app.kick(first)] == [State.READY]
    assert [one.after for one in app.reschedule(first.id, delay="1h")] == [State.SCHEDULED]
    assert [one.after for one in app.cancel(first)] == [State.CANCELLED]
    assert app.cancel(first)[0].refused
    assert [one.after for one in app.delete([first, second])] == [None, None]
    with pytest.raises(JobNotFound):
        app.job(first.id)


def test_more_than_1000_jobs_are_steered(app: Penstock) -> None:
    jobs = app.task(double).enqueue_many([(n,) for n in range(1500)])
    assert len(app.cancel(jobs)) == 1500
    assert app.counts()["default"] == {State.CANCELLED: 1500}


def test_an_edited_job_has_new_arguments_and_keeps_the_rest(app: Penstock) -> None:
    task = app.task(double)
    job = task.using(headers={"x": "y"}).enqueue(7)
    app.edit(job, args=(8,), queue="slow", priority=3)
    info = job.info()
    assert (info.queue, info.priority, b'"args":[8]' in info.envelope, b'{"x":"y"}' in info.envelope) == (
        "slow",
        3,
        True,
        True,
    )
    with pytest.raises(ArgumentsInvalid):
        app.edit(job, args=("x",))
    with pytest.raises(ArgumentsInvalid):
        app.edit(job, kwargs={"n": 1})
    app.edit(job, args=(), kwargs={"n": 1})
    assert b'"args":[],"kwargs":{"n":1}' in job.info().envelope


def test_jobs_whose_arguments_no_longer_fit_can_be_edited(app: Penstock) -> None:
    job = app.enqueue("shop.double", "seven")
    app.task(name="shop.double")(double)
    app.edit(job, args=(7,))
    assert b'"args":[7]' in job.info().envelope


def test_workers_are_listed(app: Penstock) -> None:
    Hand(app.engine, ["x"])
    assert [worker.info.tasks for worker in app.workers()] == [("x",)]


# -- the package ------------------------------------------------------------------------------------------------------


def test_the_version_is_that_of_the_project() -> None:
    assert penstock.__version__ == importlib.metadata.version("penstock")


def test_every_public_name_is_there() -> None:
    assert [name for name in penstock.__all__ if not hasattr(penstock, name)] == []
    assert penstock.__all__ == sorted(penstock.__all__)


@pytest.mark.slow
@pytest.mark.lonely
def test_import_takes_less_than_80_ms(tmp_path: Path) -> None:
    """The best of several runs, with compiled modules, as on a machine where it is installed."""
    environ = {"PYTHONPATH": str(ROOT / "src"), "PYTHONPYCACHEPREFIX": str(tmp_path)}
    command = [sys.executable, "-X", "importtime", "-c", "import penstock"]
    runs = [subprocess.run(command, env=environ, capture_output=True, text=True, check=True) for _ in range(6)]
    lines = [re.search(r"\|\s+(\d+) \| penstock$", run.stderr, re.MULTILINE) for run in runs]
    assert min(int(line[1]) for line in lines if line) < 80_000
