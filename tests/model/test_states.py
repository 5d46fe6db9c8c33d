import os
import re
import subprocess
import sys

import pytest

from penstock.model.states import FINAL, TRANSITIONS, WAITING, Cause, State, allows, picture, sources

BY_HAND = {Cause.KICK, Cause.UPGRADE, Cause.EDIT, Cause.DELETE}
ARROW = re.compile(r"    (\S+) --> (\S+) : (.+)")


def test_every_state_is_waiting_running_or_final_and_only_one_of_them() -> None:
    assert set(State) == WAITING | FINAL | {State.RUNNING}
    assert not WAITING & FINAL
    assert State.RUNNING not in WAITING | FINAL


@pytest.mark.parametrize("state", State)
def test_state_knows_whether_it_is_final(state: State) -> None:
    assert state.is_final is (state in FINAL)


def test_every_state_can_be_reached_from_a_new_job() -> None:
    reached: set[State | None] = {None}
    while True:
        further = {after for (before, _), nexts in TRANSITIONS.items() if before in reached for after in nexts}
        if further <= reached:
            break
        reached |= further
    assert reached == {None, *State}


def test_every_cause_moves_a_job_from_somewhere() -> None:
    assert {cause for _, cause in TRANSITIONS} == set(Cause)


def test_only_a_person_moves_a_job_out_of_a_final_state() -> None:
    assert {cause for before, cause in TRANSITIONS if before in FINAL} == BY_HAND


def test_a_job_starts_by_a_claim_of_a_ready_one_alone() -> None:
    starts = {(before, cause) for (before, cause), nexts in TRANSITIONS.items() if State.RUNNING in nexts}
    assert starts == {(State.READY, Cause.CLAIM)}


def test_a_running_job_is_not_touched_by_time_or_people() -> None:
    causes = {cause for before, cause in TRANSITIONS if before is State.RUNNING}
    assert not causes & (BY_HAND | {Cause.EXPIRE, Cause.DUE, Cause.RESCHEDULE})


@pytest.mark.parametrize("cause", [Cause.CANCEL, Cause.EXPIRE, Cause.BURY, Cause.DELETE, Cause.EDIT])
def test_every_waiting_job_can_be_ended_edited_and_deleted(cause: Cause) -> None:
    assert sources(cause) >= WAITING


def test_only_a_deletion_makes_a_job_vanish() -> None:
    assert {cause for (_, cause), nexts in TRANSITIONS.items() if None in nexts} == {Cause.DELETE}


@pytest.mark.parametrize("before", [None, *State])
@pytest.mark.parametrize("cause", Cause)
def test_the_table_alone_says_what_is_allowed(before: State | None, cause: Cause) -> None:
    expected = TRANSITIONS.get((before, cause), frozenset())
    assert {after for after in (None, *State) if allows(before, cause, after)} == expected


def test_sources_name_stored_states_only() -> None:
    assert sources(Cause.ADD) == frozenset()
    assert sources(Cause.CLAIM) == {State.READY}
    assert sources(Cause.KICK) == {State.BURIED, State.CANCELLED, State.EXPIRED, State.SCHEDULED}


def test_picture_holds_every_transition_and_no_other() -> None:
    drawn = set()
    first, *lines = picture().splitlines()
    for line in lines:
        before, after, causes = ARROW.fullmatch(line).groups()  # type: ignore[union-attr]
        drawn |= {(before, Cause(cause), after) for cause in causes.split(", ")}
    assert first == "stateDiagram-v2"
    assert drawn == {
        (before or "[*]", cause, after or "[*]") for (before, cause), nexts in TRANSITIONS.items() for after in nexts
    }


def test_picture_has_one_arrow_between_two_states() -> None:
    arrows = [ARROW.fullmatch(line).group(1, 2) for line in picture().splitlines()[1:]]  # type: ignore[union-attr]
    assert len(arrows) == len(set(arrows))


def test_picture_begins_with_the_birth_of_a_job_and_ends_with_a_line_break() -> None:
    assert picture().startswith("stateDiagram-v2\n    [*] --> blocked : add\n")
    assert "    running --> ready : retry, snooze, release, fall back, lose, crash\n" in picture()
    assert picture().endswith("    buried --> [*] : delete\n")


@pytest.mark.parametrize("seed", ["1", "2"])
def test_picture_is_the_same_in_every_process(seed: str) -> None:
    """The table holds sets of text, whose order changes with the seed of its hashes."""
    program = "from penstock.model.states import picture; print(picture(), end='')"
    environ = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environ)
    assert run.stdout == picture()
