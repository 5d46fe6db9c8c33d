"""The write-ahead log: bounded while writers write, and never checkpointed in a way that ruins the file."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from penstock.engine import Filter
from penstock.model.job import Change
from penstock.testing.conformance.trial import change, new_job, want
from tests.engines.sqlite.children import Child, tell
from tests.engines.sqlite.jobs import add, add_one, assert_sound, enrol, opened, stored_ids

MIB = 1024 * 1024
BOUND = 96 * MIB


def test_log_stays_bounded_under_sustained_writing(tmp_path: Path) -> None:
    engine = opened(tmp_path / "store.db")
    for _ in range(400):
        add(engine, *(new_job(args=f'["{"x" * 300}"]') for _ in range(100)))
    assert log_bytes(tmp_path) < 40 * MIB
    assert (tmp_path / "store.db").stat().st_size > 10 * MIB
    engine.close()


@pytest.mark.slow
@pytest.mark.lonely
def test_log_stays_bounded_with_large_envelopes(tmp_path: Path) -> None:
    engine = opened(tmp_path / "store.db")
    for _ in range(110):
        add_one(engine, args=large())
    assert log_bytes(tmp_path) < BOUND
    engine.close()


@pytest.mark.slow
@pytest.mark.lonely
def test_log_stays_bounded_when_each_writer_writes_once(tmp_path: Path) -> None:
    """No single writer sees much of the log grow, and one that stays open keeps SQLite from tidying up at the end."""
    idle = opened(tmp_path / "store.db")
    idle.counts()
    for _ in range(110):
        writer = opened(tmp_path / "store.db")
        add_one(writer, args=large())
        writer.close()
    assert log_bytes(tmp_path) < BOUND
    idle.close()


@pytest.mark.slow
@pytest.mark.lonely
def test_log_that_a_long_reader_let_grow_is_cut_when_the_reader_ends(tmp_path: Path) -> None:
    engine = opened(tmp_path / "store.db")
    add_one(engine, "seen")
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM jobs").fetchone()[0] == 1
        for _ in range(120):
            add_one(engine, args=large())
        assert reader.execute("SELECT count(*) FROM jobs").fetchone()[0] == 1
        assert log_bytes(tmp_path) > BOUND
        reader.execute("ROLLBACK")
    for _ in range(40):
        add_one(engine, args=large())
    assert log_bytes(tmp_path) < BOUND
    assert len(stored_ids(engine)) == 161
    engine.close()
    assert_sound(tmp_path / "store.db")


@pytest.mark.slow
@pytest.mark.lonely
def test_ten_seconds_of_writing_and_checkpointing_leave_the_file_sound(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    looker = opened(path)
    children = [Child(write_and_checkpoint, str(path), f"w{number}", 10.0) for number in range(3)]
    while any(child.is_running() for child in children):
        looker.find(Filter())
    told = [child.heard() for child in children]
    for child in children:
        child.kill()
    assert sum(one["checkpoints"] for one in told) > 100
    assert sum(one["jobs"] for one in told) == len(stored_ids(looker))
    looker.close()
    assert_sound(path)


def log_bytes(folder: Path) -> int:
    return (folder / "store.db-wal").stat().st_size


def large() -> str:
    return f'["{"x" * MIB}"]'


# -- child ------------------------------------------------------------------------------------------------------------


def write_and_checkpoint(path: str, name: str, seconds: float) -> None:
    """Write as workers do, with the log shortened after every few commits instead of after thousands."""
    engine = opened(path)
    process = enrol(engine, name)
    jobs = checkpoints = beat = 0
    changes: tuple[Change, ...] = ()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        add(engine, *(new_job(f"{name}-{jobs + number}") for number in range(5)))
        jobs, beat = jobs + 5, beat + 1
        changes = tuple(change(claim) for claim in engine.exchange(process, beat, changes, want(limit=5)).claims)
        if jobs % 50 == 0:
            engine._store.shorten_log()
            checkpoints += 1
    engine.close()
    tell({"jobs": jobs, "checkpoints": checkpoints})
