"""Whole workers on a SQLite file: what happens when something dies, hangs or is told to stop."""

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from penstock.client import Penstock
from penstock.model.errors import JobFailed
from penstock.model.states import State
from penstock.worker.supervisor import LAST_S
from tests.polling import await_true
from tests.servers.postgres import PostgresServer
from tests.worker import jobs
from tests.worker.harness import application, stored, working

#: What starting to signal and waiting for the end may take on a busy machine.
SLACK_S = 1.0

pytestmark = [pytest.mark.slow, pytest.mark.lonely, pytest.mark.usefixtures("app")]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def app(url: str) -> Iterator[Penstock]:
    with application(url) as app:
        yield app


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_burst_runs_everything_and_ends_clean(app: Penstock, url: str) -> None:
    plain = jobs.add.enqueue_many([(n, 1) for n in range(500)])
    loop = jobs.add_async.enqueue(2, 3)
    child = app.enqueue("process.give", "x")
    command = app.enqueue("command.give", {"y": 1})
    with working(url, burst=True, processes=2) as worker:
        assert worker.wait() == 0
    assert [job.result(timeout=1) for job in (*plain[:2], loop, child, command)] == [1, 2, 5, "x", {"y": 1}]
    assert app.counts()["default"] == {State.SUCCEEDED: 503}
    assert app.workers() == []


def test_first_result_comes_within_half_a_second_or_so(url: str) -> None:
    job = jobs.add.enqueue(1, 2)
    began = time.monotonic()
    with working(url):
        assert job.result(timeout=10) == 3
        assert time.monotonic() - began < 3, "a start takes 0.3 s on an idle machine"


def test_killed_process_is_charged_for_what_had_started_and_replaced_at_once(url: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    running = jobs.wait_for.enqueue(gate)
    with working(url, slots=1) as worker:
        await_true(gate.with_suffix(".started").exists)
        waiting = jobs.add.enqueue(1, 2)
        gate.with_suffix(".started").unlink()
        (pid,) = worker.processes()
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        assert waiting.result(timeout=10) == 3
        await_true(gate.with_suffix(".started").exists)
        assert time.monotonic() - killed < 3
        gate.touch()
        assert running.result(timeout=10) == "seen"
    assert stored(url, running.id).counters.crashes == 1
    assert "killed by signal 9 (SIGKILL)" in stored(url, running.id).history[0].message
    assert stored(url, waiting.id).counters.crashes == 0


def test_poison_is_buried_after_three_crashes_while_others_go_on(url: str, tmp_path: Path) -> None:
    others = jobs.add.enqueue_many([(n, 0) for n in range(50)])
    poison = jobs.kill_self.enqueue(tmp_path / "deaths")
    later = jobs.add.enqueue_many([(n, 0) for n in range(50)])
    with working(url, burst=True) as worker:
        assert worker.wait() == 0
    assert {job.state() for job in (*others, *later)} == {State.SUCCEEDED}
    with pytest.raises(JobFailed, match="buried: crashed: its process was killed by signal 9"):
        poison.result(timeout=1)
    assert stored(url, poison.id).counters.crashes == 3
    assert len(set((tmp_path / "deaths").read_text().split())) == 3
    assert sum("and is replaced" in line for line in worker.lines) == 1, "from the second time on it was alone"


def test_term_lets_running_jobs_finish_and_claims_no_more(app: Penstock, url: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    running = jobs.wait_for.enqueue(gate)
    with working(url) as worker:
        await_true(gate.with_suffix(".started").exists)
        worker.signal(signal.SIGTERM)
        await_true(lambda: worker.has_said("stopping (SIGTERM)"))
        waiting = jobs.add.enqueue(1, 2)
        gate.touch()
        assert worker.wait() == 0
    assert running.state() is State.SUCCEEDED
    assert waiting.state() is State.READY
    assert app.workers() == []


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_gives_running_jobs_back_at_once(url: str, tmp_path: Path, second: signal.Signals) -> None:
    gate = tmp_path / "gate"
    running = jobs.wait_for.enqueue(gate)
    with working(url) as worker:
        await_true(gate.with_suffix(".started").exists)
        worker.signal(signal.SIGTERM)
        await_true(lambda: worker.has_said("stopping"))
        told = time.monotonic()
        worker.signal(second)
        assert worker.wait() == 0
        assert time.monotonic() - told < 3
    job = stored(url, running.id)
    assert (job.state, job.counters.interruptions, job.counters.failures) == (State.READY, 1, 0)


def test_job_that_blocks_in_c_is_given_back_by_a_second_signal(url: str, tmp_path: Path) -> None:
    job = jobs.wait_in_c.enqueue(tmp_path / "gate")
    with working(url) as worker:
        await_true((tmp_path / "gate.started").exists)
        worker.signal(signal.SIGTERM)
        await_true(lambda: worker.has_said("stopping"))
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    found = stored(url, job.id)
    assert (found.state, found.counters.crashes, found.counters.interruptions) == (State.READY, 0, 1)


def test_shutdown_timeout_is_the_whole_time_that_a_stop_takes(app: Penstock, url: str, tmp_path: Path) -> None:
    """A job that blocks in C, a command that ignores SIGTERM and a child that blocks are given back all the same."""
    held = [jobs.wait_in_c.enqueue(tmp_path / "gate"), app.enqueue("command.ignore"), app.enqueue("process.block")]
    with working(url, shutdown_timeout="500ms") as worker:
        await_true(lambda: all(job.state() is State.RUNNING for job in held))
        await_true((tmp_path / "gate.started").exists)
        (pid,) = worker.processes()
        await_true(lambda: len(below(pid)) == 2)
        told = time.monotonic()
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert time.monotonic() - told < 0.5 + LAST_S + SLACK_S
        assert worker.has_said(f"process {pid} is killed, because these jobs do not stop")
        assert worker.has_said(" have 500ms to finish")
    for job in held:
        counters = stored(url, job.id).counters
        assert (job.state(), counters.interruptions, counters.crashes) == (State.READY, 1, 0)
    assert app.workers() == []


def test_stop_ends_in_time_though_the_store_is_away_and_leaves_the_jobs_to_the_lease(url: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = jobs.wait_for.enqueue(gate)
    with working(url, shutdown_timeout="500ms", lease="8s") as worker:
        await_true(gate.with_suffix(".started").exists)
        with (tmp_path / "store.db-penstock" / "gate").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            told = time.monotonic()
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
            assert time.monotonic() - told < 0.5 + LAST_S + SLACK_S
        assert worker.has_said("what its processes held is handed on when their leases lapse, in 8s")
    assert job.state() is State.RUNNING
    gate.touch()
    with working(url):
        assert job.result(timeout=20) == "seen"
    counters = stored(url, job.id).counters
    assert (counters.crashes, counters.failures) == (0, 0)


def test_burst_says_which_jobs_it_leaves_and_why(app: Penstock, url: str) -> None:
    for _ in range(2):
        app.enqueue("old.task")
    jobs.add.using(delay=3600).enqueue(1, 2)
    with working(url, burst=True) as worker:
        assert worker.wait() == 0
        (line,) = [line for line in worker.lines if "stopping" in line]
    assert "2 jobs of old.task (this worker does not know the task)" in line
    assert "1 job of tests.worker.jobs.add (scheduled for later)" in line


def test_job_that_ignores_its_timeout_is_killed_and_the_others_finish(url: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    stuck = jobs.ignore_everything.enqueue(tmp_path / "stuck")
    other = jobs.wait_for.enqueue(gate)
    with working(url) as worker:
        await_true(gate.with_suffix(".started").exists)
        await_true(lambda: worker.has_said("jobs ignore their time limit"), timeout_s=15)
        gate.touch()
        assert other.result(timeout=10) == "seen"
        with pytest.raises(JobFailed, match="timed out: ran on after its timeout"):
            stuck.result(timeout=10)
        assert jobs.add.enqueue(1, 2).result(timeout=10) == 3
    counters = stored(url, stuck.id).counters
    assert (counters.failures, counters.crashes) == (1, 0)
    assert stored(url, other.id).counters.crashes == 0


def test_job_that_holds_the_interpreter_lock_keeps_its_lease(url: str) -> None:
    job = jobs.hold_the_lock.enqueue(3.0)
    with working(url, lease="1s") as worker:
        assert job.result(timeout=20) == "held"
        assert len(worker.processes()) == 1
    assert stored(url, job.id).claim_number == 1


def test_frozen_process_is_replaced_and_its_job_lost_once(url: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = jobs.wait_for.enqueue(gate)
    with working(url, lease="1s") as worker:
        await_true(gate.with_suffix(".started").exists)
        (pid,) = worker.processes()
        os.kill(pid, signal.SIGSTOP)
        await_true(lambda: worker.has_said("has been stopped for too long"))
        gate.touch()
        assert job.result(timeout=10) == "seen"
    found = stored(url, job.id)
    assert (found.counters.losses, found.counters.crashes) == (1, 0)
    assert found.history[0].evidence is not None
    assert "its process was stopped from outside; it stood in" in found.history[0].evidence.cause
    assert "wait_for (jobs.py:" in found.history[0].evidence.cause


def test_running_job_learns_that_it_was_cancelled(app: Penstock, url: str) -> None:
    job = app.enqueue("thread.linger", 60)
    with working(url):
        await_true(lambda: job.state() is State.RUNNING)
        job.cancel()
        await_true(lambda: job.state() is State.CANCELLED, timeout_s=3)


def test_supervisor_takes_its_processes_with_it(url: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    running = jobs.wait_for.enqueue(gate)
    with working(url, lease="1s") as first:
        await_true(gate.with_suffix(".started").exists)
        (pid,) = first.processes()
        first.signal(signal.SIGKILL)
        await_true(lambda: not Path(f"/proc/{pid}").exists())
    gate.touch()
    with working(url, lease="1s"):
        assert running.result(timeout=10) == "seen"
    counters = stored(url, running.id).counters
    assert (counters.losses, counters.crashes, counters.suspect) == (1, 0, True)


def test_jobs_of_a_worker_that_was_killed_whole_run_again_as_soon_as_its_lease_has_lapsed(
    app: Penstock, url: str, tmp_path: Path
) -> None:
    """The worker that takes them over looks at the store by itself once a minute only."""
    gate = tmp_path / "gate"
    started = gate.with_suffix(".started")
    running = jobs.wait_for.enqueue(gate)
    with working(url, lease="3s") as first:
        await_true(started.exists)
        with working(url, lease="10m"):
            await_true(lambda: len(app.engine.workers()) == 2)
            tree = [first.pid, *first.processes()]
            started.unlink()
            left_s = lease_left_s(app, first.pid)
            killed = time.monotonic()
            for pid in tree:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await_true(started.exists)
            assert time.monotonic() - killed >= left_s - SLACK_S
            gate.touch()
            assert running.result(timeout=10) == "seen"
    counters = stored(url, running.id).counters
    assert (counters.losses, counters.crashes) == (1, 0)


def lease_left_s(app: Penstock, pid: int) -> float:
    [left_ms] = [worker.lease_left_ms for worker in app.engine.workers() if worker.info.pid == pid]
    return left_ms / 1000


def test_commands_and_children_end_with_their_process(app: Penstock, url: str) -> None:
    app.enqueue("command.linger", 60)
    app.enqueue("process.linger", 60)
    with working(url) as worker:
        (pid,) = await_true(worker.processes)
        await_true(lambda: len(below(pid)) == 2)
        found = below(pid)
        os.kill(pid, signal.SIGKILL)
        await_true(lambda: not any(Path(f"/proc/{child}").exists() for child in found))


def test_what_jobs_leave_behind_is_collected_when_it_ends(url: str) -> None:
    with working(url):
        pid = jobs.leave_behind.enqueue().result(timeout=10)
        await_true(lambda: not Path(f"/proc/{pid}").exists(), timeout_s=5)


def below(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def test_application_that_cannot_be_imported_is_explained(url: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import penstock_nowhere\n")
    with working(url, app=f"{tmp_path}/broken.py:app") as worker:
        assert worker.wait() == 2
        text = "\n".join(worker.lines)
    assert "No module named 'penstock_nowhere'" in text
    assert "supervisor.py" not in text
    with working(url, app="tests.worker.jobs:nothing") as worker:
        assert worker.wait() == 2
        assert worker.has_said("has no 'nothing'. It holds tests.worker.jobs:app.")


def test_store_that_cannot_be_used_ends_the_worker(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("this is no database, but a long enough text to be taken for one" * 20)
    with working(f"sqlite:///{tmp_path}/store.db") as worker:
        assert worker.wait() == 3
        assert not worker.has_said("Traceback")
    with working("memory://") as worker:
        assert worker.wait() == 2
        assert worker.has_said("private to each process")


def test_store_that_turns_out_to_be_of_no_use_ends_the_worker_with_the_same_status(
    postgres_server: PostgresServer,
) -> None:
    url = postgres_server.empty_store()
    with Penstock(url) as app, psycopg.connect(url) as db:
        app.enqueue("tests.worker.jobs.add", 1, 2)
        db.execute("UPDATE penstock.policies SET body = '#'")
    with working(url) as worker:
        assert worker.wait() == 3
        assert worker.has_said("is damaged")
        assert not worker.has_said("unfit")


def test_job_in_a_child_enqueues_where_its_worker_was_told_to_work(app: Penstock, url: str) -> None:
    with working(url):
        later = jobs.add_later.enqueue(1, 2).result(timeout=20)
        assert app.job(later).result(timeout=20) == 3


def test_unfit_worker_ends_with_its_own_status(url: str) -> None:
    job = jobs.call_unfit.enqueue()
    with working(url) as worker:
        assert worker.wait() == 4
        assert worker.has_said("the disk is full")
    found = stored(url, job.id)
    assert (found.state, found.counters.failures) == (State.READY, 0)


def test_hangup_replaces_processes_one_by_one(url: str) -> None:
    with working(url, processes=2) as worker:
        assert jobs.add.enqueue(1, 1).result(timeout=10) == 2
        before = set(await_true(lambda: pids if len(pids := worker.processes()) == 2 else None))
        worker.signal(signal.SIGHUP)
        await_true(lambda: len(now := set(worker.processes())) == 2 and not now & before)
        assert jobs.add.enqueue(1, 2).result(timeout=10) == 3


def test_quiet_worker_claims_no_more_and_shows_stacks(url: str) -> None:
    with working(url) as worker:
        assert jobs.add.enqueue(1, 1).result(timeout=10) == 2
        worker.signal(signal.SIGTTIN)
        await_true(lambda: worker.has_said("penstock/worker/pump.py"))
        worker.signal(signal.SIGTSTP)
        await_true(lambda: worker.has_said("quiet: no more jobs are claimed"))
        job = jobs.add.enqueue(1, 2)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    assert job.state() is State.READY


def test_process_is_recycled_after_max_jobs(url: str) -> None:
    handles = jobs.where.enqueue_many([()] * 10)
    with working(url, max_jobs=3, burst=True) as worker:
        assert worker.wait() == 0
    pids = [job.result(timeout=1) for job in handles]
    assert max(pids.count(pid) for pid in pids) == 3


def test_process_that_grows_is_replaced(url: str) -> None:
    with working(url, max_memory="150M") as worker:
        large = jobs.grow.enqueue(130).result(timeout=10)
        await_true(lambda: worker.has_said("is replaced: it uses"))
        await_true(lambda: worker.processes() not in ([], [large]))
        assert jobs.where.enqueue().result(timeout=10) != large


def test_process_that_grows_to_half_as_much_again_is_killed_and_its_job_charged(url: str, tmp_path: Path) -> None:
    job = jobs.grow_once.enqueue(tmp_path / "grown", 200)
    with working(url, max_memory="100M") as worker:
        assert job.result(timeout=20) == "small"
        assert worker.has_said("is killed: it uses")
    found = stored(url, job.id)
    assert (found.counters.crashes, found.counters.failures) == (1, 0)
    assert "over the limit of 100 MB" in found.history[0].message


def test_worker_that_cannot_reach_its_store_ends_running_jobs_before_their_leases_lapse(
    url: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job = jobs.wait_for.enqueue(gate)
    with working(url, lease="3s") as worker:
        await_true(gate.with_suffix(".started").exists)
        (pid,) = worker.processes()
        with (tmp_path / "store.db-penstock" / "gate").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            held = time.monotonic()
            await_true(lambda: pid not in worker.processes())
            assert time.monotonic() - held < 3.0
            assert worker.has_said("the store has not answered for two thirds of a lease")
        gate.touch()
        assert job.result(timeout=20) == "seen"
    counters = stored(url, job.id).counters
    assert (counters.crashes, counters.failures) == (0, 0)


def test_worker_that_was_stopped_itself_does_not_blame_the_store(url: str, tmp_path: Path) -> None:
    """Whether it can still renew when it goes on is a race; if it cannot, it kills its processes and says why."""
    gate = tmp_path / "gate"
    job = jobs.wait_for.enqueue(gate)
    with working(url, lease="1s") as worker:
        await_true(gate.with_suffix(".started").exists)
        worker.signal(signal.SIGSTOP)
        began = time.monotonic()
        await_true(lambda: time.monotonic() - began > 1.5)
        worker.signal(signal.SIGCONT)
        gate.touch()
        assert job.result(timeout=20) == "seen"
        assert not worker.has_said("the store has not answered")
        assert worker.has_said("this worker stood still for") == worker.has_said(
            "is killed before others take its jobs"
        )


def test_drain_asked_in_the_store_ends_the_worker(app: Penstock, url: str) -> None:
    with working(url, lease="1s") as worker:
        assert jobs.add.enqueue(1, 1).result(timeout=10) == 2
        (view,) = app.workers()
        assert view.info.pid == worker.pid
        app.engine.drain([view.info.id])
        assert worker.wait() == 0


def test_queues_are_served_in_order(url: str) -> None:
    low = [jobs.add.using(queue="low").enqueue(n, 0) for n in range(3)]
    high = [jobs.add.using(queue="high").enqueue(n, 0) for n in range(3)]
    other = jobs.add.using(queue="other").enqueue(1, 1)
    with working(url, queues="high,low", slots=1, burst=True) as worker:
        assert worker.wait() == 0
        lines = [line for line in worker.lines if "succeeded" in line]
    order = [next(job.id for job in (*low, *high) if job.id in line) for line in lines]
    assert order == [job.id for job in (*high, *low)]
    assert other.state() is State.READY


def test_json_log_has_one_line_for_each_job(url: str) -> None:
    job = jobs.add.enqueue(1, 2)
    with working(url, log_format="json", burst=True) as worker:
        assert worker.wait() == 0
        records = [json.loads(line) for line in worker.lines]
    (record,) = [record for record in records if record["logger"] == "penstock.job"]
    assert (record["level"], record["job"]) == ("info", job.id)
    assert record["message"].startswith(f"succeeded tests.worker.jobs.add id={job.id} queue=default attempt=1 ran=")


def test_changed_source_file_reloads(url: str, tmp_path: Path) -> None:
    source = tmp_path / "shop.py"
    text = (
        "from penstock.client import Penstock\napp = Penstock()\n@app.task(name='v')\ndef v() -> int:\n    return {}\n"
    )
    source.write_text(text.format(1))
    with application(url) as app, working(url, app="shop:app", reload=True, cwd=tmp_path) as worker:
        assert app.enqueue("v").result(timeout=10) == 1
        source.write_text(text.format("1 + 1"))  # of another size, by which Python tells it from one of the same second
        await_true(lambda: worker.has_said("changed; processes are replaced"))
        await_true(lambda: app.enqueue("v").result(timeout=10) == 2)
