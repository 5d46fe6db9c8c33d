"""The rules that every runner keeps, and those of each."""

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.model.outcome import Ending, Outcome
from penstock.worker.execution import found_unfit
from penstock.worker.logs import capture_job_logs
from penstock.worker.process import Spawner
from penstock.worker.runners.child import ChildRunner
from penstock.worker.runners.command import CommandRunner
from penstock.worker.runners.contract import Runner, Surroundings
from penstock.worker.runners.loop import LoopRunner
from penstock.worker.runners.thread import ThreadRunner
from tests.polling import await_true
from tests.worker.harness import Stage, claim, descriptors_left, open_files, plan

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


@contextlib.contextmanager
def alone(kind: str, **fields: Any) -> Iterator[Stage]:
    """A runner with surroundings of its own."""
    stage = Stage(lambda around: make(kind, around), **fields)
    yield stage
    stage.close()


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


@pytest.mark.parametrize("kind", ["loop"])
def test_loop_that_a_task_stops_runs_on(stage: Stage, kind: str) -> None:
    """A loop that has gone takes every job of its process with it, and the next worker, as the job comes again."""
    assert stage.run(claim("loop.stop_loop")).ending is Ending.SUCCEEDED
    assert stage.run(claim(f"{kind}.give", 1)).result == b"1"


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
def test_child_that_dies_is_a_crash_in_words(stage: Stage, kind: str, tmp_path: Path) -> None:  # noqa: ARG001
    """The idle child beside it dies too; the next job may be on its way there and must not pay for that."""
    job = claim("process.wait_for", tmp_path / "gate")
    stage.runner.start([job])
    await_true((tmp_path / "gate.started").exists)
    for pid in children():
        if "penstock.worker.child" in command_line(pid):
            os.kill(pid, signal.SIGKILL)
    _, outcome = stage.next()
    assert outcome.ending is Ending.CRASHED
    assert "killed by signal 9 (SIGKILL)" in error_of(outcome).message
    assert stage.run(claim("process.give", 3)).result == b"3"


def test_child_that_ignores_its_timeout_is_killed() -> None:
    with alone("process", hard_limit_s=0.3) as stage:
        assert stage.run(claim("process.block", timeout=0.2)).ending is Ending.TIMED_OUT


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


def test_command_that_ignores_sigterm_is_killed() -> None:
    with alone("command", hard_limit_s=0.3) as stage:
        assert stage.run(claim("command.ignore", timeout=0.3)).ending is Ending.TIMED_OUT


@pytest.mark.filterwarnings("error")
def test_command_that_cannot_be_watched_is_ended_and_its_job_told() -> None:
    """Other threads may take the last descriptors between its start and its first word."""
    limits, pids = contextlib.ExitStack(), list[int]()

    def spawn(argv: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(argv, **options)
        pids.append(process.pid)
        limits.enter_context(descriptors_left(0))
        return process

    stage = Stage(lambda around: CommandRunner(around, 0, 1, spawn=spawn))
    before = open_files()
    with limits:
        outcome = stage.run(claim("command.linger", 60))
    assert (outcome.ending, error_of(outcome).failure_class) == (Ending.RELEASED, "host")
    assert "Too many open files" in error_of(outcome).message
    assert not Path(f"/proc/{pids[0]}").exists()
    assert stage.board.groups() == []
    await_true(lambda: open_files() <= before)
    stage.runner.start([claim("command.give", 1)])
    with limits:
        stage.next()
    stage.close()


@pytest.mark.parametrize("kind", ["process", "command"])
def test_place_survives_what_nobody_thought_of(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """A claim that is never delivered holds its place for good."""

    def spawn(*_given: Any, **_options: Any) -> Any:
        raise RuntimeError("nobody thought of this")

    def make_one(around: Surroundings) -> Runner:
        if kind == "process":
            return ChildRunner(around, 0, 1, plan=plan(), spawn=spawn)
        return CommandRunner(around, 0, 1, spawn=spawn)

    stage = Stage(make_one)
    for _ in range(2):
        job = claim(f"{kind}.give", 1)
        assert stage.run(job).ending is Ending.FAILED
        assert job.id in caplog.text
    assert stage.board.running() == []
    stage.close()


def test_program_that_no_system_would_start_is_the_fault_of_whoever_asked() -> None:
    """The main thread of a process starts programs for all its other threads."""
    spawner, raised = Spawner(), list[Exception]()

    def ask() -> None:
        try:
            spawner.spawn(["a\0b"])
        except Exception as error:  # noqa: BLE001 - whatever comes is looked at
            raised.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    spawner.serve()
    asking.join(10)
    assert [type(error) for error in raised] == [ValueError]
    spawner._ours.close()
    spawner._theirs.close()


def test_result_of_a_command_may_be_as_large_as_the_application_allows() -> None:
    with alone("command", max_payload=4_000_000) as stage:
        assert "is not one JSON value" in error_of(stage.run(claim("command.flood"))).message
    with alone("command", max_payload=2_000_000) as stage:
        assert "over the limit of 2,000,000" in error_of(stage.run(claim("command.flood"))).message


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
