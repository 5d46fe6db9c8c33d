"""The one decision on every ended attempt: what becomes of its job."""

from typing import Final, assert_never

from msgspec.structs import replace

from penstock.model.durations import LONGEST_S
from penstock.model.groups import grouped
from penstock.model.job import NO_COUNTERS, Change, Claim, Counters, ErrorInfo, Home, Move
from penstock.model.outcome import Ending, Outcome
from penstock.model.retry import Policy
from penstock.model.states import Cause, State

#: Looked up once: in Python 3.11 reading a member of an enum costs as much as making a value, and nearly every job
#: succeeds at its first attempt.
_SUCCEEDED: Final = Ending.SUCCEEDED
_SUCCEED, _ENDS_WELL = Cause.SUCCEED, State.SUCCEEDED
_STARTED_ONCE = Counters(attempts=1)


#: How many workers that were unfit for a job it passes by.
AVOIDED_KEPT = 5


def settle(claim: Claim, outcome: Outcome, luck: float) -> Change:
    """Decide what an outcome makes of its job, with the policy that is stored with it.

    Args:
        claim: what was held on the job while it ran.
        outcome: how the attempt ended.
        luck: a random number from 0 to 1, for the jitter of the backoff.
    """
    if outcome.ending is _SUCCEEDED:
        return _succeeded(claim, outcome)
    match outcome.ending:
        case Ending.FAILED | Ending.TIMED_OUT:
            return _failed(claim, outcome, luck)
        case Ending.CRASHED:
            return _crashed(claim, outcome)
        case Ending.LOST:
            return _lost(claim, outcome)
        case Ending.SNOOZED:
            return _snoozed(claim, outcome)
        case Ending.RELEASED:
            return _released(claim, outcome)
        case Ending.CANCELLED:
            counters = _started(claim) if outcome.started else claim.counters
            return _end(claim, outcome, Cause.CANCEL, State.CANCELLED, counters)
        case _ as unknown:
            assert_never(unknown)


def _succeeded(claim: Claim, outcome: Outcome) -> Change:
    return Change(
        id=claim.id,
        fence=claim.fence,
        cause=_SUCCEED,
        next=_ENDS_WELL,
        counters=_started(claim),
        result=outcome.result,
        degraded=claim.task if claim.stage else None,
        ran_us=outcome.ran_us,
    )


def _failed(claim: Claim, outcome: Outcome, luck: float) -> Change:
    policy, counters = claim.terms, _started(claim)
    counters = replace(counters, failures=counters.failures + 1)
    if outcome.cancel_requested:
        return _end(claim, outcome, Cause.CANCEL, State.CANCELLED, counters)
    if outcome.verdict == "retry" and policy.at_most_once:
        return _end_once(claim, outcome, counters)
    if outcome.verdict == "bury":
        return _end(claim, outcome, Cause.BURY, State.BURIED, counters)
    given_up = outcome.verdict is None and not policy.retries(outcome.names)
    if given_up or counters.failures >= policy.max_attempts:
        return _give_up(claim, outcome, counters)
    after_ms = outcome.after_ms
    if after_ms is None:
        after_ms = _backoff_ms(policy, counters.failures, luck)
    return _again(claim, outcome, Cause.RETRY, counters, after_ms)


def _backoff_ms(policy: Policy, failures: int, luck: float) -> int:
    """Bound what a stored policy says: whoever settles must get an answer, however absurd the policy."""
    return round(min(max(0.0, policy.backoff.delay_s(failures, luck)), LONGEST_S) * 1000)


def _crashed(claim: Claim, outcome: Outcome) -> Change:
    counters = _started(claim)
    counters = replace(counters, crashes=counters.crashes + 1)
    if counters.crashes >= max(1, claim.terms.max_crashes):
        return _give_up(claim, outcome, counters)
    if outcome.cancel_requested:
        return _end(claim, outcome, Cause.CANCEL, State.CANCELLED, counters)
    return _again(claim, outcome, Cause.CRASH, counters, 0)


def _lost(claim: Claim, outcome: Outcome) -> Change:
    """Charge nothing for a first loss; nobody saw what had started, so "at most once" must assume that it had."""
    if claim.counters.suspect or claim.terms.at_most_once:
        return _crashed(claim, outcome)
    counters = replace(claim.counters, losses=claim.counters.losses + 1, suspect=True)
    return _again(claim, outcome, Cause.LOSE, counters, 0)


def _snoozed(claim: Claim, outcome: Outcome) -> Change:
    """Put the job off as its task asked, unless it would then start a second time although it must not."""
    counters = _started(claim) if outcome.started else claim.counters
    if outcome.started and claim.terms.at_most_once:
        return _end_once(claim, outcome, counters)
    counters = replace(counters, snoozes=counters.snoozes + 1)
    return _again(claim, outcome, Cause.SNOOZE, counters, outcome.after_ms or 0)


def _released(claim: Claim, outcome: Outcome) -> Change:
    """Give the job back free of charge; after a while, if this worker is one that it passes by."""
    if not outcome.started:
        return _again(claim, outcome, Cause.RELEASE, claim.counters, outcome.after_ms or 0)
    counters = _started(claim)
    if claim.terms.at_most_once:
        return _end_once(claim, outcome, counters)
    if outcome.cancel_requested:
        return _end(claim, outcome, Cause.CANCEL, State.CANCELLED, counters)
    counters = replace(counters, interruptions=counters.interruptions + 1)
    change = _again(claim, outcome, Cause.RELEASE, counters, outcome.after_ms or 0)
    if outcome.avoid is None:
        return change
    details = replace(claim.details, avoid=(*claim.details.avoid, outcome.avoid)[-AVOIDED_KEPT:])
    return replace(change, move=Move(claim.task, claim.queue, claim.stage, details))


def _give_up(claim: Claim, outcome: Outcome, counters: Counters) -> Change:
    """Hand a job that has failed for good to the fallback that takes such a failure, else bury it for a person."""
    failure = () if outcome.error is None else (outcome.error.failure_class,)
    stage = None if outcome.cancel_requested else claim.policy.next_stage(claim.stage, (*failure, *outcome.names))
    if stage is None:
        return _end(claim, outcome, Cause.BURY, State.BURIED, counters)
    fallback = claim.policy.fallbacks[stage - 1]
    details = claim.details
    if details.home is None:
        details = replace(details, home=Home(claim.task, claim.queue))
    change = _again(claim, outcome, Cause.FALL_BACK, counters.forgiven(), 0)
    return replace(change, move=Move(fallback.task, fallback.queue, stage, details))


def _end_once(claim: Claim, outcome: Outcome, counters: Counters) -> Change:
    """Bury a job that would otherwise run again, and say why: its code had begun, and it may begin only once."""
    told = outcome.error or ErrorInfo(kind=outcome.ending.value, attempt=claim.attempt)
    reason = f"{told.message}; " if told.message else ""
    message = f"{reason}{_WOULD[outcome.ending]}, but it may start only once (max_attempts=1, max_crashes=0)"
    return _end(claim, replace(outcome, error=replace(told, message=message)), Cause.BURY, State.BURIED, counters)


#: What would have become of a job whose attempt ended so.
_WOULD = {
    Ending.FAILED: "the task asked to be run again",
    Ending.TIMED_OUT: "the task asked to be run again",
    Ending.SNOOZED: "the task put itself off after it had started",
    Ending.RELEASED: "its worker stopped and gave it back after it had started",
}


def _started(claim: Claim) -> Counters:
    """Count one more started attempt. Made by hand: `replace` would cost each job that succeeds a microsecond more."""
    counters = claim.counters
    if counters is NO_COUNTERS:
        return _STARTED_ONCE
    return Counters(
        counters.attempts + 1,
        counters.failures,
        counters.crashes,
        counters.interruptions,
        counters.losses,
        counters.snoozes,
        counters.suspect,
    )


def _end(claim: Claim, outcome: Outcome, cause: Cause, state: State, counters: Counters) -> Change:
    error = outcome.error
    if state is State.BURIED and error is not None:
        error = grouped(claim.queue, claim.task, error)
    return Change(
        id=claim.id,
        fence=claim.fence,
        cause=cause,
        next=state,
        counters=counters,
        error=error,
        ran_us=outcome.ran_us,
    )


def _again(claim: Claim, outcome: Outcome, cause: Cause, counters: Counters, after_ms: int) -> Change:
    return Change(
        id=claim.id,
        fence=claim.fence,
        cause=cause,
        next=State.SCHEDULED if after_ms else State.READY,
        after_ms=after_ms,
        counters=counters,
        error=outcome.error,
        ran_us=outcome.ran_us,
    )
