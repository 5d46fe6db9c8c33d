"""The outbox in each database it can stand in: written in the caller's transaction, taken by one at a time."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from penstock.engine import ALL_CAPABILITIES
from penstock.engines.open import check_outbox, open_outbox
from penstock.model.errors import ConnectionInvalid, EngineDown, EngineUnknown, StoreInvalid, Unsupported
from penstock.model.job import Details, NewJob, Unique
from penstock.outbox import Entry, Fate, Outbox, Standing, read_job
from penstock.testing.conformance.trial import new_job
from tests.engines.databases import Database, PostgresDatabase, SqliteDatabase, made

LEASE_MS = 60_000


@pytest.fixture(params=["sqlite", "sqlite in WAL mode", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "postgres":
        return PostgresDatabase(request.getfixturevalue("postgres_server").url)
    return SqliteDatabase(tmp_path / "app.db", "wal" if "WAL" in request.param else "delete")


@pytest.fixture
def outbox(database: Database) -> Iterator[Outbox]:
    with closing(made(database)) as outbox:
        yield outbox


@pytest.fixture
def connection(database: Database, outbox: Outbox) -> Iterator[Any]:  # noqa: ARG001 (there is a table)
    with closing(database.connect()) as connection:
        yield connection


def put(outbox: Outbox, connection: Any, *jobs: NewJob) -> None:
    outbox.put(connection, jobs, ALL_CAPABILITIES)


def put_in_vain(outbox: Outbox, connection: Any, told: str) -> None:
    with pytest.raises(ConnectionInvalid, match=told):
        put(outbox, connection, new_job())


def take(outbox: Outbox, limit: int = 100) -> list[Entry]:
    return outbox.take(limit, LEASE_MS)


def ids(entries: list[Entry]) -> list[str]:
    return [read_job(entry.job).id for entry in entries]


def test_committed_jobs_are_taken_in_order_and_whole(outbox: Outbox, connection: Any) -> None:
    details = Details(tags=("π",), unique=Unique("key\0", clash="replace"))
    jobs = [new_job(details=details, priority=-3, expires_in_ms=5), new_job(delay_ms=7), new_job(queue="mail")]
    put(outbox, connection, *jobs)
    connection.commit()
    assert [read_job(entry.job) for entry in take(outbox)] == jobs


def test_rolled_back_jobs_were_never_there(outbox: Outbox, connection: Any, database: Database) -> None:
    connection.execute("INSERT INTO orders VALUES (7)")
    put(outbox, connection, new_job())
    connection.rollback()
    assert take(outbox) == []
    assert database.execute("SELECT * FROM orders") == []


def test_jobs_are_invisible_until_the_commit(outbox: Outbox, connection: Any) -> None:
    put(outbox, connection, new_job())
    assert take(outbox) == []
    assert outbox.stand() == Standing(exists=True)
    connection.commit()
    assert len(take(outbox)) == 1


def test_taken_entry_is_nobody_elses_until_its_lease_lapses(
    outbox: Outbox, connection: Any, database: Database
) -> None:
    first, second = new_job(), new_job()
    put(outbox, connection, first, second)
    connection.commit()
    assert ids(take(outbox, limit=1)) == [first.id]
    with closing(open_outbox(database.url)) as other:
        assert ids(take(other)) == [second.id]
        assert take(other) == []
        database.pass_time(LEASE_MS)
        assert ids(take(other)) == [first.id, second.id]


def test_carried_entry_is_gone(outbox: Outbox, connection: Any, database: Database) -> None:
    put(outbox, connection, new_job())
    connection.commit()
    [entry] = take(outbox)
    outbox.settle([Fate(entry.number)])
    assert database.execute("SELECT * FROM penstock_outbox") == []


def test_entry_that_is_put_off_comes_again_with_its_tries(outbox: Outbox, connection: Any, database: Database) -> None:
    put(outbox, connection, new_job())
    connection.commit()
    for tries in range(3):
        [entry] = take(outbox)
        assert entry.tries == tries
        outbox.settle([Fate(entry.number, "QueueFull: x", again_ms=5000)])
        assert take(outbox) == []
        assert outbox.stand().waiting == 1
        database.pass_time(5000)


def test_entry_that_is_set_aside_stays_with_its_error(outbox: Outbox, connection: Any, database: Database) -> None:
    bad, good = new_job(), new_job()
    put(outbox, connection, bad, good)
    connection.commit()
    outbox.settle([Fate(take(outbox, limit=1)[0].number, "IdempotencyConflict: x")])
    database.pass_time(LEASE_MS)
    assert ids(take(outbox)) == [good.id]
    standing = outbox.stand()
    assert (standing.waiting, standing.aside, standing.shown) == (1, 1, ((bad.id, "IdempotencyConflict: x"),))
    assert standing.oldest_ms >= LEASE_MS


def test_making_it_twice_and_at_once_does_no_harm(database: Database) -> None:
    barrier = threading.Barrier(4)
    failed: list[Exception] = []

    def make() -> None:
        with closing(open_outbox(database.url)) as outbox:
            barrier.wait(30)
            try:
                outbox.make()
            except Exception as error:  # noqa: BLE001 (shown below)
                failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with closing(open_outbox(database.url)) as outbox:
        assert outbox.stand() == Standing(exists=True)


def test_without_a_table_it_says_how_to_make_one(database: Database) -> None:
    with closing(open_outbox(database.url)) as outbox, closing(database.connect()) as connection:
        assert outbox.stand() == Standing(exists=False)
        with pytest.raises(StoreInvalid, match="penstock migrate"):
            take(outbox)
        with pytest.raises(StoreInvalid, match="penstock migrate"):
            put(outbox, connection, new_job())
        connection.execute("INSERT INTO orders VALUES (7)")
        with pytest.raises(StoreInvalid, match="penstock migrate"):
            put(outbox, connection, new_job())
        connection.commit()
    assert database.execute("SELECT id FROM orders") == [(7,)]


def test_unsound_job_and_one_that_the_store_cannot_take_are_refused(outbox: Outbox, connection: Any) -> None:
    with pytest.raises(ValueError, match="delay"):
        put(outbox, connection, new_job(delay_ms=-1))
    with pytest.raises(Unsupported, match="order_key"):
        outbox.put(connection, [new_job(details=Details(order_key="k"))], frozenset())
    connection.commit()
    assert take(outbox) == []


def test_closed_connection_is_refused(outbox: Outbox, connection: Any) -> None:
    connection.close()
    with pytest.raises(ConnectionInvalid, match="closed"):
        put(outbox, connection, new_job())


def test_other_things_are_refused(outbox: Outbox) -> None:
    with pytest.raises(ConnectionInvalid, match="object"):
        put(outbox, object(), new_job())


def test_many_takers_share_what_there_is(outbox: Outbox, connection: Any, database: Database) -> None:
    jobs = [new_job() for _ in range(60)]
    put(outbox, connection, *jobs)
    connection.commit()
    taken: list[list[str]] = [[] for _ in range(4)]

    def work(number: int) -> None:
        with closing(open_outbox(database.url)) as own:
            while entries := take(own, limit=7):
                taken[number] += ids(entries)
                own.settle([Fate(entry.number) for entry in entries])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(id for part in taken for id in part) == sorted(job.id for job in jobs)


def test_autocommit_of_psycopg_needs_a_transaction(postgres_server: Any) -> None:
    database = PostgresDatabase(postgres_server.url)
    with closing(made(database)) as outbox, psycopg.connect(database.url, autocommit=True) as connection:
        with pytest.raises(ConnectionInvalid, match="commits each statement"):
            put(outbox, connection, new_job())
        with connection.transaction():
            put(outbox, connection, new_job())
        assert len(take(outbox)) == 1


def test_failed_transaction_of_psycopg_is_told(postgres_server: Any) -> None:
    database = PostgresDatabase(postgres_server.url)
    with closing(made(database)) as outbox, psycopg.connect(database.url) as connection:
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT 1/0")
        with pytest.raises(ConnectionInvalid, match="Roll it back"):
            put(outbox, connection, new_job())
        connection.rollback()
        put(outbox, connection, new_job())


def test_other_database_of_the_server_is_refused(postgres_server: Any) -> None:
    database = PostgresDatabase(postgres_server.url)
    other = postgres_server.url.replace("/postgres", "/template1")
    with closing(made(database)) as outbox, psycopg.connect(other) as connection:
        put_in_vain(outbox, connection, "'template1'")


def test_outbox_comes_back_after_its_connection_was_cut(postgres_server: Any) -> None:
    database = PostgresDatabase(postgres_server.url)
    with closing(made(database)) as outbox:
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'penstock outbox'"
        )
        with pytest.raises(EngineDown):
            take(outbox)
        assert take(outbox) == []


def test_missing_file_is_told_and_not_made(tmp_path: Path) -> None:
    outbox = open_outbox(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(EngineDown, match="make your database first"):
        outbox.make()
    assert not (tmp_path / "none.db").exists()


def test_connection_to_another_file_is_refused(tmp_path: Path) -> None:
    outbox = made(SqliteDatabase(tmp_path / "app.db"))
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        put_in_vain(outbox, other, "other")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://localhost", "names no database for an outbox"),
        ("postgresql+psycopg://localhost/app", "names no database for an outbox"),
        ("app.db", "names no database for an outbox"),
        ("sqlite://app.db", "two slashes"),
        ("sqlite:///app.db?durability=full", "It takes none"),
    ],
)
def test_url_that_names_no_outbox_is_refused(url: str, told: str) -> None:
    with pytest.raises(EngineUnknown, match=told):
        check_outbox(url)
