"""The first second of a worker: told to stop too early, given the wrong application or store, run with new code."""

import os
import resource
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import settings
from penstock.client import Penstock
from penstock.model.states import State
from penstock.worker.channel import Go, Message, Stop
from penstock.worker.member import Member
from penstock.worker.supervisor import Supervisor
from tests.polling import await_true
from tests.worker import jobs
from tests.worker.harness import ROOT, application, descriptors_left, open_files, plan, stored, working

#: Standard streams, the selector and both ends of the line that wakes it: what a supervisor opens before all else.
FIRST_FREE = 6

pytestmark = [pytest.mark.slow, pytest.mark.lonely]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def app(url: str) -> Iterator[Penstock]:
    with application(url) as app:
        yield app


@pytest.mark.parametrize("messages", [[Stop()], [Stop(), Go("p", "w")]])
def test_stop_that_arrives_with_the_plan_is_obeyed(monkeypatch: Any, messages: list[Message]) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{ROOT}")
    member = Member(plan(url="sqlite:////nowhere/store.db"))
    for message in messages:
        member.channel.send(message)
    try:
        assert select.select([member.handle], [], [], 10)[0], "the process went on"
    finally:
        os.kill(member.pid, signal.SIGKILL)
        remains, _ = member.bury()
        member.close()
    assert remains.code == 0


@pytest.mark.usefixtures("app")
def test_worker_stopped_while_its_processes_start_claims_nothing(url: str) -> None:
    job = jobs.add.enqueue(1, 2)
    with working(url, processes=2, shutdown_timeout="60s") as worker:
        await_true(worker.processes)
        worker.signal(signal.SIGTERM)
        assert worker.wait(timeout=10) == 0
    assert (job.state(), stored(url, job.id).claim_number) == (State.READY, 0)


def test_process_that_cannot_be_started_leaves_nothing_behind() -> None:
    before, others = open_files(), children()
    for left in range(100):
        try:
            with descriptors_left(left):
                member = Member(plan(url="sqlite:////nowhere/store.db"))
        except OSError:
            assert open_files() == before, f"with {left} descriptors left"
            assert children() == others
        else:
            break
    os.kill(member.pid, signal.SIGKILL)
    member.bury()
    member.close()
    assert left > 5, "it was never short of descriptors"


def test_worker_goes_on_when_a_process_cannot_be_replaced_at_once(app: Penstock, url: str) -> None:
    """The machine may be short of processes, memory or descriptors for a while."""
    with working(url) as worker:
        assert jobs.add.enqueue(1, 2).result(timeout=10) == 3
        limits = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (FIRST_FREE, limits[1]))
        os.kill(worker.processes()[0], signal.SIGKILL)
        await_true(lambda: worker.has_said("no process can be started, which is tried again"))
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, limits)
        assert app.enqueue("tests.worker.jobs.add", 3, 4).result(timeout=15) == 7
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0


def test_signal_does_not_wait_for_the_processes_that_are_still_to_be_started(url: str) -> None:
    """Started by mistake in thousands, they would fill the machine, and nobody could stop it."""
    supervisor = Supervisor(settings.load({"app": "tests.worker.jobs:app", "url": url, "processes": 3}, {}, None))
    with supervisor._selector, supervisor._signals._wake_in, supervisor._signals._wake_out:
        supervisor._signals.got.append(signal.SIGTERM)
        supervisor._start_due()
        assert supervisor._members == {}


def children() -> list[int]:
    lists = Path("/proc/self/task").glob("*/children")
    return [int(word) for path in lists for word in path.read_text().split()]


SHOP = (
    "from penstock.client import Penstock\napp = Penstock()\n@app.task(name='old')\ndef old() -> int:\n    return 1\n"
)
MORE = "@app.task(name='new')\ndef new() -> int:\n    return 2\n"


def test_tasks_that_came_with_a_restart_are_known_of_the_worker(app: Penstock, url: str, tmp_path: Path) -> None:
    source = tmp_path / "shop_of_two.py"
    source.write_text(SHOP)
    with working(url, app="shop_of_two:app", cwd=tmp_path) as worker:
        assert app.enqueue("old").result(timeout=10) == 1
        source.write_text(SHOP + MORE)
        worker.signal(signal.SIGHUP)
        assert app.enqueue("new").result(timeout=10) == 2
        await_true(lambda: [view.info.tasks for view in app.workers()] == [("new", "old")], timeout_s=5)


def test_broken_application_is_told_in_one_message_of_its_own_lines(url: str, tmp_path: Path) -> None:
    (tmp_path / "deep.py").write_text("def make() -> None:\n    raise LookupError('no settings')\n")
    (tmp_path / "broken_shop.py").write_text("import deep\n\ndeep.make()\n")
    with working(url, app="broken_shop:app", processes=2, cwd=tmp_path) as worker:
        assert worker.wait() == 2
    assert worker.lines == [
        f"penstock: 'broken_shop:app' cannot be imported: LookupError: no settings in line 2 of {tmp_path}/deep.py.",
        f'  File "{tmp_path}/broken_shop.py", line 3, in <module>',
        "    deep.make()",
        f'  File "{tmp_path}/deep.py", line 2, in make',
        "    raise LookupError('no settings')",
    ]


def test_penstock_error_of_the_application_names_the_line_that_made_it(url: str, tmp_path: Path) -> None:
    (tmp_path / "odd_shop.py").write_text(SHOP + "app.task(name='old')(old)\n" + "app.task(max_attempts=-1)(old)\n")
    with working(url, app="odd_shop:app", cwd=tmp_path) as worker:
        assert worker.wait() == 2
    assert worker.lines[0].startswith("penstock: ")
    assert any(f'File "{tmp_path}/odd_shop.py"' in line for line in worker.lines)
    assert not any("penstock/" in line or "importlib" in line for line in worker.lines)


def test_unreadable_source_is_told_with_its_line(url: str, tmp_path: Path) -> None:
    (tmp_path / "torn_shop.py").write_text("x = 1\nfor\n")
    with working(url, app="torn_shop:app", cwd=tmp_path) as worker:
        assert worker.wait() == 2
    assert worker.lines == [
        f"penstock: 'torn_shop:app' cannot be imported: invalid syntax in line 2 of {tmp_path}/torn_shop.py."
    ]


def test_wrong_application_is_told_in_one_line(url: str, tmp_path: Path) -> None:
    with working(url, app="nowhere_shop:app", cwd=tmp_path) as worker:
        assert worker.wait() == 2
    assert worker.lines[0].startswith(
        f"penstock: There is no module 'nowhere_shop' in {tmp_path} or where Python looks;"
    )


HANGS = """
import os, pathlib
pathlib.Path(__file__).with_suffix(".began").touch()
reading, writing = os.pipe()
os.read(reading, 1)
"""


def test_application_that_hangs_while_it_is_imported_ends_the_worker_and_shows_where(url: str, tmp_path: Path) -> None:
    (tmp_path / "slow_shop.py").write_text(HANGS)
    with working(url, app="slow_shop:app", processes=2, start_timeout="1s", cwd=tmp_path) as worker:
        assert worker.wait(timeout=15) == 5
    assert worker.has_said("has not imported slow_shop:app within 1s and is killed; its stacks follow")
    assert len([line for line in worker.lines if f'File "{tmp_path}/slow_shop.py", line 5' in line]) == 1
    assert worker.lines[-1] == "penstock: 'slow_shop:app' was not imported within 1s (--start-timeout)."


def test_import_that_takes_long_is_told_and_shown_on_request(url: str, tmp_path: Path) -> None:
    (tmp_path / "slow_shop.py").write_text(HANGS)
    with working(url, app="slow_shop:app", cwd=tmp_path) as worker:
        await_true((tmp_path / "slow_shop.began").exists)
        worker.signal(signal.SIGTTIN)
        await_true(lambda: worker.has_said(f'File "{tmp_path}/slow_shop.py", line 5'))
        await_true(lambda: worker.has_said("is still importing slow_shop:app after"))
        worker.signal(signal.SIGTERM)
        assert worker.wait(timeout=5) == 0


def test_restart_that_hangs_is_tried_again_and_does_not_end_the_worker(app: Penstock, url: str, tmp_path: Path) -> None:
    source = tmp_path / "shop_that_hangs.py"
    source.write_text(SHOP)
    with working(url, app="shop_that_hangs:app", start_timeout="1s", cwd=tmp_path) as worker:
        assert app.enqueue("old").result(timeout=10) == 1
        source.write_text(HANGS)
        worker.signal(signal.SIGHUP)
        await_true(lambda: worker.has_said("has not imported shop_that_hangs:app within 1s"))
        source.write_text(SHOP)
        assert app.enqueue("old").result(timeout=10) == 1


def test_worker_that_can_do_nothing_says_so_at_its_start(url: str, tmp_path: Path) -> None:
    (tmp_path / "bare_shop.py").write_text("from penstock.client import Penstock\napp = Penstock()\n")
    with working(url, app="bare_shop:app", queues="default", burst=True, cwd=tmp_path) as worker:
        assert worker.wait() == 0
    assert worker.has_said("bare_shop:app has no tasks, so this worker finds nothing to do")
    with working(url, queues="defualt", burst=True) as worker:
        assert worker.wait() == 0
    assert worker.has_said("the store does not know it: did you mean 'default'?")
    assert worker.has_said("-Q leaves out the queues of")


def test_start_says_in_words_what_the_store_promises(url: str) -> None:
    with working(url, burst=True) as worker:
        assert worker.wait() == 0
    assert worker.has_said("(sqlite, every accepted job survives power loss (D2))")


@pytest.mark.parametrize("where", ["no/such/folder/store.db", "folder", "text.db"])
def test_store_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.db").write_text("this is no database, but a long enough text to be taken for one" * 20)
    with working(f"sqlite:///{tmp_path}/{where}") as worker:
        assert worker.wait(timeout=15) == 3
    (line,) = worker.lines
    assert line.startswith(f"penstock: {tmp_path}/{where.partition('/')[0]}")
