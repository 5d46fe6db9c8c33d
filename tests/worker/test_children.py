"""Children of the process lane: what ends with them, what a job pays for, and what it does not."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.model.job import Claim
from penstock.model.outcome import Ending
from penstock.worker.channel import Run
from penstock.worker.forensics import is_stopped
from penstock.worker.runners.child import Child, ChildRunner
from penstock.worker.runners.contract import Surroundings
from tests.polling import await_true
from tests.worker import lanes
from tests.worker.harness import Stage, claim, open_files, plan, working


@pytest.fixture
def stages() -> Iterator[Callable[..., Stage]]:
    """Make runners of one child each."""
    made: list[Stage] = []

    def make(app: str = "tests.worker.lanes:app", start_ms: int = 60_000, **fields: Any) -> Stage:
        given = plan(app=app, start_ms=start_ms)

        def runner(around: Surroundings) -> ChildRunner:
            return ChildRunner(around, 0, 1, plan=given, spawn=subprocess.Popen)

        made.append(Stage(runner, lanes.app.tasks, **fields))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


@pytest.fixture
def stage(stages: Callable[..., Stage]) -> Stage:
    return stages()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write an application of its own for the children, and give its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(source: str) -> str:
        (tmp_path / "odd_shop.py").write_text(source)
        return "odd_shop:app"

    return write


def call(task: str, *args: object, timeout: float | None = 60, padding: str = "") -> Claim:
    name = f"tests.worker.lanes.{task}"
    envelope, crc = lanes.app.tasks[name].pack(args, {}, {"padding": padding} if padding else {})
    return claim("thread.tell", task=name, envelope=envelope, crc=crc, timeout=timeout)


def result(stage: Stage, task: str, *args: object) -> Any:
    outcome = stage.run(call(task, *args))
    assert outcome.ending is Ending.SUCCEEDED, outcome.error
    return eval(outcome.result or b"", {}, {})  # numbers and lists of numbers


# -- what is no fault of the job --------------------------------------------------------------------------------------


def test_job_whose_child_dies_before_it_has_begun_goes_to_another(stage: Stage) -> None:
    first = result(stage, "where")
    freeze(first)
    stage.runner.start([call("where")])
    stage.await_running()
    os.kill(first, signal.SIGKILL)
    outcome = stage.next()[1]
    assert outcome.ending is Ending.SUCCEEDED
    assert int(outcome.result or b"0") != first


@pytest.mark.parametrize("padding", ["", "x" * 900_000], ids=["small", "larger than the line holds"])
def test_job_that_has_not_begun_at_its_limit_gets_its_time_in_another_child(
    stages: Callable[..., Stage], padding: str
) -> None:
    stage = stages(hard_limit_s=0.1)
    freeze(result(stage, "where"))
    assert stage.run(call("where", timeout=2, padding=padding)).ending is Ending.SUCCEEDED


STOPS_AFTER_HELLO = """
import os, signal, threading
from tests.worker.lanes import app

# The first thread to begin is to listen to the worker, which has just heard the hello.
threading.setprofile(lambda *_: os.kill(os.getpid(), signal.SIGSTOP))
"""


def test_job_is_put_off_when_no_child_lives_long_enough_to_begin_it(
    stages: Callable[..., Stage], shop: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    stage = stages(shop(STOPS_AFTER_HELLO), hard_limit_s=0.1)
    outcome = stage.run(call("where", timeout=0.1))
    assert (outcome.ending, outcome.started) == (Ending.SNOOZED, False)
    assert "two child processes ended before they had begun a job" in caplog.text


def test_job_is_put_off_when_its_child_hangs_while_it_imports_the_application(
    stages: Callable[..., Stage], shop: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    stage = stages(shop("import threading\nthreading.Event().wait()\n"), start_ms=500)
    outcome = stage.run(call("where"))
    assert (outcome.ending, outcome.started) == (Ending.SNOOZED, False)
    assert "it has not imported odd_shop:app within 500ms (--start-timeout)" in caplog.text


def test_job_is_put_off_when_the_import_fails_with_a_text_that_comes_in_parts(
    stages: Callable[..., Stage], shop: Callable[[str], str]
) -> None:
    stage = stages(shop("raise RuntimeError('bad row: ' + 'x' * 1_000_000)"))
    for _ in range(2):
        outcome = stage.run(call("where"))
        assert (outcome.ending, outcome.started) == (Ending.SNOOZED, False)
        assert outcome.error is not None
        assert "RuntimeError: bad row: x" in outcome.error.message
        assert len(outcome.error.message) < 10_000


@pytest.mark.parametrize("text", [b"no message\n", b"x" * 100_000])
def test_seat_survives_a_child_that_speaks_another_language(
    stages: Callable[..., Stage], shop: Callable[[str], str], text: bytes
) -> None:
    """The application may have written to a descriptor that was not its own."""
    stage = stages(shop(f"import os, sys\nos.write(int(sys.argv[1]), {text!r})\nos._exit(0)"))
    for _ in range(2):
        outcome = stage.run(call("where"))
        assert (outcome.ending, outcome.started) == (Ending.SNOOZED, False)


def test_job_gets_a_fresh_child_when_others_have_filled_the_warm_one_beyond_its_limit(stage: Stage) -> None:
    filled = result(stage, "grow", 200)
    assert result(stage, "where") == filled
    assert result(stage, "stay_small") != filled


def test_job_is_put_off_when_no_child_can_be_started() -> None:
    def refuse(*_given: Any, **_options: Any) -> Any:
        raise OSError("no more processes")

    stage = Stage(lambda around: ChildRunner(around, 0, 1, plan=plan(), spawn=refuse), lanes.app.tasks)
    before = open_files()
    outcome = stage.run(call("where"))
    assert (outcome.ending, outcome.started) == (Ending.SNOOZED, False)
    assert open_files() <= before
    stage.close()


@pytest.mark.parametrize("padding", ["", "x" * 900_000], ids=["small", "larger than the line holds"])
def test_cancel_of_a_job_that_its_child_has_not_read_yet_is_heard_and_waits_for_nobody(
    stage: Stage, padding: str
) -> None:
    child, job = result(stage, "where"), call("talk_until_cancelled", padding=padding)
    freeze(child)
    stage.runner.start([job])
    stage.await_running()
    canceller = threading.Thread(target=stage.runner.cancel, args=(job.fence,), daemon=True)
    canceller.start()
    canceller.join(5)
    assert not canceller.is_alive()
    os.kill(child, signal.SIGCONT)
    assert stage.next()[1].ending is Ending.CANCELLED


def test_interrupt_goes_through_to_a_child_that_was_asked_to_stop_before(stage: Stage, tmp_path: Path) -> None:
    job = call("ignore_cancel", tmp_path / "began")
    stage.runner.start([job])
    await_true((tmp_path / "began").exists)
    stage.runner.interrupt()
    stage.runner.cancel(job.fence)
    assert stage.next()[1].ending is Ending.RELEASED


def test_job_that_talks_without_end_is_ended_at_its_hard_limit(stages: Callable[..., Stage]) -> None:
    stage = stages(hard_limit_s=0.2)
    assert stage.run(call("talk_for_ever", timeout=0.3)).ending is Ending.TIMED_OUT


# -- what ends with a child -------------------------------------------------------------------------------------------


def test_program_that_a_job_started_is_killed_with_it_at_the_hard_limit(
    stages: Callable[..., Stage], tmp_path: Path
) -> None:
    stage = stages(hard_limit_s=0.2)
    note = tmp_path / "program"
    assert stage.run(call("start_a_program", note, timeout=0.5)).ending is Ending.TIMED_OUT
    await_true(lambda: has_ended(int(note.read_text())))


def test_program_that_a_job_left_behind_ends_with_its_job(stage: Stage) -> None:
    child, program = result(stage, "leave_a_program")
    await_true(lambda: has_ended(program))
    assert result(stage, "where") != child


def test_child_whose_job_closed_its_line_is_ended_and_charged(stage: Stage) -> None:
    outcome = stage.run(call("close_everything"))
    assert outcome.ending is Ending.CRASHED
    assert outcome.error is not None
    assert outcome.error.message.startswith("its process closed its line to the worker")


def test_job_that_closed_the_line_of_its_child_is_named_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    given = plan(app="tests.worker.lanes:app")
    child = Child.start(given, subprocess.Popen)
    assert child.greet(given) is None
    job = call("close_everything")
    child.channel.send(Run(job))
    said: list[str] = []
    await_true(lambda: said.append(capfd.readouterr().err) or "\n" in "".join(said))
    child.end()
    (line,) = "".join(said).splitlines()
    assert f"child process {child.pid} can hear its worker no more" in line
    assert job.id in line


@pytest.mark.parametrize("who", ["supervisor", "process"])
def test_children_end_when_what_started_them_is_killed(tmp_path: Path, who: str) -> None:
    url, note = f"sqlite:///{tmp_path}/store.db", tmp_path / "program"
    lanes.app.redirect(url)
    try:
        lanes.start_a_program.enqueue(note)
        with working(url, app="tests.worker.lanes:app") as worker:
            program = int(await_true(lambda: note.exists() and note.read_text()))
            process = worker.processes()[0]
            child = parent_of(program)
            os.kill(worker.pid if who == "supervisor" else process, signal.SIGKILL)
            await_true(lambda: has_ended(process) and has_ended(child))
            if who == "process":
                await_true(lambda: has_ended(program))
            else:  # nobody is left to end it
                os.kill(program, signal.SIGKILL)
    finally:
        lanes.app.close()


# -- looking at processes ---------------------------------------------------------------------------------------------


def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    await_true(lambda: is_stopped(pid))


def has_ended(pid: int) -> bool:
    """Say whether it has ended, collected or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except OSError:
        return True


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
