"""What becomes of values that cannot be kept, whatever runner they come from."""

import logging
import math
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.client import Penstock
from penstock.context import current_job
from penstock.model.outcome import Ending, Outcome
from penstock.worker.execution import shown
from penstock.worker.runners.thread import ThreadRunner
from tests.worker.harness import Stage, claim

ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no text for you")


class Boundless:
    """Cannot be looked at while it is written."""

    def __fspath__(self) -> str:
        raise LookupError("gone")


@pytest.fixture
def run() -> Iterator[Callable[[Callable[[], Any]], Outcome]]:
    stages: list[Stage] = []

    def run(function: Callable[[], Any]) -> Outcome:
        app = Penstock("memory://")
        app.task(name="shop.count")(function)
        stages.append(Stage(lambda around: ThreadRunner(around, 0, 1), app.tasks))
        return stages[-1].run(claim("thread.tell", task="shop.count"))

    yield run
    for stage in stages:
        stage.close()


@pytest.mark.parametrize(
    ("value", "gave", "why"),
    [
        (math.nan, "gave nan", "JSON has no such number"),
        ({"a": [1, math.inf]}, "gave {'a': [1, inf]}", "holds inf at a[1]"),
        (2**70, "gave 1180591620717411303424", "an integer beyond 64 bits"),
        ("\ud800", r"gave '\ud800'", "a lone surrogate"),
        (ENDLESS, "gave [[[[", "nested deeper than 64"),
        ("x" * 2_000_000, "gave 'xxxxxxxxxxxx...", "over the limit of 1,048,576"),
        (sqlite3.Binary, "which cannot be kept", "cannot be written as JSON"),
        (Hostile(), "gave <Hostile instance at 0x", "cannot be written as JSON"),
        (Boundless(), "gave <", "gone"),
    ],
    ids=["nan", "infinity", "integer", "surrogate", "endless", "large", "type", "hostile", "failing"],
)
def test_result_that_cannot_be_kept_buries_the_job_with_task_and_value(
    run: Callable[[Any], Outcome], value: Any, gave: str, why: str
) -> None:
    outcome = run(lambda: value)
    assert (outcome.ending, outcome.verdict, outcome.result) == (Ending.FAILED, "bury", None)
    assert outcome.error is not None
    message = outcome.error.message
    assert message.startswith("Task 'shop.count' ran to its end and gave ")
    assert gave in message
    assert why in message
    assert "The job is not run again, because its work is done; mend what the task gives." in message
    assert len(message) < 1000


def test_progress_that_is_no_number_buries_the_job(run: Callable[[Any], Outcome]) -> None:
    outcome = run(lambda: current_job().progress(math.nan, 4))
    assert (outcome.ending, outcome.verdict) == (Ending.FAILED, "bury")
    assert outcome.error is not None
    assert "Task 'shop.count' reports progress with done=nan, which is no finite number" in outcome.error.message


def test_job_that_catches_the_refusal_of_its_progress_goes_on(run: Callable[[Any], Outcome]) -> None:
    def work() -> str:
        try:
            current_job().progress(0, math.inf)
        except Exception as error:  # noqa: BLE001 - as jobs do
            logging.getLogger("shop").warning("%s", error)
        return "done"

    assert run(work).result == b'"done"'


def test_value_that_no_repr_shows_is_named_by_its_class() -> None:
    class array:  # reprlib shows it as it would the class of the library
        pass

    assert shown(array()) == (
        "a test_value_that_no_repr_shows_is_named_by_its_class.<locals>.array that cannot be shown (AttributeError)"
    )
