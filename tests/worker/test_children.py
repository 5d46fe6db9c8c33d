"""Children of the process lane: what ends with them, what a job pays for, and what it does not."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.model.job import Claim
from penstock.model.outcome import Ending
from penstock.worker.channel import Channel, Run
from penstock.worker.forensics import is_stopped
from penstock.worker.runners.child import ChildRunner
from tests.worker import lanes
from tests.worker.harness import Stage, await_true, claim, plan, working


@pytest.fixture
def stages() -> Iterator[Callable[..., Stage]]:
    """Make runners of one child each."""
    made: list[Stage] = []

    def make(**fields: Any) -> Stage:
        given = plan(app="tests.worker.lanes:app", **fields)
        made.append(
            Stage(lambda around: ChildRunner(around, 0, 1, plan=given, spawn=subprocess.Popen), lanes.app.tasks)
        )
        return made[-1]

    yield make
    for stage in made:
        stage.close()


@pytest.fixture
def stage(stages: Callable[..., Stage]) -> Stage:
    return stages()


def call(task: str, *args: object, timeout: float | None = 60) -> Claim:
    name = f"tests.worker.lanes.{task}"
    envelope, crc = lanes.app.tasks[name].pack(args, {})
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


def test_job_that_has_not_begun_at_its_limit_gets_its_time_in_another_child(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.worker.runners.child.HARD_LIMIT_AFTER_S", 0.1)
    freeze(result(stage, "where"))
    assert stage.run(call("where", timeout=5)).ending is Ending.SUCCEEDED


def test_job_is_put_off_when_no_child_lives_long_enough_to_begin_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("penstock.worker.runners.child.Child.greet", lambda child, _: freeze(child.pid))
    monkeypatch.setattr("penstock.worker.runners.child.HARD_LIMIT_AFTER_S", 0.1)
    outcome = stage.run(call("where", timeout=0.1))
    assert (outcome.ending, outcome.started) == (Ending.SNOOZED, False)
    assert "two child processes ended before they had begun a job" in caplog.text


def test_job_is_put_off_when_its_child_hangs_while_it_imports_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "shop_that_hangs.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    given = plan(app="shop_that_hangs:app", start_ms=500)
    stage = Stage(lambda around: ChildRunner(around, 0, 1, plan=given, spawn=subprocess.Popen), lanes.app.tasks)
    outcome = stage.run(call("where"))
    assert (outcome.ending, outcome.started) == (Ending.SNOOZED, False)
    assert "it has not imported shop_that_hangs:app within 500ms (--start-timeout)" in caplog.text
    stage.close()


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


def test_cancel_that_overtakes_its_job_on_the_way_to_the_child_is_heard(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Channel.send

    def cancel_first(channel: Channel, message: Any) -> bool:
        if isinstance(message, Run):
            stage.runner.cancel(message.claim.fence)
        return send(channel, message)

    result(stage, "where")
    monkeypatch.setattr(Channel, "send", cancel_first)
    assert stage.run(call("talk_until_cancelled")).ending is Ending.CANCELLED


# -- what ends with a child -------------------------------------------------------------------------------------------


def test_program_that_a_job_started_is_killed_with_it_at_the_hard_limit(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.worker.runners.child.HARD_LIMIT_AFTER_S", 0.2)
    note = tmp_path / "program"
    assert stage.run(call("start_a_program", note, timeout=0.5)).ending is Ending.TIMED_OUT
    await_true(lambda: has_ended(int(note.read_text())))


def test_program_that_a_job_left_behind_ends_with_its_child(stage: Stage) -> None:
    child, program = result(stage, "leave_a_program")
    assert not has_ended(program)
    os.kill(child, signal.SIGKILL)
    assert result(stage, "where") != child
    await_true(lambda: has_ended(program))


def test_child_whose_job_closed_its_line_is_ended_and_charged(stage: Stage) -> None:
    outcome = stage.run(call("close_everything"))
    assert outcome.ending is Ending.CRASHED


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


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


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
