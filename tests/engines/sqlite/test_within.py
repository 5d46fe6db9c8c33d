"""Adding within a transaction of a `sqlite3.Connection`: its settings do not matter, its locks do."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from penstock.engine import Added, AddRequest
from penstock.engines.sqlite import SqliteEngine
from penstock.model.errors import (
    ConnectionInvalid,
    EngineBusy,
    EngineDown,
    EngineFull,
    EngineReadOnly,
    PenstockError,
    QueueFull,
    StoreInvalid,
)
from penstock.model.job import JobId
from penstock.model.states import State
from penstock.testing.conformance.trial import new_job

WAIT_S = 0.3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
def engine(path: Path) -> Iterator[SqliteEngine]:
    engine = SqliteEngine(path, durability="normal", timeout_s=WAIT_S)
    engine.counts()
    with closing(engine):
        yield engine


@pytest.fixture
def connection(engine: SqliteEngine) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(engine.path)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        yield connection


def add(engine: SqliteEngine, connection: Any, **fields: Any) -> JobId:
    [answer] = engine.add_within(connection, [AddRequest((new_job(**fields),))])
    if isinstance(answer, PenstockError):
        raise answer
    return answer[0].id


def state(engine: SqliteEngine, id: JobId) -> State | None:
    [job] = engine.get([id])
    return None if job is None else job.state


def test_job_and_order_are_committed_together(engine: SqliteEngine, connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("INSERT INTO orders VALUES (7)")
    id = add(engine, connection)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT * FROM orders").fetchall() == []
        assert state(engine, id) is None
        connection.commit()
        assert other.execute("SELECT * FROM orders").fetchall() == [(7,)]
    assert state(engine, id) is State.READY


def test_job_and_order_are_taken_back_together(engine: SqliteEngine, connection: sqlite3.Connection) -> None:
    id = add(engine, connection)
    connection.execute("INSERT INTO orders VALUES (7)")
    connection.rollback()
    assert connection.execute("SELECT * FROM orders").fetchall() == []
    assert state(engine, id) is None


def test_connection_as_context_commits_and_takes_back(engine: SqliteEngine, connection: sqlite3.Connection) -> None:
    with connection:
        kept = add(engine, connection)
    with suppress(ZeroDivisionError), connection:
        lost = add(engine, connection)
        raise ZeroDivisionError
    assert (state(engine, kept), state(engine, lost)) == (State.READY, None)


@pytest.mark.parametrize("level", ["DEFERRED", "IMMEDIATE", "EXCLUSIVE"])
def test_isolation_level_does_not_matter(engine: SqliteEngine, connection: sqlite3.Connection, level: Any) -> None:
    connection.isolation_level = level
    id = add(engine, connection)
    connection.commit()
    assert state(engine, id) is State.READY


def test_begun_by_hand_in_autocommit_mode(engine: SqliteEngine, connection: sqlite3.Connection) -> None:
    connection.isolation_level = None
    connection.execute("BEGIN")
    id = add(engine, connection)
    connection.execute("COMMIT")
    assert state(engine, id) is State.READY


def test_autocommit_without_a_transaction_is_refused(engine: SqliteEngine, connection: sqlite3.Connection) -> None:
    connection.isolation_level = None
    with pytest.raises(ConnectionInvalid, match=r"BEGIN IMMEDIATE"):
        add(engine, connection)
    assert not connection.in_transaction


def test_factories_do_not_matter_and_are_kept(engine: SqliteEngine, connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    connection.text_factory = bytes
    connection.execute("BEGIN")
    id = add(engine, connection, queue="mail")
    assert add(engine, connection, queue="mail") > id
    connection.commit()
    assert connection.row_factory is sqlite3.Row
    assert connection.text_factory is bytes
    assert state(engine, id) is State.READY


def test_row_of_the_caller_survives_a_refusal(engine: SqliteEngine, connection: sqlite3.Connection) -> None:
    engine.alter_queue("full", max_jobs=0)
    connection.execute("INSERT INTO orders VALUES (7)")
    with pytest.raises(QueueFull):
        add(engine, connection, queue="full")
    connection.commit()
    assert connection.execute("SELECT * FROM orders").fetchall() == [(7,)]


def test_savepoint_of_the_caller_takes_the_job_back_alone(engine: SqliteEngine, connection: sqlite3.Connection) -> None:
    kept = add(engine, connection)
    connection.execute("SAVEPOINT penstock")
    lost = add(engine, connection)
    connection.execute("ROLLBACK TO penstock")
    connection.commit()
    assert (state(engine, kept), state(engine, lost)) == (State.READY, None)


def test_timeout_of_the_connection_is_kept(engine: SqliteEngine, connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA busy_timeout = 1234")
    add(engine, connection)
    assert connection.execute("PRAGMA busy_timeout").fetchone() == (1234,)


def test_locked_file_is_told_in_time_and_the_transaction_stays(
    engine: SqliteEngine, connection: sqlite3.Connection, path: Path
) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        connection.execute("BEGIN")
        began = time.monotonic()
        with pytest.raises(EngineBusy, match="locked"):
            add(engine, connection)
        assert time.monotonic() - began < 10 * WAIT_S
        other.rollback()
    assert connection.in_transaction
    id = add(engine, connection)
    connection.commit()
    assert state(engine, id) is State.READY


def test_caller_gets_its_turn_when_the_lock_is_free(engine: SqliteEngine, path: Path) -> None:
    patient = SqliteEngine(path, durability="normal", timeout_s=30)
    with closing(patient), closing(sqlite3.connect(path, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        releasing = threading.Timer(WAIT_S, other.rollback)
        releasing.start()
        with closing(sqlite3.connect(path)) as connection:
            id = add(patient, connection)
            connection.commit()
        releasing.join()
    assert state(engine, id) is State.READY


def test_read_before_another_wrote_is_told_with_the_way_out(
    engine: SqliteEngine, connection: sqlite3.Connection
) -> None:
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM orders").fetchall()
    engine.add([AddRequest((new_job(),))])
    with pytest.raises(EngineBusy, match="BEGIN IMMEDIATE"):
        add(engine, connection)
    assert connection.in_transaction
    connection.rollback()
    add(engine, connection)


def test_caller_who_never_commits_locks_others_out_with_words(
    engine: SqliteEngine, connection: sqlite3.Connection
) -> None:
    add(engine, connection)
    with pytest.raises(EngineBusy, match="penstock doctor"):
        engine.add([AddRequest((new_job(),))])
    assert engine.counts() == []
    connection.rollback()
    engine.add([AddRequest((new_job(),))])


def test_waiter_finds_the_job_within_about_a_second(engine: SqliteEngine, connection: sqlite3.Connection) -> None:
    from penstock.engine import Subject

    ended = threading.Event()

    def wait() -> None:
        engine.wait(Subject(queues=()), 0, 30)
        ended.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    add(engine, connection)
    connection.commit()
    assert ended.wait(10)
    waiting.join()


def test_other_file_is_refused(engine: SqliteEngine, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE orders (id)")
        with pytest.raises(ConnectionInvalid, match=r"other\.db, but the jobs belong in .*shop\.db.*outbox"):
            add(engine, other)


def test_attached_file_is_refused(engine: SqliteEngine, path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("ATTACH ? AS store", (str(path),))
        with pytest.raises(ConnectionInvalid, match="attached"):
            add(engine, other)


def test_database_in_memory_is_refused(engine: SqliteEngine) -> None:
    with closing(sqlite3.connect(":memory:")) as other, pytest.raises(ConnectionInvalid, match="in memory"):
        add(engine, other)


def test_link_to_the_same_file_is_accepted(engine: SqliteEngine, path: Path, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(path)
    with closing(sqlite3.connect(tmp_path / "link.db")) as other:
        id = add(engine, other)
        other.commit()
    assert state(engine, id) is State.READY


def test_connection_of_another_thread_is_refused(engine: SqliteEngine, path: Path) -> None:
    opened, tried = Queue[sqlite3.Connection](), threading.Event()

    def hold_open() -> None:
        with closing(sqlite3.connect(path)) as connection:
            opened.put(connection)
            tried.wait(30)

    holder = threading.Thread(target=hold_open)
    holder.start()
    try:
        with pytest.raises(ConnectionInvalid, match="thread"):
            add(engine, opened.get(timeout=30))
    finally:
        tried.set()
        holder.join()


def test_read_only_connection_is_told(engine: SqliteEngine, path: Path) -> None:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as other, pytest.raises(EngineReadOnly):
        add(engine, other)


def test_store_is_made_where_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    with closing(SqliteEngine(path, durability="normal")) as engine, closing(sqlite3.connect(path)) as connection:
        id = add(engine, connection)
        connection.commit()
        assert state(engine, id) is State.READY


def test_open_transaction_on_a_file_without_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    with closing(SqliteEngine(path, durability="normal")) as engine, closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreInvalid, match="penstock migrate"):
            add(engine, connection)
        assert connection.in_transaction


def test_journal_mode_of_the_store_holds_for_the_caller(engine: SqliteEngine, connection: sqlite3.Connection) -> None:
    add(engine, connection)
    connection.commit()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_idempotent_id_of_two_connections(engine: SqliteEngine, connection: sqlite3.Connection, path: Path) -> None:
    job = new_job()
    assert engine.add_within(connection, [AddRequest((job,))]) == [[Added(job.id)]]
    connection.commit()
    with closing(sqlite3.connect(path)) as other:
        assert engine.add_within(other, [AddRequest((job,))]) == [[Added(job.id, existing=True)]]
        other.rollback()


def test_temporary_table_that_hides_one_of_the_store_is_refused(
    engine: SqliteEngine, connection: sqlite3.Connection
) -> None:
    connection.execute("CREATE TEMP TABLE notes (id)")
    connection.commit()
    add(engine, connection)
    connection.commit()
    connection.execute("CREATE TEMP TABLE jobs (id)")
    with pytest.raises(ConnectionInvalid, match="'jobs'"):
        add(engine, connection)


def test_failure_in_the_middle_takes_back_the_jobs_alone(engine: SqliteEngine, connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TRIGGER refuse BEFORE INSERT ON ready BEGIN SELECT RAISE(FAIL, 'no'); END")
    connection.execute("INSERT INTO orders VALUES (7)")
    with pytest.raises(EngineDown, match="no"):
        add(engine, connection)
    connection.execute("DROP TRIGGER refuse")
    connection.commit()
    assert connection.execute("SELECT * FROM orders").fetchall() == [(7,)]
    assert engine.counts() == []


def test_full_file_is_told_and_the_connection_can_go_on(engine: SqliteEngine, connection: sqlite3.Connection) -> None:
    """SQLite may take back the whole transaction then, which is its own rule."""
    [pages] = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    connection.execute("INSERT INTO orders VALUES (7)")
    with pytest.raises(EngineFull):
        add(engine, connection, args=f'["{"x" * 100_000}"]')
    connection.rollback()
    connection.execute(f"PRAGMA max_page_count = {pages * 100}")
    id = add(engine, connection, args=f'["{"x" * 100_000}"]')
    connection.commit()
    assert state(engine, id) is State.READY
