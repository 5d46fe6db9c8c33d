"""Whoever looks at what is left must see what is wrong with it."""

from pathlib import Path

import pytest

from penstock.client import Penstock
from penstock.testing import memory_engine
from tests.crashpoints.remains import Remains
from tests.crashpoints.told import ASKED, DONE, SAID
from tests.torture.records import ACCEPTED, ATTEMPTED


def wrongs(folder: Path, **trails: str) -> dict[str, list[str]]:
    """Look at a store with one job, `there`, which is ready, and at what was written down."""
    for name, text in trails.items():
        (folder / name).write_text(text)
    engine = memory_engine()
    app = Penstock(engine=engine)

    @app.task(name="work")
    def work(_name: str) -> None:
        """Never run."""

    work.enqueue("there")
    return Remains(folder, engine, orders=set()).wrongs()


@pytest.mark.parametrize(
    ("trails", "rule", "names"),
    [
        ({}, "stuck", ["there"]),
        ({ACCEPTED: "there\nnot-there\n"}, "lost", ["not-there"]),
        ({ATTEMPTED: "there not-there\n"}, "torn batch", ["there not-there"]),
        ({DONE: "paid there\npaid there\n"}, "side effect not exactly once", ["there"]),
        ({DONE: "step a\nrecorded a\nstep a\n"}, "step done again although it was recorded", ["a"]),
        ({ASKED: "bury there\n", SAID: "bury there\n"}, "not as an operator was told", ["bury of there"]),
        ({ASKED: "kick gone\n", SAID: "kick gone\n"}, "not as an operator was told", ["kick of gone"]),
    ],
)
def test_what_should_not_be_is_told(tmp_path: Path, trails: dict[str, str], rule: str, names: list[str]) -> None:
    assert wrongs(tmp_path, **trails)[rule] == names


def test_a_job_that_an_operator_deleted_is_not_lost(tmp_path: Path) -> None:
    assert "lost" not in wrongs(tmp_path, **{ACCEPTED: "gone\n", ASKED: "delete gone\n"})
