"""Judges a history, and says what it takes to look into a bad one."""

import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path

from tests.histories import reading
from tests.histories.checker import check
from tests.histories.history import NEVER, History
from tests.histories.violation import Violation

#: Draws the same again.
SEED = "HISTORY_SEED"

#: Where the lines of a bad history are kept, one folder for each.
KEPT = Path(__file__).parents[2] / "build" / "histories"

_MOST_SHOWN = 5


def drawn_seed() -> str:
    """Give the seed that was asked for, or a new one."""
    return os.environ.get(SEED) or str(random.SystemRandom().randrange(10**6))


def judge(folder: Path, engine: str, seed: str, again: str) -> str:
    """Check the history in a folder; give its figures in a line.

    Raises:
        AssertionError: it is bad; says what is wrong, and how to look into it; `again` draws it anew.
    """
    began = time.monotonic()
    history = reading.read(folder)
    found = check(history)
    line = f"{figures(history)} on {engine}, checked in {time.monotonic() - began:.1f} s"
    if found:
        raise AssertionError(_report(found, line, _keep(folder, engine, seed), again))
    return f"{line}: 0 violations; seed {seed}"


def figures(history: History) -> str:
    unknown = sum(1 for op in history.ops if op.t1 == NEVER)
    return f"{len(history.ops):,} operations on {len(history.lives):,} jobs ({unknown:,} of unknown outcome)"


def _keep(folder: Path, engine: str, seed: str) -> Path:
    kept = KEPT / f"{engine}-{seed}"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for name in (reading.FOLDER, reading.FINAL, reading.JUMPS, "log"):
        if (folder / name).is_dir():
            shutil.copytree(folder / name, kept / name)
        elif (folder / name).exists():
            shutil.copy(folder / name, kept / name)
    return kept


def _report(found: list[Violation], line: str, kept: Path, again: str) -> str:
    counted = Counter(violation.invariant for violation in found)
    return "\n".join(
        [
            f"{line}: {len(found)} violations: {dict(counted)}",
            *(str(violation) for violation in _one_of_each(found)),
            f"draw the same again: {again}",
            f"judge what was written down again: python -m tests.histories {kept}",
        ]
    )


def _one_of_each(found: list[Violation]) -> list[Violation]:
    """Give a few, each of another kind."""
    kinds = {(violation.invariant, violation.what): violation for violation in reversed(found)}
    return list(reversed(kinds.values()))[:_MOST_SHOWN]
