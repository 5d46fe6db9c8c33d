"""The formal model holds what its page says, fails where it must, and decides as the program does."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.model.job import Claim, Counters, Fence, JobId
from penstock.model.outcome import Ending, Outcome
from penstock.model.retry import Fixed, Policy, Stage
from penstock.model.settle import settle
from penstock.model.states import State
from tests.conftest import found
from tests.servers.programs import spin

MODEL = Path(__file__).parents[2] / "docs" / "explanation" / "model"

CANCEL = ("-DCANCELS=1", "-DRELEASES=0")
KICK = ("-DKICKS=1", "-DCANCELS=1", "-DRELEASES=0", "-DMAX_ATTEMPTS=1")
ROLLBACK = ("-DROLLBACKS=1", "-DRELEASES=0", "-DLAPSES=0")
ONCE = ("-DONCE_ONLY", "-DMAX_ATTEMPTS=1", "-DMAX_CRASHES=0", "-DDEATHS=2", "-DLAPSES=2", "-DCANCELS=1")

HOLDS = [
    ("safety", (*CANCEL, "-DFALLBACKS=1", "-DMAX_CRASHES=1")),
    ("safety", KICK),
    ("safety", ROLLBACK),
    ("safety", ONCE),
    ("safety", ("-DNUMBER_ALONE",)),
    ("final_stays_final", (*KICK, "-DERA=1")),
    ("always_ends", CANCEL),
]
HOLDS_AT_LENGTH = [
    ("safety", ("-DDEATHS=2", "-DLAPSES=2")),
    ("safety", ("-DWORKERS=3", "-DRELEASES=0")),
    ("safety", ("-DTENDERS=2", "-DRELEASES=0")),
    ("safety", (*CANCEL, "-DFALLBACKS=1")),
    ("safety", (*KICK, "-DFALLBACKS=1", "-DMAX_CRASHES=1")),
    ("safety", ("-DROLLBACKS=1", "-DRELEASES=0")),
    ("final_stays_final", (*ROLLBACK, "-DERA=1")),
    ("always_ends", ROLLBACK),
    ("always_ends", (*CANCEL, "-DFALLBACKS=1")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("property", "surroundings"), HOLDS)
def test_property_holds_in_every_state(property: str, surroundings: tuple[str, ...]) -> None:
    _assert_holds(property, surroundings, at_least=50_000)


@pytest.mark.torture
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("property", "surroundings"), HOLDS_AT_LENGTH)
def test_property_holds_in_more_troubled_surroundings(property: str, surroundings: tuple[str, ...]) -> None:
    _assert_holds(property, surroundings, at_least=1_000_000)


def test_without_a_fence_a_frozen_worker_overwrites_who_took_over() -> None:
    told = _refuted("safety", "-DNOFENCE")
    assert told == ["A claims under 1.1", "B takes over under 2.2", "A delivers under 1.1: written"]


def test_a_number_alone_is_given_twice_after_a_rollback() -> None:
    """The token beside it is why penstock's fence has two parts."""
    told = _refuted("safety", "-DNUMBER_ALONE", *ROLLBACK)
    assert told == [
        "A keeps a copy of the store",
        "B claims under 1.1",
        "A rolls the store back",
        "C claims under 1.2",
        "B delivers under 1.1: written",
    ]


def test_without_any_check_a_final_job_comes_back_by_itself() -> None:
    assert _refuted("final_stays_final", "-DNOCHECK", "-DRELEASES=0")


def test_with_nobody_to_take_over_a_job_of_the_dead_never_ends() -> None:
    assert _refuted("always_ends", "-DTENDERS=0") == ["A claims under 1.1", "A dies"]


def test_a_job_that_is_not_to_run_at_most_once_may_start_twice() -> None:
    assert _refuted("safety", "-DONCE_ONLY", "-DMAX_ATTEMPTS=1", "-DMAX_CRASHES=1")


@pytest.mark.parametrize("limits", [(1, 0, 0), (1, 1, 1), (2, 2, 1), (2, 3, 2)])
def test_model_decides_as_the_program_does(limits: tuple[int, int, int]) -> None:
    decisions = list(_decisions(*limits))
    assert len(decisions) == limits[0] * max(1, limits[1]) * (limits[2] + 1) * 8 * 6
    for given, decided in decisions:
        assert decided == _settled(limits, given), given


def _assert_holds(property: str, surroundings: tuple[str, ...], at_least: int) -> None:
    run = _check(property, *surroundings)
    print(f"\n{' '.join(surroundings)}: {run.stdout.strip()}")
    assert run.returncode == 0, run.stdout
    states = re.search(r"holds in all ([\d.e+]+) states", run.stdout)
    assert states is not None
    assert float(states[1]) >= at_least


def _refuted(property: str, *surroundings: str) -> list[str]:
    """Give what leads to the violation; the processes are named in the order in which they appear."""
    run = _check(property, *surroundings)
    assert run.returncode == 1, run.stdout
    first, *steps = run.stdout.splitlines()
    assert first.startswith(f"{property} does not hold: ")
    names: dict[str, str] = {}
    return [re.sub(r"^\d+", lambda who: names.setdefault(who[0], "ABCDEFGH"[len(names)]), step) for step in steps]


def _check(*words: str) -> "subprocess.CompletedProcess[str]":
    found(spin)
    run = subprocess.run([str(MODEL / "check"), *words], capture_output=True, text=True, check=False)
    assert run.stderr == ""
    return run


# -- the policy -------------------------------------------------------------------------------------------------------

#: In the order in which the model numbers them.
STATES = (None, State.BURIED, State.CANCELLED, State.SUCCEEDED, State.RUNNING, State.READY)
ENDINGS = (
    None,
    Ending.CANCELLED,
    Ending.RELEASED,
    Ending.LOST,
    Ending.CRASHED,
    Ending.FAILED,
    Ending.SUCCEEDED,
)


def _decisions(*limits: int) -> Iterator[tuple[list[int], tuple[object, ...]]]:
    """Give each decision of the model: ending, failures, crashes, stage and flags; and what follows."""
    names = ("MAX_ATTEMPTS", "MAX_CRASHES", "FALLBACKS")
    words = [f"-D{name}={limit}" for name, limit in zip(names, limits, strict=True)]
    command = [found(spin), "-T", "-DPOLICY_TABLE", *words, str(MODEL / "lease.pml")]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for line in told.splitlines():
        if re.fullmatch(r"[\d ]+", line):
            numbers = [int(word) for word in line.split()]
            yield numbers[:5], (STATES[numbers[5]], *numbers[6:9], bool(numbers[9]))


def _settled(limits: tuple[int, int, int], given: list[int]) -> tuple[object, ...]:
    """Decide the same with the program; a job that waits for a time counts as ready, for time passes at any step."""
    ending, failures, crashes, stage, flags = given
    suspect, cancel, started = (bool(flags & bit) for bit in (1, 2, 4))
    claim = Claim(
        id=JobId("a job"),
        fence=Fence(1, 1),
        task="a task",
        queue="default",
        envelope=b"",
        crc=None,
        policy=_policy(*limits),
        counters=Counters(failures=failures, crashes=crashes, suspect=suspect),
        stage=stage,
        cancel_requested=cancel,
    )
    kind = ENDINGS[ending]
    assert kind is not None
    change = settle(claim, Outcome(ending=kind, started=started, cancel_requested=cancel), luck=0.5)
    state = State.READY if change.next is State.SCHEDULED else change.next
    after = change.counters
    stage = stage if change.move is None else change.move.stage
    return state, after.failures, after.crashes, stage, after.suspect


def _policy(max_attempts: int, max_crashes: int, fallbacks: int) -> Policy:
    alone = Policy(max_attempts=max_attempts, max_crashes=max_crashes, backoff=Fixed(1.0))
    stages = tuple(Stage(f"fallback {number}", "default", alone) for number in range(fallbacks))
    return Policy(max_attempts=max_attempts, max_crashes=max_crashes, backoff=Fixed(1.0), fallbacks=stages)
