import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.model.events import Event
from penstock.model.job import (
    Claim,
    Counters,
    Details,
    ErrorInfo,
    Fence,
    Job,
    JobId,
    Needs,
    NewJob,
    Tick,
    Unique,
    read_fence,
)
from penstock.model.retry import Policy
from penstock.model.states import Cause, State

FENCES = st.builds(Fence, st.integers(0, 2**63 - 1), st.integers(-(2**63), 2**63 - 1))


@given(FENCES)
def test_fence_is_read_back_from_its_text(fence: Fence) -> None:
    assert read_fence(str(fence)) == fence


@given(st.lists(FENCES, unique=True))
def test_different_fences_have_different_texts(fences: list[Fence]) -> None:
    assert len({str(fence) for fence in fences}) == len(fences)


@pytest.mark.parametrize(
    ("fence", "text"),
    [
        (Fence(1, 10), "1.000000000000000a"),
        (Fence(0, -1), "0.ffffffffffffffff"),
        (Fence(7, -(2**63)), "7.8000000000000000"),
    ],
)
def test_fence_is_written_as_its_number_and_sixteen_digits(fence: Fence, text: str) -> None:
    assert str(fence) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.",
        "1.5",
        ".000000000000000a",
        "-1.000000000000000a",
        "1.-00000000000000a",
        "1.000000000000000A",
        "1.000000000000000a ",
        "1.000000000000000a\n",
        "1.1000000000000000a",
        "1.2.00000000000000a",
        "٣.000000000000000a",
        "9" * 5000 + ".000000000000000a",
    ],
)
def test_text_that_is_no_fence_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a fence; .* as in 1\.000000000000000a"):
        read_fence(text)


@given(st.text())
def test_any_text_is_one_fence_or_refused(text: str) -> None:
    try:
        fence = read_fence(text)
    except ValueError:
        return
    assert read_fence(str(fence)) == fence


def test_higher_claim_number_is_the_newer_fence() -> None:
    assert Fence(1, 2**62) < Fence(2, -(2**62))


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        (Counters(), False),
        (Counters(failures=3, interruptions=2, snoozes=1, losses=1), False),
        (Counters(suspect=True), True),
        (Counters(crashes=1), True),
    ],
)
def test_suspect_and_crashed_jobs_run_alone(counters: Counters, expected: bool) -> None:
    assert counters.runs_alone is expected


def test_claim_counts_attempts_from_one() -> None:
    claim = Claim(id=JobId("a"), fence=Fence(1, 1), task="t", queue="q", envelope=b"{}", crc=None, policy=Policy())
    assert claim.attempt == 1
    assert msgspec.structs.replace(claim, counters=Counters(attempts=4)).attempt == 5


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ErrorInfo("failed", "builtins.KeyError", "'x'"), "KeyError: 'x'"),
        (ErrorInfo("failed", "shop.Declined", "no"), "shop.Declined: no"),
        (ErrorInfo("failed", "shop.Declined"), "shop.Declined"),
        (ErrorInfo("crashed", message="killed by SIGSEGV"), "crashed: killed by SIGSEGV"),
        (ErrorInfo("lost"), "lost"),
    ],
)
def test_error_reads_as_its_class_or_kind_and_its_message(error: ErrorInfo, text: str) -> None:
    assert str(error) == text


DETAILS = Details(
    tags=("a",),
    unique=Unique("k", "window", 5, "refuse"),
    needs=Needs(("gpu",), 1, 0.5),
    parents=(JobId("p"),),
    tick=Tick("nightly", 7),
)


@pytest.mark.parametrize(
    "value",
    [
        NewJob(id=JobId("a"), task="t", envelope=b"\x00{}", details=DETAILS, policy=Policy(max_attempts=2)),
        Job(id=JobId("a"), state=State.BURIED, task="t", queue="q", envelope=b"{}", history=(ErrorInfo("lost"),)),
        Event(JobId("a"), "t", "q", Cause.DELETE, None),
        Fence(3, -4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_is_the_same_after_a_journey_as_json(value: msgspec.Struct) -> None:
    assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value
