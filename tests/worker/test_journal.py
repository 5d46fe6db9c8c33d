"""The line of a finished attempt: what happened, and what happens next."""

import logging
from typing import Any

import pytest

from penstock.engine import Answer
from penstock.model.job import Claim, Counters, ErrorInfo
from penstock.model.outcome import Ending, Outcome
from penstock.model.retry import Policy
from penstock.model.settle import settle
from penstock.worker.journal import Journal
from tests.worker.harness import claim


def line(caplog: pytest.LogCaptureFixture, ending: Ending, held: Claim | None = None, **fields: Any) -> str:
    caplog.set_level(logging.INFO, "penstock.job")
    held = held or claim("thread.give", 1)
    outcome = Outcome(ending=ending, error=ErrorInfo(kind=ending.value, message="its worker vanished"), **fields)
    Journal().write([(held, outcome, settle(held, outcome, 0.5))], Answer())
    return caplog.messages[-1]


def test_lost_job_runs_again_free_of_charge(caplog: pytest.LogCaptureFixture) -> None:
    told = line(caplog, Ending.LOST)
    assert told.startswith("lost thread.give id=")
    assert 'then="runs again, free of charge" error=lost: its worker vanished' in told


def test_crashed_job_says_how_many_crashes_it_may_have(caplog: pytest.LogCaptureFixture) -> None:
    assert 'then="charged a crash, 1 of 3; runs again"' in line(caplog, Ending.CRASHED)


def test_second_loss_is_told_as_the_crash_that_it_is_charged(caplog: pytest.LogCaptureFixture) -> None:
    suspect = claim("thread.give", 1, counters=Counters(losses=1, suspect=True))
    assert 'then="charged a crash, 1 of 3; runs again"' in line(caplog, Ending.LOST, suspect)


def test_failed_job_says_how_many_failures_it_may_have(caplog: pytest.LogCaptureFixture) -> None:
    told = line(caplog, Ending.FAILED, claim("thread.give", 1, policy=Policy(max_attempts=2)))
    assert 'then="charged a failure, 1 of 2; runs again"' in told


def test_buried_job_says_who_must_look(caplog: pytest.LogCaptureFixture) -> None:
    told = line(caplog, Ending.FAILED, claim("thread.give", 1, policy=Policy(max_attempts=1)))
    assert told.startswith("buried (failed) ")
    assert 'then="kept for a person, see penstock jobs show"' in told


def test_released_job_runs_again_and_succeeded_one_needs_no_word(caplog: pytest.LogCaptureFixture) -> None:
    assert 'then="runs again, free of charge"' in line(caplog, Ending.RELEASED)
    assert "then=" not in line(caplog, Ending.SUCCEEDED, result=b"1")
