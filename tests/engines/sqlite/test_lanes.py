"""Lanes are forgotten with their last job, also while other processes remember them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from penstock.engine import AddRequest, Delete
from penstock.engines.sqlite import SqliteEngine
from penstock.model.job import NO_DETAILS, Details, JobId
from penstock.testing.conformance.trial import new_job
from tests.engines.sqlite.jobs import add_one, opened


def test_lane_is_forgotten_with_its_last_job(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "store.db")) as engine:
        for number in range(50):
            drop(engine, add_one(engine, queue=f"user-{number}"))
        kept = add_one(engine, queue="mail")
        assert queues(engine) == ["mail"]
        assert engine.get([kept]) != [None]
    with closing(sqlite3.connect(tmp_path / "store.db")) as db:
        assert db.execute("SELECT count(*), max(lane) FROM lanes").fetchone() == (1, 51)
        assert db.execute("SELECT count(DISTINCT lane) FROM counters WHERE lane > 0").fetchone() == (1,)


def test_process_that_remembers_a_forgotten_lane_adds_to_the_queue_it_meant(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "store.db")) as one, closing(opened(tmp_path / "store.db")) as other:
        drop(other, add_one(one, queue="old"))
        add_one(other, queue="new")
        id = add_one(one, queue="old")
        assert [job.queue for job in one.get([id]) if job] == ["old"]
        assert queues(one) == queues(other) == ["new", "old"]
        assert {(count.queue, *count.states.values()) for count in one.counts()} == {("new", 1), ("old", 1)}


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param([("keyed",)], id="a job with a key"),
        pytest.param([("one",), ("two",)], id="two requests in one commit"),
    ],
)
def test_bounded_queue_whose_lane_was_forgotten_takes_jobs(tmp_path: Path, requests: list[tuple[str]]) -> None:
    with closing(opened(tmp_path / "store.db")) as one, closing(opened(tmp_path / "store.db")) as other:
        other.alter_queue("default", max_jobs=10)
        drop(other, add_one(one))
        keyed = len(requests) == 1
        jobs = [new_job(id, details=Details(idempotency_key="k") if keyed else NO_DETAILS) for (id,) in requests]
        for answer in one.add([AddRequest((job,)) for job in jobs]):
            assert isinstance(answer, list)
        assert other.queues()[0].unfinished == len(jobs)


def test_queue_with_a_switch_outlives_its_jobs(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "store.db")) as engine:
        engine.alter_queue("mail", max_jobs=5)
        drop(engine, add_one(engine, queue="mail"))
        assert queues(engine) == ["mail"]
        engine.alter_queue("mail", unlimited=True)
        assert queues(engine) == []


def drop(engine: SqliteEngine, id: JobId) -> None:
    [altered] = engine.alter([id], Delete())
    assert altered.refused is None


def queues(engine: SqliteEngine) -> list[str]:
    return [queue.name for queue in engine.queues()]
