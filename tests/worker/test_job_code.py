"""What job code does to a worker, row by row of the table in docs/explanation/worker.md, on each runner.

The rows J1 to J14 are named in the ids of the tests. What other tests show of them stands in that table.
"""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.model.job import ErrorInfo
from penstock.model.outcome import Ending, Outcome
from penstock.worker.runners.child import ChildRunner
from penstock.worker.runners.contract import Runner, Surroundings
from penstock.worker.runners.loop import LoopRunner
from penstock.worker.runners.thread import ThreadRunner
from tests.worker import ill_mannered
from tests.worker.harness import Stage, call_of, plan

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
