"""What is kept of an attempt that took its process down, or hung until that was killed."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.model.job import Claim, Evidence
from penstock.model.outcome import Ending, Outcome
from penstock.worker.board import Board
from penstock.worker.forensics import Remains, is_stopped
from penstock.worker.runners.child import ChildRunner
from penstock.worker.runners.command import CommandRunner
from penstock.worker.runners.loop import LoopRunner
from penstock.worker.scene import survey
from penstock.worker.stacks import LONGEST_STACKS, arrange, where
from penstock.worker.words import WORDS_KEPT
from tests.polling import await_true
from tests.worker import ill_mannered
from tests.worker.harness import Stage, call_of, claim, plan


@pytest.fixture
def stage() -> Iterator[Stage]:
    given = plan(app="tests.worker.ill_mannered:app")
    stage = Stage(
        lambda around: ChildRunner(around, 0, 1, plan=given, spawn=subprocess.Popen),
        ill_mannered.app.tasks,
        hard_limit_s=0.3,
    )
    yield stage
    stage.close()


def call(task: str, *args: object, timeout: float = 60) -> Claim:
    return call_of(ill_mannered.app, task, *args, timeout=timeout)


def evidence_of(outcome: Outcome) -> Evidence:
    assert outcome.error is not None
    assert outcome.error.evidence is not None
    return outcome.error.evidence


def test_fault_in_c_is_told_with_the_line_that_called_it_and_the_last_words(stage: Stage) -> None:
    outcome = stage.run(call("process.touch_nothing"))
    assert outcome.ending is Ending.CRASHED
    found = evidence_of(outcome)
    assert found.status == -signal.SIGSEGV
    assert found.cause.startswith("often a fault in a C extension, last in string_at (__init__.py:")
    assert "called from touch_nothing (ill_mannered.py:" in found.cause
    assert "in touch_nothing" in found.stacks.split("\n\n")[0]
    assert "about to fault" in found.log
    assert found.ran_us > 0


def test_exit_in_the_middle_of_a_job_is_told_with_its_status(stage: Stage) -> None:
    found = evidence_of(stage.run(call("process.leave", 0)))
    assert (found.status, found.stacks) == (0, "")
    assert found.cause == "its code ended the process, as os._exit does"
    assert found.log.endswith("WARNING about to leave\nwith 0\n")


def test_job_that_holds_the_interpreter_lock_is_told_with_where_it_held_it(stage: Stage, tmp_path: Path) -> None:
    outcome = stage.run(call("process.match_for_ever", tmp_path / "began", timeout=1))
    assert outcome.ending is Ending.TIMED_OUT
    found = evidence_of(outcome)
    assert found.cause.startswith("it ignored its time limit of 1s; it held the interpreter lock in match (")
    assert "called from match_for_ever (ill_mannered.py:" in found.cause
    assert "about to match" in found.log
    assert found.status == -signal.SIGKILL
    assert found.peak_bytes > 5_000_000
    assert 700_000 < found.ran_us < 20_000_000


def test_job_that_blocks_is_told_with_where_it_stood(stage: Stage, tmp_path: Path) -> None:
    found = evidence_of(stage.run(call("process.block", tmp_path / "began", timeout=1)))
    assert found.cause.startswith("it ignored its time limit of 1s; it stood in block (ill_mannered.py:")
    assert "in block" in found.stacks.split("\n\n")[0]


def test_coroutine_that_swallows_its_cancellation_is_told_with_what_it_awaited(tmp_path: Path) -> None:
    """No thread's stack shows it. It is the supervisor that ends its process, which is no matter here."""
    stage = Stage(lambda around: LoopRunner(around, 0, 2), ill_mannered.app.tasks, hard_limit_s=0.2)
    job = call("loop.swallow_cancellation", tmp_path / "began", timeout=0.2)
    stage.runner.start([job])
    await_true(lambda: "Coroutine of job" in stage.board.behind())
    found = survey(stage.board, Remains(signal.SIGKILL), complaint="it hung")
    cause = found.evidence(job.id).cause
    assert cause.startswith("it hung; it stood in sleep (tasks.py:")
    assert "called from stay_at_the_door (ill_mannered.py:" in cause
    (tmp_path / "began.over").touch()
    stage.runner.cancel(job.fence)
    stage.next()
    stage.close()


def test_child_that_was_stopped_is_told_with_where_it_stood(stage: Stage, tmp_path: Path) -> None:
    """It goes on for a moment to tell; a job that could be interrupted would end then."""
    job = call("process.refuse_signals", tmp_path / "began", timeout=1)
    stage.runner.start([job])
    await_true((tmp_path / "began").exists)
    (child,) = stage.board.groups()
    os.kill(child, signal.SIGSTOP)
    await_true(lambda: is_stopped(child))
    found = evidence_of(stage.next()[1])
    assert "refuse_signals (ill_mannered.py:" in found.cause


def test_command_that_ignores_its_limit_is_told_with_what_it_said_last() -> None:
    stage = Stage(lambda around: CommandRunner(around, 0, 1, spawn=subprocess.Popen), hard_limit_s=0.3)
    found = evidence_of(stage.run(claim("command.ignore", timeout=0.5)))
    assert (found.status, found.log) == (-signal.SIGKILL, "ready\n")
    assert found.cause == "its time was out, and it did not end at SIGTERM"
    assert found.ran_us > 500_000
    stage.close()


def test_stacks_are_bounded_with_those_of_the_job_first() -> None:
    other = "Thread 0x0000000000000001 (most recent call first):\n" + '  File "/a.py", line 1 in other\n' * 1000
    own = 'Current thread 0x0000000000000002 (most recent call first):\n  File "/b.py", line 7 in work'
    text = arrange(f"Fatal Python error: Aborted\n\n{other}\n{own}\n\nExtension modules: a (total: 1)\n", thread=2)
    assert text.startswith(own)
    assert where(text) == "in work (b.py:7)"
    assert len(text) <= LONGEST_STACKS
    assert where("") == ""


def test_last_words_are_bounded_whole_lines_and_of_their_own_job() -> None:
    board = Board.create(2)
    board.occupy(1, -5, "job", 0)
    for number in range(1000):
        board.say(-5, f"line {number}\n")
    board.say(99, "of nobody\n")
    evidence = survey(board, Remains(signal.SIGKILL)).evidence("job")
    lines = evidence.log.splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("line 980", "line 999", 20)
    (shown,) = board.running()
    assert len(board.last_words(shown)) <= WORDS_KEPT
    assert board.last_words(shown).startswith("line ")
    board.occupy(1, 6, "next", 0)
    assert survey(board, Remains(signal.SIGKILL)).evidence("next").log == ""
    board.say(6, "é" * 10_000)
    assert set(survey(board, Remains(signal.SIGKILL)).evidence("next").log) <= {"é", "\ufffd"}
    board.close()
