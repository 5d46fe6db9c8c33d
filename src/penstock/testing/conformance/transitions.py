"""Every row of the transition table, and every alteration from a state that the table does not name."""

import pytest

from penstock.engine import Alteration, Altered, Bury, Cancel, Delete, Edit, Kick, Reschedule, Upgrade
from penstock.model.job import JobId
from penstock.model.outcome import Ending
from penstock.model.retry import Policy, Stage
from penstock.model.states import TRANSITIONS, Cause, State
from penstock.testing.conformance.trial import Conformance, Trial, new_job

ALTERATIONS: dict[Cause, Alteration] = {
    Cause.CANCEL: Cancel(),
    Cause.KICK: Kick(),
    Cause.UPGRADE: Upgrade(),
    Cause.EDIT: Edit(priority=9),
    Cause.RESCHEDULE: Reschedule(delay_ms=5000),
    Cause.BURY: Bury("enough"),
    Cause.DELETE: Delete(),
}

ENDINGS: dict[Cause, Ending] = {
    Cause.SUCCEED: Ending.SUCCEEDED,
    Cause.RETRY: Ending.FAILED,
    Cause.SNOOZE: Ending.SNOOZED,
    Cause.RELEASE: Ending.RELEASED,
    Cause.FALL_BACK: Ending.FAILED,
    Cause.LOSE: Ending.LOST,
    Cause.CRASH: Ending.CRASHED,
    Cause.CANCEL: Ending.CANCELLED,
}

SIMPLER = Stage("simple", "default", Policy(max_attempts=1))

Row = tuple[State | None, Cause, State | None]

# Blocked jobs wait for parents; their rows join when an engine declares that capability.
ROWS: list[Row] = [
    (before, cause, after)
    for (before, cause), results in TRANSITIONS.items()
    for after in sorted(results, key=str)
    if State.BLOCKED not in (before, after)
]

# What a person may do; the table's other causes move a running job from within.
BY_HAND = {key for key in TRANSITIONS if key[0] is not State.RUNNING} | {(State.RUNNING, Cause.CANCEL)}

REFUSED = [
    (before, cause)
    for before in State
    for cause in ALTERATIONS
    if before is not State.BLOCKED and (before, cause) not in BY_HAND
]


def _name(value: object) -> str:
    return "none" if value is None else str(value).replace(" ", "-")


class Transitions(Conformance):
    @pytest.mark.parametrize(("before", "cause", "after"), ROWS, ids=_name)
    def test_table_row_is_kept(self, trial: Trial, before: State | None, cause: Cause, after: State | None) -> None:
        id = bring(trial, before, cause)
        assert trial.state(id) is before
        move(trial, id, before, cause, after)
        assert trial.state(id) is after
        assert trial.counts() == trial.recount()

    @pytest.mark.parametrize(("before", "cause"), REFUSED, ids=_name)
    def test_alteration_that_the_table_does_not_hold_changes_nothing(
        self, trial: Trial, before: State, cause: Cause
    ) -> None:
        id = bring(trial, before, cause)
        job = trial.job(id)
        altered = trial.alter(id, ALTERATIONS[cause])
        assert (altered.id, altered.before, altered.after) == (id, before, before)
        assert altered.refused is not None
        assert before.value in altered.refused
        assert trial.job(id) == job


def bring(trial: Trial, state: State | None, cause: Cause) -> JobId:
    """Give the id of a job that stands in `state` and to which `cause` can happen."""
    id = JobId("job")
    if state is not None:
        expires = cause is Cause.EXPIRE or state is State.EXPIRED
        last = state is State.BURIED or (state is State.RUNNING and cause in (Cause.BURY, Cause.FALL_BACK))
        fallbacks = (SIMPLER,) if cause in (Cause.FALL_BACK, Cause.UPGRADE) and (state, cause) in TRANSITIONS else ()
        trial.add(
            new_job(
                id,
                delay_ms=2000 if state is State.SCHEDULED else 0,
                expires_in_ms=1000 if expires else None,
                policy=Policy(max_attempts=1 if last or fallbacks else 5, fallbacks=fallbacks),
            )
        )
        if cause is Cause.UPGRADE and fallbacks:
            trial.end(trial.claim_one(), Ending.FAILED)
        _reach(trial, state)
    return id


def _reach(trial: Trial, state: State) -> None:
    match state:
        case State.EXPIRED:
            trial.clock.turn(1000)
            trial.tend()
        case State.RUNNING:
            trial.claim_one()
        case State.SUCCEEDED | State.CANCELLED | State.BURIED:
            ending = {State.SUCCEEDED: Ending.SUCCEEDED, State.CANCELLED: Ending.CANCELLED}.get(state, Ending.FAILED)
            trial.end(trial.claim_one(), ending)


def move(trial: Trial, id: JobId, before: State | None, cause: Cause, after: State | None) -> None:
    """Let `cause` happen to the job."""
    if before is State.RUNNING:
        _end(trial, cause, after)
    elif cause is Cause.KICK and after is State.SCHEDULED:
        assert trial.alter(id, Kick(delay_ms=5000)) == Altered(id, before, after)
    elif cause in ALTERATIONS:
        assert trial.alter(id, ALTERATIONS[cause]) == Altered(id, before, after)
    elif cause is Cause.ADD:
        trial.add(new_job(id, delay_ms=5000 if after is State.SCHEDULED else 0))
    elif cause is Cause.CLAIM:
        trial.claim_one()
    else:
        trial.clock.turn(2000 if cause is Cause.DUE else 1000)
        trial.tend()


def _end(trial: Trial, cause: Cause, after: State | None) -> None:
    [claim] = trial.repeat().claims
    ending = Ending.FAILED if cause is Cause.BURY else ENDINGS[cause]
    after_ms = 100 if after is State.SCHEDULED else 0
    trial.end(claim, ending, after_ms=after_ms)
