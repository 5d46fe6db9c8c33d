import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple, replace

from penstock.model.durations import LONGEST_S
from penstock.model.groups import grouped
from penstock.model.job import Change, Claim, Counters, Details, ErrorInfo, Fence, Home, JobId, Move
from penstock.model.outcome import Ending, Outcome
from penstock.model.retry import Exponential, Fixed, Linear, Policy, Stage, Table
from penstock.model.settle import settle
from penstock.model.states import FINAL, Cause, State, allows

ERROR = ErrorInfo("failed", "shop.Declined", "no")
AT_MOST_ONCE = Policy(max_attempts=1, max_crashes=0)
FREE = (Ending.SNOOZED, Ending.RELEASED)


def claim(policy: Policy | None = None, **counters: Any) -> Claim:
    return Claim(
        id=JobId("j1"),
        fence=Fence(3, 7),
        task="shop.charge",
        queue="default",
        envelope=b"{}",
        crc=None,
        policy=policy or Policy(backoff=Fixed(2)),
        counters=Counters(**counters),
    )


def outcome(ending: Ending, **facts: Any) -> Outcome:
    return Outcome(ending=ending, **facts)


def verdict(change: Change) -> tuple[Cause, State, int]:
    return change.cause, change.next, change.after_ms


# -- each ending ------------------------------------------------------------------------------------------------------


def test_success_stores_the_result_and_counts_the_attempt() -> None:
    change = settle(claim(attempts=1, failures=1), outcome(Ending.SUCCEEDED, result=b"7", ran_us=12), 0.5)
    assert verdict(change) == (Cause.SUCCEED, State.SUCCEEDED, 0)
    assert (change.result, change.error, change.ran_us) == (b"7", None, 12)
    assert change.counters == Counters(attempts=2, failures=1)


def test_success_stands_although_the_job_was_asked_to_stop() -> None:
    change = settle(claim(), outcome(Ending.SUCCEEDED, result=b"7", cancel_requested=True), 0.5)
    assert change.next is State.SUCCEEDED


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.TIMED_OUT])
def test_failure_is_retried_after_its_backoff(ending: Ending) -> None:
    change = settle(claim(), outcome(ending, error=ERROR, ran_us=12), 0.5)
    assert verdict(change) == (Cause.RETRY, State.SCHEDULED, 2000)
    assert (change.error, change.ran_us, change.counters) == (ERROR, 12, Counters(attempts=1, failures=1))


def test_backoff_grows_with_the_failures_and_shrinks_with_luck() -> None:
    policy = Policy(backoff=Exponential(base_s=1))
    waits = [settle(claim(policy, failures=n), outcome(Ending.FAILED), 0.5).after_ms for n in range(4)]
    assert waits == [500, 1000, 2000, 4000]


def test_failure_with_no_backoff_is_ready_at_once() -> None:
    assert verdict(settle(claim(Policy(backoff=Fixed(0))), outcome(Ending.FAILED), 0.5)) == (
        Cause.RETRY,
        State.READY,
        0,
    )


def test_task_names_the_time_of_its_own_retry() -> None:
    change = settle(claim(), outcome(Ending.FAILED, verdict="retry", after_ms=70), 0.5)
    assert verdict(change) == (Cause.RETRY, State.SCHEDULED, 70)
    assert verdict(settle(claim(), outcome(Ending.FAILED, after_ms=0), 0.5)) == (Cause.RETRY, State.READY, 0)


def test_last_failure_buries_the_job() -> None:
    change = settle(claim(Policy(max_attempts=3), attempts=2, failures=2), outcome(Ending.FAILED, error=ERROR), 0.5)
    assert verdict(change) == (Cause.BURY, State.BURIED, 0)
    assert (change.error, change.counters.failures) == (grouped("default", "shop.charge", ERROR), 3)


def test_task_that_asks_for_a_retry_gets_no_more_attempts_than_its_policy_gives() -> None:
    change = settle(claim(Policy(max_attempts=1)), outcome(Ending.FAILED, verdict="retry", after_ms=5), 0.5)
    assert verdict(change) == (Cause.BURY, State.BURIED, 0)


def test_task_buries_its_own_job_with_attempts_left() -> None:
    assert settle(claim(), outcome(Ending.FAILED, verdict="bury"), 0.5).next is State.BURIED


def test_exception_to_give_up_on_buries_the_job_at_once() -> None:
    policy = Policy(give_up_on=("shop.Declined",))
    assert settle(claim(policy), outcome(Ending.FAILED, names=("shop.Declined", "E")), 0.5).next is State.BURIED
    assert settle(claim(policy), outcome(Ending.FAILED, names=("E",)), 0.5).cause is Cause.RETRY


def test_task_that_asks_for_a_retry_overrules_the_exceptions_of_its_policy() -> None:
    change = settle(claim(Policy(retry_on=())), outcome(Ending.FAILED, verdict="retry", names=("E",)), 0.5)
    assert change.cause is Cause.RETRY


def test_failure_of_a_job_that_was_asked_to_stop_ends_it_as_cancelled() -> None:
    change = settle(claim(), outcome(Ending.FAILED, error=ERROR, cancel_requested=True), 0.5)
    assert verdict(change) == (Cause.CANCEL, State.CANCELLED, 0)
    assert (change.error, change.counters.failures) == (ERROR, 1)


def test_crash_is_ready_at_once_and_charged() -> None:
    change = settle(claim(), outcome(Ending.CRASHED, error=ERROR), 0.5)
    assert verdict(change) == (Cause.CRASH, State.READY, 0)
    assert (change.error, change.counters) == (ERROR, Counters(attempts=1, crashes=1))


@pytest.mark.parametrize(("max_crashes", "crashes"), [(3, 2), (1, 0), (0, 0)])
def test_last_crash_buries_the_job_as_a_poison_pill(max_crashes: int, crashes: int) -> None:
    policy = Policy(max_crashes=max_crashes)
    change = settle(claim(policy, crashes=crashes), outcome(Ending.CRASHED, cancel_requested=True), 0.5)
    assert verdict(change) == (Cause.BURY, State.BURIED, 0)


def test_crash_of_a_job_that_was_asked_to_stop_ends_it_as_cancelled() -> None:
    change = settle(claim(), outcome(Ending.CRASHED, cancel_requested=True), 0.5)
    assert verdict(change) == (Cause.CANCEL, State.CANCELLED, 0)


def test_first_loss_is_free_and_makes_the_job_suspect() -> None:
    change = settle(claim(attempts=1), outcome(Ending.LOST, error=ERROR), 0.5)
    assert verdict(change) == (Cause.LOSE, State.READY, 0)
    assert (change.error, change.counters) == (ERROR, Counters(attempts=1, losses=1, suspect=True))


def test_second_loss_while_suspect_is_a_crash() -> None:
    change = settle(claim(losses=1, suspect=True), outcome(Ending.LOST), 0.5)
    assert verdict(change) == (Cause.CRASH, State.READY, 0)
    assert change.counters == Counters(attempts=1, crashes=1, losses=1, suspect=True)


MAY_HAVE_STARTED = [
    (Ending.FAILED, {}, Counters(attempts=1, failures=1)),
    (Ending.FAILED, {"verdict": "retry", "after_ms": 5}, Counters(attempts=1, failures=1)),
    (Ending.FAILED, {"verdict": "bury"}, Counters(attempts=1, failures=1)),
    (Ending.TIMED_OUT, {}, Counters(attempts=1, failures=1)),
    (Ending.CRASHED, {}, Counters(attempts=1, crashes=1)),
    (Ending.LOST, {}, Counters(attempts=1, crashes=1)),
    (Ending.SNOOZED, {"after_ms": 5}, Counters(attempts=1)),
    (Ending.RELEASED, {}, Counters(attempts=1)),
    (Ending.RELEASED, {"cancel_requested": True}, Counters(attempts=1)),
]


@pytest.mark.parametrize(("ending", "facts", "counters"), MAY_HAVE_STARTED)
def test_job_that_runs_at_most_once_is_buried_when_it_may_have_started(
    ending: Ending, facts: dict[str, Any], counters: Counters
) -> None:
    change = settle(claim(AT_MOST_ONCE), outcome(ending, error=ERROR, **facts), 0.5)
    assert (verdict(change), change.counters) == ((Cause.BURY, State.BURIED, 0), counters)


@pytest.mark.parametrize(
    ("ending", "after_ms", "cause", "state"),
    [
        (Ending.RELEASED, None, Cause.RELEASE, State.READY),
        (Ending.SNOOZED, 30_000, Cause.SNOOZE, State.SCHEDULED),
    ],
)
def test_job_that_runs_at_most_once_goes_back_before_it_started(
    ending: Ending, after_ms: int | None, cause: Cause, state: State
) -> None:
    change = settle(claim(AT_MOST_ONCE), outcome(ending, started=False, after_ms=after_ms), 0.5)
    assert verdict(change) == (cause, state, after_ms or 0)
    assert change.counters.attempts == 0


@pytest.mark.parametrize(
    ("ending", "facts", "why"),
    [
        (Ending.FAILED, {"verdict": "retry"}, "the task asked to be run again"),
        (Ending.SNOOZED, {}, "the task put itself off after it had started"),
        (Ending.RELEASED, {}, "its worker stopped and gave it back after it had started"),
    ],
)
def test_job_that_runs_at_most_once_says_why_it_was_buried(ending: Ending, facts: dict[str, Any], why: str) -> None:
    because = f"{why}, but it may start only once (max_attempts=1, max_crashes=0)"
    bare = settle(claim(AT_MOST_ONCE), outcome(ending, **facts), 0.5)
    assert bare.error is not None
    assert replace(bare.error, group="") == ErrorInfo(ending.value, message=because, attempt=1)
    told = settle(claim(AT_MOST_ONCE), outcome(ending, error=ERROR, **facts), 0.5)
    assert told.error is not None
    assert replace(told.error, group="") == replace(ERROR, message=f"no; {because}")


def test_snooze_waits_as_long_as_asked_and_is_free() -> None:
    change = settle(claim(attempts=2, failures=2), outcome(Ending.SNOOZED, after_ms=500), 0.5)
    assert verdict(change) == (Cause.SNOOZE, State.SCHEDULED, 500)
    assert change.counters == Counters(attempts=3, failures=2, snoozes=1)


@pytest.mark.parametrize("after_ms", [0, None])
def test_snooze_without_a_wait_is_ready_at_once(after_ms: int | None) -> None:
    assert verdict(settle(claim(), outcome(Ending.SNOOZED, after_ms=after_ms), 0.5)) == (Cause.SNOOZE, State.READY, 0)


def test_release_before_the_start_leaves_no_trace() -> None:
    change = settle(claim(attempts=1, failures=1), outcome(Ending.RELEASED, started=False, cancel_requested=True), 0.5)
    assert verdict(change) == (Cause.RELEASE, State.READY, 0)
    assert change.counters == Counters(attempts=1, failures=1)


def test_release_in_the_middle_is_an_interruption_and_free() -> None:
    change = settle(claim(attempts=1, failures=1), outcome(Ending.RELEASED, ran_us=5), 0.5)
    assert verdict(change) == (Cause.RELEASE, State.READY, 0)
    assert (change.ran_us, change.counters) == (5, Counters(attempts=2, failures=1, interruptions=1))


def test_release_of_a_started_job_that_was_asked_to_stop_ends_it_as_cancelled() -> None:
    change = settle(claim(), outcome(Ending.RELEASED, cancel_requested=True), 0.5)
    assert (verdict(change), change.counters) == ((Cause.CANCEL, State.CANCELLED, 0), Counters(attempts=1))


@pytest.mark.parametrize(("started", "attempts"), [(True, 1), (False, 0)])
def test_cancelled_job_counts_the_attempt_only_if_it_started(started: bool, attempts: int) -> None:
    change = settle(claim(), outcome(Ending.CANCELLED, started=started, error=ERROR), 0.5)
    assert (verdict(change), change.error) == ((Cause.CANCEL, State.CANCELLED, 0), ERROR)
    assert change.counters == Counters(attempts=attempts)


def test_ending_that_the_model_does_not_know_is_an_error_of_the_program() -> None:
    with pytest.raises(AssertionError, match="evaporated"):
        settle(claim(), outcome("evaporated"), 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("delay_s", "after_ms"), [(-5, 0), (math.nan, 0), (math.inf, LONGEST_S * 1000), (1e308, LONGEST_S * 1000)]
)
def test_absurd_backoff_is_brought_within_bounds(delay_s: float, after_ms: float) -> None:
    assert settle(claim(Policy(backoff=Fixed(delay_s))), outcome(Ending.FAILED), 0.5).after_ms == after_ms


# -- all of them ------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["A", "B", "C"])
COUNTS = st.integers(0, 5)
SECONDS = st.floats()
BACKOFFS = (
    st.builds(Exponential, SECONDS, SECONDS, SECONDS, st.sampled_from(["full", "none"]))
    | st.builds(Fixed, SECONDS)
    | st.builds(Linear, SECONDS, SECONDS)
    | st.builds(Table, st.lists(SECONDS, max_size=3).map(tuple))
)
POLICIES = st.builds(
    Policy,
    max_attempts=st.integers(1, 5),
    max_crashes=st.integers(0, 4),
    backoff=BACKOFFS,
    retry_on=st.none() | st.lists(NAMES, max_size=2).map(tuple),
    give_up_on=st.lists(NAMES, max_size=1).map(tuple),
)
OUTCOMES = st.builds(
    Outcome,
    ending=st.sampled_from(Ending),
    names=st.lists(NAMES, max_size=2).map(tuple),
    verdict=st.sampled_from([None, "retry", "bury"]),
    after_ms=st.none() | st.integers(0, 10**12),
    started=st.booleans(),
    cancel_requested=st.booleans(),
)
CLAIMS = st.builds(
    lambda policy, counters: replace(claim(policy), counters=counters),
    POLICIES | st.just(AT_MOST_ONCE),
    st.builds(Counters, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.booleans()),
)
LUCK = st.floats(0, 1)


@given(CLAIMS, OUTCOMES, LUCK)
def test_every_change_is_a_transition_of_a_running_job(held: Claim, ended: Outcome, luck: float) -> None:
    change = settle(held, ended, luck)
    assert allows(State.RUNNING, change.cause, change.next)
    assert (change.id, change.fence) == (held.id, held.fence)


@given(CLAIMS, OUTCOMES, LUCK)
def test_a_job_waits_exactly_when_it_is_scheduled(held: Claim, ended: Outcome, luck: float) -> None:
    change = settle(held, ended, luck)
    assert (change.after_ms > 0) is (change.next is State.SCHEDULED)
    assert 0 <= change.after_ms <= max(LONGEST_S * 1000, ended.after_ms or 0)


@given(CLAIMS, OUTCOMES, LUCK)
def test_counters_never_fall_and_at_most_one_is_charged(held: Claim, ended: Outcome, luck: float) -> None:
    before, after = astuple(held.counters), astuple(settle(held, ended, luck).counters)
    steps = [new - old for old, new in zip(before, after, strict=True)]
    assert set(steps) <= {0, 1}
    attempts, *charges, _suspect = steps
    assert sum(charges) <= 1
    assert attempts <= 1


@given(CLAIMS, OUTCOMES.filter(lambda ended: ended.ending in FREE), LUCK)
def test_snooze_and_release_charge_neither_failure_nor_crash(held: Claim, ended: Outcome, luck: float) -> None:
    after = settle(held, ended, luck).counters
    assert (after.failures, after.crashes) == (held.counters.failures, held.counters.crashes)


@given(OUTCOMES, LUCK)
def test_at_most_once_is_never_made_ready_once_started(ended: Outcome, luck: float) -> None:
    change = settle(claim(AT_MOST_ONCE), ended, luck)
    unstarted = ended.ending in FREE and not ended.started
    assert (change.next in FINAL) is not unstarted


@given(CLAIMS, OUTCOMES, LUCK)
def test_only_a_success_carries_a_result(held: Claim, ended: Outcome, luck: float) -> None:
    change = settle(held, replace(ended, result=b"7"), luck)
    assert (change.result is not None) is (change.next is State.SUCCEEDED) is (ended.ending is Ending.SUCCEEDED)


@given(CLAIMS, OUTCOMES.filter(lambda ended: ended.ending is not Ending.SUCCEEDED), LUCK)
def test_the_error_of_an_attempt_is_never_dropped(held: Claim, ended: Outcome, luck: float) -> None:
    error = settle(held, replace(ended, error=ERROR), luck).error
    assert error is not None
    assert error.message.startswith(ERROR.message)
    assert replace(error, message=ERROR.message, group="") == ERROR


@given(POLICIES | st.just(AT_MOST_ONCE), st.lists(st.tuples(OUTCOMES, LUCK), max_size=40))
def test_the_whole_life_of_a_job_stays_within_its_policy(policy: Policy, ends: list[tuple[Outcome, float]]) -> None:
    held = claim(policy)
    for ended, luck in ends:
        change = settle(held, ended, luck)
        counters = change.counters
        assert counters.failures <= policy.max_attempts
        assert counters.crashes <= max(1, policy.max_crashes)
        assert counters.failures + counters.crashes <= counters.attempts
        if change.next in FINAL:
            break
        assert counters.failures < policy.max_attempts
        assert counters.crashes < max(1, policy.max_crashes)
        held = replace(held, counters=counters, fence=Fence(held.fence.number + 1, held.fence.token))


@given(CLAIMS, OUTCOMES, LUCK)
def test_settling_twice_gives_the_same_change(held: Claim, ended: Outcome, luck: float) -> None:
    assert settle(held, ended, luck) == settle(held, ended, luck)


# -- fallbacks --------------------------------------------------------------------------------------------------------

SIMPLE = Stage("shop.note", "spare", Policy(max_attempts=2, max_crashes=1, backoff=Fixed(3)))
PATIENT = Stage("shop.wait", "slow", Policy(), on=("timeout", "lost"))


def at_stage(stage: int, *fallbacks: Stage, **counters: Any) -> Claim:
    policy = Policy(max_attempts=1, max_crashes=1, fallbacks=fallbacks or (SIMPLE,))
    home = Home("shop.charge", "default") if stage else None
    task = policy.fallbacks[stage - 1].task if stage else "shop.charge"
    return replace(claim(policy, **counters), stage=stage, task=task, details=Details(("red",), home=home))


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.TIMED_OUT, Ending.CRASHED])
def test_what_has_failed_for_good_goes_on_with_its_fallback(ending: Ending) -> None:
    change = settle(at_stage(0, failures=0, interruptions=2), outcome(ending, error=ERROR, ran_us=7), 0.5)
    assert verdict(change) == (Cause.FALL_BACK, State.READY, 0)
    assert change.move == Move("shop.note", "spare", 1, Details(("red",), home=Home("shop.charge", "default")))
    assert (change.counters, change.error, change.ran_us) == (Counters(interruptions=2), ERROR, 7)


def test_what_its_policy_gives_up_goes_on_with_its_fallback() -> None:
    given_up = replace(at_stage(0).policy, max_attempts=9, give_up_on=("shop.Declined",))
    change = settle(replace(at_stage(0), policy=given_up), outcome(Ending.FAILED, names=("shop.Declined",)), 0.5)
    assert (change.cause, change.move and change.move.task) == (Cause.FALL_BACK, "shop.note")


def test_a_job_that_may_start_once_falls_back_when_its_host_is_lost() -> None:
    policy = replace(AT_MOST_ONCE, fallbacks=(SIMPLE,))
    change = settle(replace(at_stage(0), policy=policy), outcome(Ending.LOST, error=ErrorInfo("lost")), 0.5)
    assert change.cause is Cause.FALL_BACK


def test_what_asks_to_be_buried_is_buried_for_a_person() -> None:
    change = settle(at_stage(0), outcome(Ending.FAILED, verdict="bury"), 0.5)
    assert (change.next, change.move) == (State.BURIED, None)


def test_what_was_asked_to_stop_does_not_fall_back() -> None:
    stopped = [
        settle(at_stage(0), outcome(ending, cancel_requested=True), 0.5).next
        for ending in (Ending.FAILED, Ending.CRASHED)
    ]
    assert stopped == [State.CANCELLED, State.BURIED]


def test_a_fallback_is_retried_by_its_own_policy() -> None:
    change = settle(at_stage(1), outcome(Ending.FAILED), 0.5)
    assert verdict(change) == (Cause.RETRY, State.SCHEDULED, 3000)
    assert (change.move, change.counters) == (None, Counters(attempts=1, failures=1))


def test_a_fallback_that_has_failed_for_good_is_followed_by_the_next_one() -> None:
    change = settle(at_stage(1, SIMPLE, SIMPLE, attempts=1, failures=1), outcome(Ending.FAILED), 0.5)
    assert (change.cause, change.move and change.move.stage) == (Cause.FALL_BACK, 2)
    assert change.move is not None
    assert change.move.details.home == Home("shop.charge", "default")


def test_the_last_fallback_that_has_failed_for_good_is_buried() -> None:
    change = settle(at_stage(1, attempts=1, failures=1), outcome(Ending.FAILED), 0.5)
    assert (change.next, change.move) == (State.BURIED, None)


def test_a_fallback_takes_only_the_failures_that_it_names() -> None:
    failed = settle(at_stage(0, PATIENT), outcome(Ending.FAILED, error=ERROR, names=("shop.Declined",)), 0.5)
    late = settle(at_stage(0, PATIENT), outcome(Ending.TIMED_OUT, error=ErrorInfo("timed out")), 0.5)
    assert (failed.cause, late.cause) == (Cause.BURY, Cause.FALL_BACK)


def test_a_fallback_named_for_a_class_of_failure_takes_it() -> None:
    disk = Stage("elsewhere", "q", Policy(), on=("host",))
    error = replace(ERROR, failure="host")
    assert settle(at_stage(0, disk), outcome(Ending.FAILED, error=error), 0.5).cause is Cause.FALL_BACK
    assert settle(at_stage(0, disk), outcome(Ending.FAILED, error=ERROR), 0.5).cause is Cause.BURY


def test_a_success_says_which_fallback_gave_it() -> None:
    results = [settle(at_stage(stage), outcome(Ending.SUCCEEDED, result=b"1"), 0.5).degraded for stage in (0, 1)]
    assert results == [None, "shop.note"]


@pytest.mark.parametrize("ending", [Ending.SNOOZED, Ending.RELEASED, Ending.LOST])
def test_what_costs_nothing_does_not_fall_back(ending: Ending) -> None:
    change = settle(at_stage(0), outcome(ending), 0.5)
    assert (change.next, change.move) == (State.READY, None)
