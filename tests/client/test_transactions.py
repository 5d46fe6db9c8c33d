"""Jobs that are enqueued in the transaction of a connection: of a driver, of SQLAlchemy, of Django."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from django import setup
from django.conf import settings as django_settings
from django.db import connection as django_connection
from django.db import connections, transaction
from django.db.utils import ConnectionHandler
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from penstock import (
    ArgumentsInvalid,
    ConnectionInvalid,
    JobHandle,
    JobNotFound,
    Penstock,
    QueueFull,
    State,
    Unsupported,
)
from penstock.model.job import ProcessId
from penstock.testing import run_jobs
from penstock.worker.relay import carry
from tests.engines.databases import Database, PostgresDatabase, SqliteDatabase, made


class Stop(Exception):
    """What makes a caller's transaction fail."""


class Shop:
    """An application with a database: its jobs are stored in there, or carried from there to a store elsewhere."""

    def __init__(self, database: Database, app: Penstock) -> None:
        self.database, self.app = database, app
        self.send = app.task(name="shop.send")(send)

    def orders(self) -> int:
        return len(self.database.execute("SELECT id FROM orders"))

    def carry(self) -> None:
        """Do what a worker does about the outbox, and about jobs that a store lets fall due after the commit."""
        outbox = self.app.outbox
        if outbox is not None:
            with closing(outbox):
                while carry(outbox, self.app.engine):
                    continue
        for _ in range(2):  # a call lets 1,000 jobs arrive
            self.app.engine.tend(ProcessId("nobody"))

    def state(self, handle: JobHandle[Any]) -> State | None:
        self.carry()
        return self.look(handle)

    def look(self, handle: JobHandle[Any]) -> State | None:
        try:
            return handle.state()
        except JobNotFound:
            return None


def send(order: int, note: str = "") -> int:
    return order + len(note)


@pytest.fixture(params=["store in SQLite", "store in PostgreSQL", "outbox in SQLite", "outbox in PostgreSQL"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    store = f"sqlite:///{tmp_path}/store.db?durability=normal"
    if request.param == "store in SQLite":
        with Penstock(store) as app:
            app.counts()
            yield Shop(SqliteDatabase(tmp_path / "store.db", "wal"), app)
        return
    if request.param == "store in PostgreSQL":
        url = request.getfixturevalue("postgres_server").empty_store()
        with Penstock(url) as app:
            app.counts()
            yield Shop(PostgresDatabase(url), app)
        return
    if "SQLite" in request.param:
        database: Database = SqliteDatabase(tmp_path / "app.db")
    else:
        database = PostgresDatabase(request.getfixturevalue("postgres_server").url)
    made(database).close()
    with Penstock(store, outbox=database.url) as app:
        yield Shop(database, app)


def work(shop: Shop, connection: Any, insert: Callable[[str], Any], number: int) -> JobHandle[Any]:
    insert(f"INSERT INTO orders VALUES ({number})")
    return shop.send.using(connection=connection).enqueue(number)


@contextmanager
def driver(database: Database) -> Iterator[Any]:
    with closing(database.connect()) as connection:
        try:
            yield connection, connection.execute
        except Stop:
            connection.rollback()
        else:
            connection.commit()


@contextmanager
def sqlalchemy_connection(database: Database) -> Iterator[Any]:
    with engine_of(database) as engine, engine.connect() as connection:
        try:
            yield connection, lambda statement: connection.execute(sqlalchemy.text(statement))
        except Stop:
            connection.rollback()
        else:
            connection.commit()


@contextmanager
def sqlalchemy_begin(database: Database) -> Iterator[Any]:
    with engine_of(database) as engine:
        try:
            with engine.begin() as connection:
                yield connection, lambda statement: connection.execute(sqlalchemy.text(statement))
        except Stop:
            return


@contextmanager
def sqlalchemy_session(database: Database) -> Iterator[Any]:
    with engine_of(database) as engine:
        try:
            with Session(engine) as session, session.begin():
                yield session, lambda statement: session.execute(sqlalchemy.text(statement))
        except Stop:
            return


@contextmanager
def sqlalchemy_scoped_session(database: Database) -> Iterator[Any]:
    with engine_of(database) as engine:
        session = scoped_session(sessionmaker(engine))
        try:
            yield session, lambda statement: session.execute(sqlalchemy.text(statement))
        except Stop:
            session.rollback()
        else:
            session.commit()
        finally:
            session.remove()


@contextmanager
def django_atomic(database: Database) -> Iterator[Any]:
    with django(database):
        try:
            with transaction.atomic(), django_connection.cursor() as cursor:
                yield django_connection, cursor.execute
        except Stop:
            return


@contextmanager
def engine_of(database: Database) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(database.sqlalchemy_url)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def django(database: Database) -> Iterator[None]:
    if not django_settings.configured:
        django_settings.configure(USE_TZ=True, LOGGING_CONFIG=None)
        setup()
    connections["default"] = ConnectionHandler({"default": django_database(database)})["default"]
    try:
        yield
    finally:
        connections["default"].close()


def django_database(database: Database) -> dict[str, Any]:
    if isinstance(database, SqliteDatabase):
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(database.path)}
    url = sqlalchemy.make_url(database.sqlalchemy_url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.database,
        "USER": url.username,
        "HOST": url.host,
        "PORT": url.port,
        "OPTIONS": dict(url.query),
    }


CALLERS = [
    driver,
    sqlalchemy_connection,
    sqlalchemy_begin,
    sqlalchemy_session,
    sqlalchemy_scoped_session,
    django_atomic,
]


@pytest.mark.parametrize("caller", CALLERS)
def test_job_and_order_appear_with_the_commit(shop: Shop, caller: Any) -> None:
    with caller(shop.database) as (connection, insert):
        handle = work(shop, connection, insert, 7)
        assert handle.id
        assert shop.look(handle) is None
    assert shop.orders() == 1
    assert shop.state(handle) is State.READY
    [job] = shop.app.find()
    assert (job.id, job.task) == (handle.id, "shop.send")


@pytest.mark.parametrize("caller", CALLERS)
def test_job_and_order_are_taken_back_together(shop: Shop, caller: Any) -> None:
    with caller(shop.database) as (connection, insert):
        handle = work(shop, connection, insert, 7)
        raise Stop
    assert shop.orders() == 0
    assert shop.state(handle) is None


@pytest.mark.parametrize("caller", CALLERS)
def test_job_may_be_all_that_the_transaction_does(shop: Shop, caller: Any) -> None:
    """The wrapper must know that a transaction is open, or its commit does nothing."""
    with caller(shop.database) as (connection, _):
        handle = shop.send.using(connection=connection).enqueue(7)
    assert shop.state(handle) is State.READY


@pytest.mark.parametrize("caller", [sqlalchemy_session, django_atomic])
def test_refused_arguments_leave_the_transaction_usable(shop: Shop, caller: Any) -> None:
    with caller(shop.database) as (connection, insert):
        with pytest.raises(ArgumentsInvalid):
            shop.send.using(connection=connection).enqueue("seven")
        handle = work(shop, connection, insert, 7)
    assert shop.orders() == 1
    assert shop.state(handle) is State.READY


@pytest.mark.parametrize("caller", [sqlalchemy_session, django_atomic])
def test_many_jobs_in_order(shop: Shop, caller: Any) -> None:
    with caller(shop.database) as (connection, _):
        handles = shop.send.using(connection=connection).enqueue_many([(number,) for number in range(1500)])
        by_name = shop.app.using(connection=connection, priority=3).enqueue("billing.charge", 7)
    assert shop.state(by_name) is State.READY
    assert len(shop.app.find(task=shop.send, limit=2000)) == len({handle.id for handle in handles}) == 1500


def test_full_queue_leaves_the_transaction_usable(tmp_path: Path) -> None:
    with Penstock(f"sqlite:///{tmp_path}/store.db?durability=normal") as app:
        app.queue("full").limit(max_jobs=0)
        shop = Shop(SqliteDatabase(tmp_path / "store.db", "wal"), app)
        with sqlalchemy_session(shop.database) as (session, insert):
            with pytest.raises(QueueFull):
                shop.send.using(connection=session, queue="full").enqueue(1)
            handle = work(shop, session, insert, 7)
        assert shop.orders() == 1
        assert shop.state(handle) is State.READY


def test_savepoint_of_sqlalchemy_takes_its_jobs_back_alone(shop: Shop) -> None:
    with sqlalchemy_session(shop.database) as (session, insert):
        kept = work(shop, session, insert, 7)
        with session.begin_nested() as nested:
            lost = work(shop, session, insert, 8)
            nested.rollback()
    assert (shop.state(kept), shop.state(lost)) == (State.READY, None)


def test_inner_atomic_of_django_takes_its_jobs_back_alone(shop: Shop) -> None:
    with django_atomic(shop.database) as (connection, insert):
        kept = work(shop, connection, insert, 7)
        with transaction.atomic():
            lost = work(shop, connection, insert, 8)
            transaction.set_rollback(True)
    assert (shop.state(kept), shop.state(lost)) == (State.READY, None)


def test_django_outside_atomic_is_refused(shop: Shop) -> None:
    with django(shop.database), pytest.raises(ConnectionInvalid, match="atomic"):
        shop.send.using(connection=django_connection).enqueue(7)


def test_sqlalchemy_in_autocommit_mode_is_refused(shop: Shop) -> None:
    with engine_of(shop.database) as engine, engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(ConnectionInvalid, match="commits each statement by itself"):
            shop.send.using(connection=connection).enqueue(7)


def test_engine_of_sqlalchemy_is_refused(shop: Shop) -> None:
    with engine_of(shop.database) as engine, pytest.raises(ConnectionInvalid, match=r"engine\.begin\(\)"):
        shop.send.using(connection=engine).enqueue(7)


def test_closed_connection_of_sqlalchemy_is_refused(shop: Shop) -> None:
    with engine_of(shop.database) as engine:
        connection = engine.connect()
        connection.close()
        with pytest.raises(ConnectionInvalid, match="closed"):
            shop.send.using(connection=connection).enqueue(7)


def test_asynchronous_connections_are_refused_with_the_way_out(shop: Shop) -> None:
    from psycopg import AsyncConnection

    class AsyncSession:
        """What SQLAlchemy's looks like from outside."""

        def run_sync(self) -> None: ...

    for given in (AsyncConnection.__new__(AsyncConnection), AsyncSession()):
        with pytest.raises(ConnectionInvalid, match=r"asyncio\.to_thread"):
            shop.send.using(connection=given).enqueue(7)


def test_cursor_and_other_things_are_refused(shop: Shop) -> None:
    with driver(shop.database) as (connection, _):
        for given in (connection.cursor(), "postgresql://secret@host", object()):
            with pytest.raises(ConnectionInvalid, match="is no connection") as refused:
                shop.send.using(connection=given).enqueue(7)
            assert "secret" not in str(refused.value)


def test_coroutine_enqueues_on_a_connection_of_its_thread(shop: Shop) -> None:
    async def place() -> JobHandle[Any]:
        with driver(shop.database) as (connection, _):
            return await shop.send.using(connection=connection).aenqueue(7)

    assert shop.state(asyncio.run(place())) is State.READY


def test_engine_without_database_names_the_outbox_as_way_out() -> None:
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(Unsupported, match="outbox"):
        Penstock("memory://").using(connection=connection).enqueue("x")


def test_job_in_the_outbox_keeps_the_terms_it_was_given(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "app.db")
    made(database).close()
    with Penstock(f"sqlite:///{tmp_path}/store.db", outbox=database.url) as app:
        shop = Shop(database, app)
        terms = {"queue": "mail", "priority": 5, "delay": 60, "tags": ["x"], "unique": True, "headers": {"a": "b"}}
        with driver(database) as (connection, _):
            handle = shop.send.using(connection=connection, **terms).enqueue(7)  # type: ignore[arg-type]
        assert shop.state(handle) is State.SCHEDULED
        job = handle.info()
    assert (job.queue, job.priority, job.details.tags) == ("mail", 5, ("x",))
    assert job.details.unique is not None


def test_jobs_of_the_outbox_are_run_in_a_test_of_the_application(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "app.db")
    made(database).close()
    app = Penstock("memory://", outbox=database.url)
    shop = Shop(database, app)
    with driver(database) as (connection, _):
        handle = shop.send.using(connection=connection).enqueue(7)
    assert run_jobs(app) == 1
    assert handle.result() == 7
