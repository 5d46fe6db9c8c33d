"""Plays of producers, workers and an operator on each engine, with faults drawn from a seed: no invariant is broken.

They are played in one thread on a turned clock, so that a seed gives the same again; the kills of real processes are
in tests/torture, and judged by the same checker.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from penstock.engines.open import open_engine
from penstock.testing import TurnedClock
from tests.histories import bugs, reading
from tests.histories.checker import INVARIANTS, VOID, check
from tests.histories.judging import SEED, drawn_seed, judge
from tests.histories.play import Play

ENGINES = ["memory", "sqlite", "redis", "postgresql"]
STEPS = 7500
LEAST_OPERATIONS = 10_000


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "memory":
            return "memory://"
        case "sqlite":
            return f"sqlite:///{tmp_path}/store.db?durability=normal"
        case "redis":
            return str(request.getfixturevalue("redis_server").empty_store())
        case _:
            return str(request.getfixturevalue("postgres_server").empty_store())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_histories_with_faults_break_no_invariant(url: str, tmp_path: Path) -> None:
    seed = os.environ.get(SEED, "1")
    line = played(url, tmp_path, seed)
    assert int(line.split()[0].replace(",", "")) >= LEAST_OPERATIONS, line


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_many_histories_with_faults_break_no_invariant(url: str, tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / str(number)
        folder.mkdir()
        played(url, folder, drawn_seed())


def played(url: str, folder: Path, seed: str) -> str:
    clock = TurnedClock()
    engine = open_engine(url, clock=clock)
    play = Play(engine, clock, folder, seed)
    play.run(STEPS)
    engine.close()
    name = url.partition(":")[0]
    line = judge(
        folder, name, seed, f"{SEED}={seed} python -m pytest tests/histories/test_plays.py -k 'break_no and {name}'"
    )
    print(f"\n{line}; {play.faults}")
    return line


@pytest.mark.parametrize("name", bugs.BUGS)
def test_deliberate_bug_is_found(name: str, tmp_path: Path) -> None:
    clock = TurnedClock()
    with bugs.planted(name) as bug:
        Play(open_engine("memory://", clock=clock), clock, tmp_path, seed="1").run(3000)
    found = {violation.invariant for violation in check(reading.read(tmp_path))}
    assert bug.invariant in found


def test_every_invariant_has_a_bug_that_it_finds() -> None:
    assert {bug.invariant for bug in bugs.BUGS.values()} == INVARIANTS.keys()
    assert not INVARIANTS.keys() & VOID.keys()


def test_same_seed_gives_the_same_play(tmp_path: Path) -> None:
    first, second = (acts_of(tmp_path / name) for name in ("first", "second"))
    assert first == second


def acts_of(folder: Path) -> list[Any]:
    """Give what happened in a play, but for the tokens, which are secret."""
    folder.mkdir()
    clock = TurnedClock()
    Play(open_engine("memory://", clock=clock), clock, folder, "7").run(500)
    return [
        (op.t0, op.t1, op.process, op.outcome, type(op.act), getattr(op.act, "job", ""))
        for op in reading.read(folder).ops
    ]
