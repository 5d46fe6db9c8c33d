"""The rules that every runner keeps, and those of each."""

import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.model.outcome import Ending, Outcome
from penstock.worker.execution import found_unfit
from penstock.worker.logs import capture_job_logs
from penstock.worker.runners.child import ChildRunner
from penstock.worker.runners.command import CommandRunner
from penstock.worker.runners.contract import Runner, Surroundings
from penstock.worker.runners.loop import LoopRunner
from penstock.worker.runners.thread import ThreadRunner
from tests.worker.harness import Stage, claim, plan

PYTHON = ("thread", "loop", "process")
ALL = (*PYTHON, "command")


def make(kind: str, around: Surroundings) -> Runner:
    match kind:
        case "thread":
            return ThreadRunner(around, 0, 2)
        case "loop":
            return LoopRunner(around, 0, 2)
        case "process":
            return ChildRunner(around, 0, 2, plan=plan(), spawn=subprocess.Popen)
        case _:
            return CommandRunner(around, 0, 2, spawn=subprocess.Popen)


@pytest.fixture(scope="module")
def stages() -> Iterator[dict[str, Stage]]:
    made = {kind: Stage(lambda around, kind=kind: make(kind, around)) for kind in ALL}
    capture = capture_job_logs()
    yield made
    logging.getLogger().removeHandler(capture)
    for stage in made.values():
        stage.close()


@pytest.fixture
def stage(stages: dict[str, Stage], kind: str) -> Iterator[Stage]:
    yield stages[kind]
    assert stages[kind].board.running() == []


python_runners = pytest.mark.parametrize("kind", PYTHON)
all_runners = pytest.mark.parametrize("kind", ALL)


def error_of(outcome: Outcome) -> Any:
    assert outcome.error is not None
    return outcome.error


@all_runners
def test_result_is_what_the_task_returned(stage: Stage, kind: str) -> None:
    outcome = stage.run(claim(f"{kind}.give", {"a": [1, None, "é"]}))
    assert outcome.ending is Ending.SUCCEEDED
    assert outcome.result == '{"a":[1,null,"é"]}'.encode()
    assert outcome.ran_us > 0


@all_runners
def test_token_of_a_job_that_ended_stays_known_as_started(stage: Stage, kind: str) -> None:
    job = claim(f"{kind}.give", 1)
    stage.run(job)
    assert job.fence.token in stage.board.started()


@all_runners
def test_result_that_is_no_json_buries_the_job_because_its_work_is_done(stage: Stage, kind: str) -> None:
    outcome = stage.run(claim(f"{kind}.give_unserialisable"))
    assert (outcome.ending, outcome.verdict, outcome.result) == (Ending.FAILED, "bury", None)
    message = error_of(outcome).message
    assert f"{kind}.give_unserialisable" in message
    assert "JSON" in message
    assert "is not run again, because its" in message


@all_runners
def test_job_over_its_timeout_is_interrupted(stage: Stage, kind: str) -> None:
    outcome = stage.run(claim(f"{kind}.linger", 30, timeout=0.3))
    assert outcome.ending is Ending.TIMED_OUT
    assert error_of(outcome).message == "ran longer than its timeout of 300ms"
    assert error_of(outcome).kind == "timed out"


@all_runners
def test_cancelled_job_ends_cancelled(stage: Stage, kind: str) -> None:
    job = claim(f"{kind}.linger", 30)
    stage.runner.start([job])
    stage.await_running()
    stage.runner.cancel(job.fence)
    _, outcome = stage.next()
    assert outcome.ending is Ending.CANCELLED
    assert outcome.cancel_requested


@all_runners
def test_interrupted_job_is_released(stage: Stage, kind: str) -> None:
    stage.runner.start([claim(f"{kind}.linger", 30)])
    stage.await_running()
    stage.runner.interrupt()
    _, outcome = stage.next()
    assert (outcome.ending, outcome.started) == (Ending.RELEASED, True)
    assert found_unfit(outcome) is None


@all_runners
def test_slot_works_on_after_an_interrupt(stage: Stage, kind: str) -> None:
    stage.run(claim(f"{kind}.linger", 30, timeout=0.1))
    assert [stage.run(claim(f"{kind}.give", n)).result for n in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


@all_runners
def test_waiting_claims_can_be_withdrawn(stage: Stage, kind: str) -> None:
    running = [claim(f"{kind}.linger", 30) for _ in range(2)]
    stage.runner.start(running)
    stage.await_running(2)
    waiting = [claim(f"{kind}.give", n) for n in range(3)]
    stage.runner.start(waiting)
    assert stage.runner.waits()
    assert stage.runner.withdraw() == waiting
    assert not stage.runner.waits()
    stage.runner.interrupt()
    assert {stage.next()[0].id for _ in running} == {job.id for job in running}


@all_runners
def test_corrupt_envelope_is_buried(stage: Stage, kind: str) -> None:
    outcome = stage.run(claim(f"{kind}.give", 1, crc=7))
    assert (outcome.ending, outcome.verdict) == (Ending.FAILED, "bury")
    assert "CRC" in error_of(outcome).message


@all_runners
def test_envelope_of_a_newer_version_is_put_off(stage: Stage, kind: str) -> None:
    outcome = stage.run(claim(f"{kind}.give", 1, envelope=b'{"v":2,"task":"x"}', crc=None))
    assert (outcome.ending, outcome.after_ms, outcome.started) == (Ending.SNOOZED, 30_000, False)


@python_runners
def test_arguments_that_do_not_fit_are_left_to_the_policy(stage: Stage, kind: str) -> None:
    """The next worker may know another version of the task."""
    envelope = b'{"v":1,"task":"x","args":[1,2,3]}'
    outcome = stage.run(claim(f"{kind}.fail", "x", envelope=envelope, crc=None))
    assert (outcome.ending, outcome.verdict) == (Ending.FAILED, None)
    assert "penstock.model.errors.ArgumentsInvalid" in outcome.names
    assert "does not take these arguments" in error_of(outcome).message


@python_runners
def test_exception_fails_with_its_name_bases_and_traceback(stage: Stage, kind: str) -> None:
    outcome = stage.run(claim(f"{kind}.fail", "gone"))
    assert outcome.ending is Ending.FAILED
    assert outcome.names == ("builtins.LookupError", "builtins.Exception", "builtins.BaseException")
    assert (error_of(outcome).type, error_of(outcome).message) == ("builtins.LookupError", "gone")
    assert "raise LookupError(message)" in error_of(outcome).traceback
    assert "penstock/worker" not in error_of(outcome).traceback


@python_runners
@pytest.mark.parametrize("kind_of_exit", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_exit_of_the_interpreter_is_a_failure(stage: Stage, kind: str, kind_of_exit: str) -> None:
    outcome = stage.run(claim(f"{kind}.fail_hard", kind_of_exit))
    assert outcome.ending is Ending.FAILED
    assert error_of(outcome).type == f"builtins.{kind_of_exit}"


@python_runners
def test_exception_that_cannot_be_shown_is_bounded_text(stage: Stage, kind: str) -> None:
    outcome = stage.run(claim(f"{kind}.fail_hostile"))
    assert outcome.ending is Ending.FAILED
    assert error_of(outcome).type == "tests.worker.jobs.HostileError"
    assert "RuntimeError" in error_of(outcome).message


@python_runners
def test_endless_recursion_and_groups_are_bounded_text(stage: Stage, kind: str) -> None:
    deep = stage.run(claim(f"{kind}.recurse"))
    assert error_of(deep).type == "builtins.RecursionError"
    many = stage.run(claim(f"{kind}.fail_many"))
    assert error_of(many).type == "builtins.ExceptionGroup"
    assert r"a \ud800 surrogate" in error_of(many).traceback
    for outcome in (deep, many):
        assert len(error_of(outcome).traceback) <= 16 * 1024


@python_runners
@pytest.mark.parametrize(
    ("how", "ending", "verdict", "after_ms"),
    [
        ("retry", Ending.FAILED, "retry", 5000),
        ("snooze", Ending.SNOOZED, None, 7000),
        ("bury", Ending.FAILED, "bury", None),
        ("cancel", Ending.CANCELLED, None, None),
        ("unfit", Ending.RELEASED, None, None),
        ("badly", Ending.FAILED, "bury", None),
    ],
)
def test_task_steers_its_job(
    stage: Stage, kind: str, how: str, ending: Ending, verdict: str | None, after_ms: int | None
) -> None:
    outcome = stage.run(claim(f"{kind}.steer", how))
    assert (outcome.ending, outcome.verdict, outcome.after_ms) == (ending, verdict, after_ms)
    assert found_unfit(outcome) == ("disk is full" if how == "unfit" else None)


@python_runners
def test_progress_and_log_reach_the_notes_before_the_outcome(stage: Stage, kind: str) -> None:
    job = claim(f"{kind}.tell")
    outcome = stage.run(job)
    assert outcome.result == f'"{job.id}"'.encode()
    notes = [note for note in stage.notes if note[0] == job.id]
    assert [note[1].note for note in notes if note[1]] == ["half"]
    text = "".join(note[2] for note in notes)
    assert "a line of its own" in text
    assert "a record of its own" in text


@pytest.mark.parametrize("kind", ["process"])
def test_child_that_dies_is_a_crash_in_words(stage: Stage, kind: str) -> None:  # noqa: ARG001
    """The idle child beside it dies too; the next job may be on its way there and must not pay for that."""
    job = claim("process.linger", 30)
    stage.runner.start([job])
    stage.await_running()
    for pid in children():
        if "penstock.worker.child" in command_line(pid):
            os.kill(pid, signal.SIGKILL)
    _, outcome = stage.next()
    assert outcome.ending is Ending.CRASHED
    assert "killed by signal 9 (SIGKILL)" in error_of(outcome).message
    assert stage.run(claim("process.give", 3)).result == b"3"


@pytest.mark.parametrize("kind", ["process"])
def test_child_that_ignores_its_timeout_is_killed(
    stage: Stage,
    kind: str,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.worker.runners.child.HARD_LIMIT_AFTER_S", 0.3)
    outcome = stage.run(claim("process.block", timeout=0.2))
    assert outcome.ending is Ending.TIMED_OUT


@pytest.mark.parametrize("kind", ["command"])
def test_exit_status_decides_the_fate_of_a_command(stage: Stage, kind: str) -> None:  # noqa: ARG001
    failed = stage.run(claim("command.fail", 3))
    assert (failed.ending, failed.verdict) == (Ending.FAILED, None)
    assert error_of(failed).message == "the command exited with status 3"
    assert stage.run(claim("command.steer", "retry")).verdict == "retry"
    assert stage.run(claim("command.steer", "bury")).verdict == "bury"


@pytest.mark.parametrize("kind", ["command"])
def test_command_without_output_returns_null(stage: Stage, kind: str) -> None:  # noqa: ARG001
    assert stage.run(claim("command.quiet", 3)).result == b"null"


@pytest.mark.parametrize("kind", ["command"])
def test_command_that_does_not_exist_fails(stage: Stage, kind: str) -> None:  # noqa: ARG001
    outcome = stage.run(claim("command.missing"))
    assert outcome.ending is Ending.FAILED
    assert "/no/such/program: No such file or directory" in error_of(outcome).traceback


@pytest.mark.parametrize("kind", ["command"])
def test_command_that_ignores_sigterm_is_killed(
    stage: Stage,
    kind: str,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.worker.runners.command.HARD_LIMIT_AFTER_S", 0.3)
    assert stage.run(claim("command.ignore", timeout=0.3)).ending is Ending.TIMED_OUT


@pytest.mark.parametrize("kind", ["command"])
def test_output_of_a_command_is_bounded(stage: Stage, kind: str) -> None:  # noqa: ARG001
    outcome = stage.run(claim("command.flood"))
    assert "over the limit of 1,048,576" in error_of(outcome).message
    assert outcome.verdict == "bury"
    assert len(error_of(outcome).traceback) <= 8 * 1024


def test_interrupts_never_leave_their_job() -> None:
    """Jobs end at about the time of their limit, hundreds of times; each outcome is right and every slot survives."""
    stage = Stage(lambda around: ThreadRunner(around, 0, 4))
    for _ in range(12):
        batch = [claim("thread.linger", 0.021, timeout=0.02) for _ in range(20)]
        stage.runner.start(batch)
        endings = {stage.next()[1].ending for _ in batch}
        assert endings <= {Ending.SUCCEEDED, Ending.TIMED_OUT}
    assert stage.run(claim("thread.give", 1)).result == b"1"
    assert stage.board.running() == []
    stage.close()


def children() -> list[int]:
    lists = Path("/proc/self/task").glob("*/children")
    return [int(word) for path in lists for word in path.read_text().split()]


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
