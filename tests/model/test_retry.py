import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.model.retry import Backoff, Exponential, Fixed, Linear, Policy, Stage, Table

LUCK = st.floats(0, 1)
FAILURES = st.integers(0, 10**6)


def test_exponential_backoff_doubles_up_to_its_bound() -> None:
    backoff = Exponential(base_s=1, factor=2, max_s=10, jitter="none")
    assert [backoff.delay_s(failures, 0.5) for failures in range(7)] == [1, 1, 2, 4, 8, 10, 10]


def test_full_jitter_draws_between_zero_and_the_bound() -> None:
    backoff = Exponential(base_s=8)
    assert [backoff.delay_s(1, luck) for luck in (0, 0.25, 1)] == [0, 2, 8]


def test_exponential_backoff_beyond_all_numbers_is_its_bound() -> None:
    assert Exponential(factor=1e10, jitter="none").delay_s(1000, 0) == 3600
    assert Exponential(base_s=1e300, factor=1e9, jitter="none").delay_s(30, 0) == 3600


def test_fixed_backoff_is_the_same_every_time() -> None:
    assert {Fixed(3).delay_s(failures, luck) for failures in (1, 9) for luck in (0, 1)} == {3}


def test_linear_backoff_grows_by_its_step_up_to_its_bound() -> None:
    assert [Linear(2, max_s=5).delay_s(failures, 1) for failures in range(5)] == [2, 2, 4, 5, 5]


def test_table_serves_its_last_entry_to_all_later_failures() -> None:
    assert [Table((1, 5, 30)).delay_s(failures, 1) for failures in range(6)] == [1, 1, 5, 30, 30, 30]


def test_empty_table_never_waits() -> None:
    assert Table(()).delay_s(1, 1) == 0


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6), FAILURES, LUCK)
def test_bounded_backoffs_stay_between_zero_and_their_bound(
    base_s: float, factor: float, max_s: float, failures: int, luck: float
) -> None:
    for backoff in (
        Exponential(base_s, factor, max_s),
        Exponential(base_s, factor, max_s, "none"),
        Linear(base_s, max_s),
    ):
        assert 0 <= backoff.delay_s(failures, luck) <= max_s


@given(st.floats(0.001, 1e3), st.floats(1, 1e3), FAILURES)
def test_backoff_without_jitter_never_shrinks(base_s: float, factor: float, failures: int) -> None:
    for backoff in (Exponential(base_s, factor, jitter="none"), Linear(base_s)):
        assert backoff.delay_s(failures, 0) <= backoff.delay_s(failures + 1, 0)


@pytest.mark.parametrize(
    "backoff",
    [Exponential(2, 3, 4, "none"), Fixed(1.5), Linear(1, 9), Table((1.0, 2.0))],
    ids=lambda b: type(b).__name__,
)
def test_policy_is_stored_and_read_back_with_its_backoff(backoff: Backoff) -> None:
    policy = Policy(7, 2, None, backoff, ("E",), ("F",), (Stage("other", "spare", Policy(2, 1), ("timeout",)),), 5)
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy


def test_default_policy_is_stored_in_two_bytes() -> None:
    assert msgspec.json.encode(Policy()) == b"{}"


@pytest.mark.parametrize(
    ("max_attempts", "max_crashes", "expected"), [(1, 0, True), (1, 1, False), (2, 0, False), (5, 3, False)]
)
def test_at_most_once_is_one_attempt_and_no_crash(max_attempts: int, max_crashes: int, expected: bool) -> None:
    assert Policy(max_attempts, max_crashes).at_most_once is expected


@pytest.mark.parametrize(
    ("retry_on", "give_up_on", "expected"),
    [
        (None, (), True),
        (None, ("builtins.OSError",), False),
        (None, ("builtins.KeyError",), True),
        (("builtins.OSError",), (), True),
        (("builtins.KeyError",), (), False),
        ((), (), False),
        (("shop.Declined",), ("builtins.OSError",), False),
        (("builtins.OSError",), ("shop.Declined",), False),
    ],
)
def test_names_of_the_class_and_its_bases_decide_whether_it_is_retried(
    retry_on: tuple[str, ...] | None, give_up_on: tuple[str, ...], expected: bool
) -> None:
    policy = Policy(retry_on=retry_on, give_up_on=give_up_on)
    assert policy.retries(("shop.Declined", "builtins.OSError", "builtins.Exception")) is expected


def test_attempt_without_an_exception_is_retried_unless_only_some_are() -> None:
    assert Policy().retries(())
    assert not Policy(retry_on=("builtins.OSError",)).retries(())


def test_backoff_without_end_is_told_as_infinite_and_not_as_an_error() -> None:
    assert Linear(1e308, max_s=math.inf).delay_s(100, 0) == math.inf


def test_the_terms_of_a_stage_are_those_of_its_task() -> None:
    first, second = Policy(max_attempts=2), Policy(timeout_ms=None)
    policy = Policy(fallbacks=(Stage("a", "q", first), Stage("b", "q", second)))
    assert [policy.at(stage) for stage in (0, 1, 2)] == [policy, first, second]


@pytest.mark.parametrize("stage", [-1, 3, 99])
def test_a_stage_that_is_none_has_the_terms_of_the_task_itself(stage: int) -> None:
    policy = Policy(fallbacks=(Stage("a", "q", Policy(max_attempts=2)),) * 2)
    assert (policy.at(stage), policy.next_stage(max(stage, 2), ("job",))) == (policy, None)


def test_the_next_stage_is_the_first_that_takes_such_a_failure() -> None:
    slow, dead = Stage("slow", "q", Policy(), on=("timeout",)), Stage("dead", "q", Policy(), on=("crash", "E"))
    last = Stage("last", "q", Policy())
    policy = Policy(fallbacks=(slow, dead, last))
    told = [("timeout", "E"), ("crash",), ("job", "E"), ("job", "F")]
    assert [policy.next_stage(0, failures) for failures in told] == [1, 2, 2, 3]
    assert [policy.next_stage(2, failures) for failures in told] == [3, 3, 3, 3]
    assert policy.next_stage(3, ("timeout",)) is None
