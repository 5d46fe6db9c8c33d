"""The watch over an event loop: who blocks it is named, and charged with what the others could not keep."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.model.outcome import Ending
from penstock.worker.runners.loop import LoopRunner
from tests.polling import await_true
from tests.worker import ill_mannered
from tests.worker.harness import Stage, call_of


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage(lambda around: LoopRunner(around, 0, 3), ill_mannered.app.tasks)
    yield stage
    stage.close()


def test_coroutine_that_blocks_the_loop_is_named_with_where_it_stands(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = call_of(ill_mannered.app, "loop.block_the_loop", tmp_path / "gate")
    stage.runner.start([job])
    await_true(lambda: "has blocked the event loop" in caplog.text)
    (tmp_path / "gate.over").touch()
    assert stage.next()[1].ending is Ending.SUCCEEDED
    assert f"job {job.id} of task loop.block_the_loop has blocked" in caplog.text
    assert "in block_the_loop" in caplog.text


def test_limit_that_a_blocked_loop_could_not_keep_is_charged_to_who_blocks_it(stage: Stage, tmp_path: Path) -> None:
    other = call_of(ill_mannered.app, "loop.sleep", 60, timeout=0.2)
    blocking = call_of(ill_mannered.app, "loop.block_the_loop", tmp_path / "gate", timeout=None)
    stage.runner.start([other, blocking])
    await_true(lambda: limits(stage).get(blocking.id) is not None)
    assert limits(stage)[other.id] is None
    (tmp_path / "gate.over").touch()
    ended = {claim.id: outcome.ending for claim, outcome in (stage.next(), stage.next())}
    assert ended == {other.id: Ending.TIMED_OUT, blocking.id: Ending.SUCCEEDED}


def test_limits_count_from_the_moment_at_which_a_blocked_loop_goes_on(stage: Stage, tmp_path: Path) -> None:
    other = call_of(ill_mannered.app, "loop.swallow_cancellation", tmp_path / "other", timeout=0.2)
    blocking = call_of(ill_mannered.app, "loop.block_the_loop", tmp_path / "gate", timeout=None)
    stage.runner.start([other, blocking])
    await_true(lambda: limits(stage).get(blocking.id) is not None)
    (due,) = [limit for limit in limits(stage).values() if limit is not None]
    (tmp_path / "gate.over").touch()
    assert stage.next()[0] is blocking
    await_true(lambda: (limits(stage)[other.id] or 0) > due)
    (tmp_path / "other.over").touch()
    stage.runner.cancel(other.fence)
    stage.next()


def test_loop_runs_on_after_an_exit_in_a_task_of_a_job(stage: Stage) -> None:
    outcome = stage.run(call_of(ill_mannered.app, "loop.exit_in_a_task"))
    assert outcome.ending is Ending.FAILED
    assert outcome.error is not None
    assert outcome.error.type == "builtins.SystemExit"
    assert stage.run(call_of(ill_mannered.app, "loop.sleep", 0)).ending is Ending.SUCCEEDED


def limits(stage: Stage) -> dict[str, int | None]:
    return {shown.id: shown.deadline_ns for shown in stage.board.running()}
