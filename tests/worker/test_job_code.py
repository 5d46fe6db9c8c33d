"""What job code does to a worker, row by row of the table in docs/explanation/worker.md, on each runner.

The rows J1 to J14 are named in the ids of the tests. What other tests show of them stands in that table.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from penstock.model.job import ErrorInfo, Evidence, Job
from penstock.model.outcome import Ending, Outcome
from penstock.model.states import State
from penstock.worker.forensics import resident_bytes
from penstock.worker.offspring import lives
from penstock.worker.runners.child import ChildRunner
from penstock.worker.runners.contract import Runner, Surroundings
from penstock.worker.runners.loop import LoopRunner
from penstock.worker.runners.thread import ThreadRunner
from tests.polling import await_true, comes_true
from tests.worker import ill_mannered
from tests.worker.harness import ROOT, Stage, call_of, plan, stored, working

APP = "tests.worker.ill_mannered:app"
TASKS = ill_mannered.app.tasks
PYTHON = ("thread", "loop", "process")


def make(kind: str, around: Surroundings) -> Runner:
    if kind == "process":
        return ChildRunner(around, 0, 1, plan=plan(app=APP), spawn=subprocess.Popen)
    return ThreadRunner(around, 0, 1) if kind == "thread" else LoopRunner(around, 0, 1)


@pytest.fixture(scope="module")
def stages() -> Iterator[dict[str, Stage]]:
    made = {kind: Stage(lambda around, kind=kind: make(kind, around), TASKS, hard_limit_s=0.3) for kind in PYTHON}
    yield made
    for stage in made.values():
        stage.close()


@pytest.fixture
def child(stages: dict[str, Stage]) -> Stage:
    return stages["process"]


def run(stage: Stage, task: str, *args: object, timeout: float = 60) -> Outcome:
    return stage.run(call_of(ill_mannered.app, task, *args, timeout=timeout), timeout=60)


def given(stage: Stage, task: str, *args: object) -> Any:
    outcome = run(stage, task, *args)
    assert outcome.error is None
    return TASKS[task].decode_result(outcome.result or b"null")


def error_of(outcome: Outcome) -> ErrorInfo:
    assert outcome.error is not None
    return outcome.error


def test_table_names_tests_that_exist() -> None:
    """The one of job code; a test that was renamed would leave a row without proof."""
    page = (ROOT / "docs/explanation/worker.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    files = (ROOT / "tests").rglob("test_*.py")
    written = {name for file in files for name in _DEFINED.findall(file.read_text())}
    assert len(named) > 20
    assert named <= written


_DEFINED = re.compile(r"^def (test_\w+)", re.MULTILINE)


# -- in a child of its own --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "args", "words"),
    [
        pytest.param("leave", (0,), "its process exited with status 0", id="J1 os._exit(0)"),
        pytest.param("leave", (7,), "its process exited with status 7", id="J1 os._exit(7)"),
        pytest.param("touch_nothing", (), "killed by signal 11 (SIGSEGV", id="J1 segmentation fault"),
        pytest.param("abort", (), "killed by signal 6 (SIGABRT", id="J1 abort"),
        pytest.param("kill_self", (), "killed by signal 9 (SIGKILL", id="J11 kill"),
    ],
)
def test_child_that_its_job_ends_is_a_crash_and_never_a_success(
    child: Stage, task: str, args: tuple[Any, ...], words: str
) -> None:
    outcome = run(child, f"process.{task}", *args)
    assert (outcome.ending, outcome.result) == (Ending.CRASHED, None)
    assert words in error_of(outcome).message


@pytest.mark.parametrize("row", [pytest.param("exhaust", id="J2")])
def test_memory_that_a_child_may_not_have_fails_its_job_and_no_other(child: Stage, row: str) -> None:
    outcome = run(child, f"process.{row}", 100)
    assert outcome.ending is Ending.FAILED
    assert (error_of(outcome).type, error_of(outcome).failure_class) == ("builtins.MemoryError", "job")
    assert given(child, "process.state")["blocked"] == 0


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    """A group of processes that may have 100 MB."""
    name = f"penstock-{tmp_path.parent.name}-{tmp_path.name}-{os.getpid()}"
    for top, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        group = Path("/sys/fs/cgroup") / top / name
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                (group / limit).write_text(str(100 * 1024**2))
                yield group
                return
            finally:
                comes_true(partial(is_empty, group))
                group.rmdir()
    pytest.skip("no group with a limit of memory can be made here")


def is_empty(group: Path) -> bool:
    return not (group / "cgroup.procs").read_text()


@pytest.mark.parametrize("row", [pytest.param("fill_group", id="J2 want of memory")])
def test_child_that_the_kernel_kills_for_want_of_memory_is_a_crash_with_that_cause(
    child: Stage, row: str, group: Path
) -> None:
    outcome = run(child, f"process.{row}", group, 500)
    assert outcome.ending is Ending.CRASHED
    message = error_of(outcome).message
    assert message.startswith("its process was killed by signal 9 (SIGKILL, out of memory); peak memory ")
    assert isinstance(given(child, "process.where"), int)


@pytest.mark.parametrize("row", [pytest.param("leak", id="J3")])
def test_child_that_leaks_is_replaced_between_jobs(row: str) -> None:
    """A job that is looked at just when it has taken its child over the limit is ended with it."""
    given_plan = plan(app=APP, max_memory=100 * 1024**2)
    stage = Stage(lambda around: ChildRunner(around, 0, 1, plan=given_plan, spawn=subprocess.Popen), TASKS)
    outcomes = [run(stage, f"process.{row}", 25) for _ in range(6)]
    stage.close()
    pids = {outcome.result for outcome in outcomes if outcome.ending is Ending.SUCCEEDED}
    killed = [outcome for outcome in outcomes if outcome.ending is not Ending.SUCCEEDED]
    assert len(pids) >= 2
    assert all("over the limit of 100 MB" in error_of(outcome).message for outcome in killed)


@pytest.mark.parametrize("task", [pytest.param("refuse_signals", id="J5"), pytest.param("match_for_ever", id="J4")])
def test_job_that_refuses_to_end_is_killed_with_its_child(child: Stage, tmp_path: Path, task: str) -> None:
    assert run(child, f"process.{task}", tmp_path / "began", timeout=1).ending is Ending.TIMED_OUT


@pytest.mark.parametrize("row", [pytest.param("daemonise", id="J6")])
def test_daemon_of_a_job_ends_with_the_job(child: Stage, row: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its child is ended with it, so that the next job finds nothing that this one has broken."""
    before = given(child, "process.where")
    program = given(child, f"process.{row}")
    await_true(lambda: not lives(program))
    assert "programs were left running, which are ended: sleep (process " in caplog.text
    assert given(child, "process.where") != before


@pytest.mark.parametrize("row", [pytest.param("compute_in_processes", id="J6 pool")])
def test_child_stays_where_a_job_has_ended_what_it_started(child: Stage, row: str) -> None:
    pid = given(child, f"process.{row}")
    assert given(child, "process.where") == pid


@pytest.mark.parametrize("row", [pytest.param("orphan", id="J6 uncollected")])
def test_child_in_which_ended_programs_gather_is_replaced(child: Stage, row: str) -> None:
    few = given(child, f"process.{row}", 5)
    assert given(child, f"process.{row}", 100) == few
    assert given(child, "process.where") != few


@pytest.mark.parametrize("row", [pytest.param("daemonise_and_hang", id="J6 at the hard limit")])
def test_daemon_of_a_job_that_is_killed_ends_with_it(child: Stage, tmp_path: Path, row: str) -> None:
    outcome = run(child, f"process.{row}", tmp_path / "program", timeout=1)
    assert outcome.ending is Ending.TIMED_OUT
    await_true(lambda: not lives(int((tmp_path / "program").read_text())))


@pytest.mark.parametrize("row", [pytest.param("shout", id="J7")])
def test_job_that_prints_without_end_is_not_held_up_and_fills_no_memory_but_its_own(child: Stage, row: str) -> None:
    given(child, "process.where")
    before = resident_bytes(os.getpid())
    assert given(child, f"process.{row}", 32) == "said"
    assert resident_bytes(os.getpid()) - before < 10 * 1024**2


@pytest.mark.parametrize("row", [pytest.param("rearrange", id="J8")])
def test_next_job_finds_the_child_as_if_nothing_had_been_changed(child: Stage, tmp_path: Path, row: str) -> None:
    before = given(child, "process.state")
    given(child, f"process.{row}", tmp_path)
    assert given(child, "process.state") == before


@pytest.mark.parametrize(
    "task",
    [
        pytest.param("close_streams", id="J8 closed streams"),
        pytest.param(
            "change_root", id="J8 chroot", marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root may chroot")
        ),
    ],
)
def test_next_job_gets_another_child_where_what_was_changed_cannot_be_undone(
    child: Stage, tmp_path: Path, task: str
) -> None:
    before = given(child, "process.state")
    args = () if task == "close_streams" else (tmp_path,)
    assert given(child, f"process.{task}", *args) == before["pid"]
    after = given(child, "process.state")
    assert after.pop("pid") != before.pop("pid")
    assert after == before


@pytest.mark.slow
@pytest.mark.parametrize("row", [pytest.param("leave_a_thread", id="J14")])
def test_thread_that_is_left_running_ends_with_its_child_after_a_while(child: Stage, row: str) -> None:
    began = time.monotonic()
    pid = given(child, f"process.{row}")
    assert given(child, "process.where") == pid
    await_true(lambda: not lives(pid))
    assert time.monotonic() - began >= 5
    assert given(child, "process.where") != pid


# -- on every runner for Python ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PYTHON)
@pytest.mark.parametrize(
    ("task", "words"),
    [
        pytest.param("raise_mute", "<its text cannot be read: SystemExit>", id="J9 mute"),
        pytest.param("raise_at_length", "characters left out", id="J9 long"),
        pytest.param("raise_in_a_chain", "4999", id="J9 chain"),
    ],
)
def test_odd_exception_is_stored_as_text_of_bounded_length(
    stages: dict[str, Stage], kind: str, task: str, words: str
) -> None:
    outcome = run(stages[kind], f"{kind}.{task}")
    assert outcome.ending is Ending.FAILED
    assert words in error_of(outcome).message
    assert len(error_of(outcome).message) <= 4096
    assert len(error_of(outcome).traceback) <= 16 * 1024
    assert isinstance(given(stages[kind], f"{kind}.where"), int)


@pytest.mark.parametrize("kind", PYTHON)
@pytest.mark.parametrize(
    "task",
    [
        pytest.param("give_generator", id="J10 generator"),
        pytest.param("give_coroutine", id="J10 coroutine", marks=pytest.mark.filterwarnings("ignore:coroutine")),
        pytest.param("give_much", id="J10 100 MB"),
        pytest.param("give_nan", id="J10 NaN"),
    ],
)
def test_odd_result_buries_the_job_and_nothing_else(stages: dict[str, Stage], kind: str, task: str) -> None:
    outcome = run(stages[kind], f"{kind}.{task}")
    assert (outcome.ending, outcome.verdict, outcome.result) == (Ending.FAILED, "bury", None)
    assert "which cannot be kept" in error_of(outcome).message
    assert isinstance(given(stages[kind], f"{kind}.where"), int)


# -- in whole workers, whose processes die ----------------------------------------------------------------------------

CRASHES = {
    "J1 os._exit(0)": ("leave", 0),
    "J1 segmentation fault": ("touch_nothing",),
    "J1 abort": ("abort",),
    "J11 kill": ("kill_self",),
}
HANGS = {"J4 interpreter lock": "match_for_ever", "J5 signals": "refuse_signals"}
HANGS_OF = {"thread": HANGS | {"J4 C": "block"}, "loop": HANGS | {"J12 cancellation": "swallow_cancellation"}}


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A store of its own for the application."""
    url = f"sqlite:///{tmp_path}/store.db"
    ill_mannered.app.redirect(url)
    yield url
    ill_mannered.app.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["thread", "loop"])
def test_job_that_takes_its_process_along_or_does_not_end_is_charged_and_tells_why(
    url: str, tmp_path: Path, kind: str
) -> None:
    """J1, J4, J5, J11 and J12, all in one worker, each alone in its process; none is tried again."""
    enqueue = ill_mannered.app.enqueue
    hanging = {row: enqueue(f"{kind}.{task}", tmp_path / row) for row, task in HANGS_OF[kind].items()}
    crashing = {row: enqueue(f"{kind}.{task}", *args) for row, (task, *args) in CRASHES.items()}
    after = enqueue(f"{kind}.where")
    with working(url, app=APP, burst=True, processes=3, slots=1, coroutines=1, shutdown_timeout="1s") as worker:
        assert worker.wait(60) == 0
    hung = {row: stored(url, job.id) for row, job in hanging.items()}
    crashed = {row: stored(url, job.id) for row, job in crashing.items()}
    assert after.state() is State.SUCCEEDED
    assert {row: toll(job) for row, job in hung.items()} == dict.fromkeys(hung, (State.BURIED, 1, 0))
    assert {row: toll(job) for row, job in crashed.items()} == dict.fromkeys(crashed, (State.BURIED, 0, 1))
    for row, job in hung.items():
        cause = evidence_of(job).cause
        assert job.ran_us > 300_000, row
        assert cause.startswith("it ignored its time limit of 300ms; it "), row
        assert "(ill_mannered.py:" in cause, row
    assert "about to match" in evidence_of(hung["J4 interpreter lock"]).log
    assert "about to fault" in evidence_of(crashed["J1 segmentation fault"]).log
    statuses = [evidence_of(job).status for job in crashed.values()]
    assert statuses == [0, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGKILL]


def toll(job: Job) -> tuple[State, int, int]:
    assert job.result is None
    return job.state, job.counters.failures, job.counters.crashes


def evidence_of(job: Job) -> Evidence:
    assert job.error is not None
    assert job.error.evidence is not None
    return job.error.evidence


@pytest.mark.slow
@pytest.mark.parametrize("row", [pytest.param("loop.block_the_loop", id="J12 blocked loop")])
def test_coroutine_that_blocks_the_loop_is_charged_and_those_beside_it_run_again(
    url: str, tmp_path: Path, row: str
) -> None:
    beside = ill_mannered.app.enqueue("loop.nap")
    blocking = ill_mannered.app.enqueue(row, tmp_path / "gate")
    with working(url, app=APP, shutdown_timeout="100ms") as worker:
        assert beside.result(timeout=30) == "slept"
        assert worker.has_said(f"job {blocking.id} of task {row} has blocked the event loop")
    assert toll(stored(url, blocking.id)) == (State.BURIED, 1, 0)
    assert "it blocked the event loop until others ran out of time" in str(stored(url, blocking.id).error)
    counters = stored(url, beside.id).counters
    assert (counters.failures, counters.crashes, counters.interruptions) == (0, 0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("row", [pytest.param("thread.daemonise", id="J6")])
def test_daemon_of_a_job_that_shares_its_process_is_told_to_whoever_reads_the_log(url: str, row: str) -> None:
    with working(url, app=APP) as worker:
        program = ill_mannered.app.enqueue(row).result(timeout=30)
        await_true(lambda: worker.has_said(f"process {program} was left behind by a job"))
        os.kill(program, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("row", [pytest.param("thread.close_streams", id="J8")])
def test_process_works_on_without_its_streams(url: str, row: str) -> None:
    pid = ill_mannered.app.enqueue(row)
    after = ill_mannered.app.enqueue("thread.where")
    with working(url, app=APP, burst=True, slots=1) as worker:
        assert worker.wait(60) == 0
    assert after.result(timeout=1) == pid.result(timeout=1)


@pytest.mark.slow
@pytest.mark.parametrize("row", [pytest.param("thread.enqueue_and_die", id="J13")])
def test_children_of_a_job_that_dies_are_there_once_if_they_have_a_key(url: str, tmp_path: Path, row: str) -> None:
    ill_mannered.app.enqueue(row, tmp_path / "died")
    with working(url, app=APP, burst=True) as worker:
        assert worker.wait(60) == 0
    assert ill_mannered.app.counts()["default"] == {State.SUCCEEDED: 2}
