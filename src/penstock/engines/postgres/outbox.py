"""The outbox in a PostgreSQL database of the user's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from penstock.engine import AddRequest
from penstock.engines import checks
from penstock.engines.callers import driver_connection, name_of
from penstock.engines.statements import read_statements
from penstock.model.errors import ConnectionInvalid, EngineDown, EngineError, EngineFull, EngineReadOnly, StoreInvalid
from penstock.model.job import JobId, NewJob
from penstock.outbox import Entry, Fate, Standing, write_job

SQL = read_statements(Path(__file__).with_name("outbox.sql"))

_Connection = psycopg.Connection[TupleRow]


class PostgresOutbox:
    """The table `penstock_outbox` of one database, in the schema that its search path finds first.

    Args:
        url: as libpq takes it.
        shown: the same without its password.
        timeout_s: how long a connection or statement may take.
    """

    def __init__(self, url: str, shown: str, *, timeout_s: float = 5.0) -> None:
        self._url, self._shown, self._timeout_s = url, shown, timeout_s
        self._database = conninfo_to_dict(url).get("dbname")
        self._db: _Connection | None = None

    @property
    def url(self) -> str:
        return self._shown

    def make(self) -> None:
        with self._transaction() as db:
            if not _exists(db):
                db.execute(SQL["alone"])
                db.execute(SQL["make"])

    def put(self, connection: Any, jobs: Sequence[NewJob], capabilities: frozenset[str]) -> None:
        checks.check_requests([AddRequest(tuple(jobs))], "store's", capabilities)
        db = self._callers(connection)
        rows = [(job.id, write_job(job)) for job in jobs]
        with self._translated(), db.cursor(row_factory=tuple_row) as cursor:
            cursor.execute("SAVEPOINT penstock")  # a failed statement would otherwise end the caller's transaction
            try:
                cursor.executemany(SQL["put"], rows)
            except BaseException:
                if db.info.transaction_status == TransactionStatus.INERROR:
                    cursor.execute("ROLLBACK TO SAVEPOINT penstock")
                raise
            cursor.execute("RELEASE SAVEPOINT penstock")

    def take(self, limit: int, lease_ms: int) -> list[Entry]:
        with self._transaction() as db:
            rows = db.execute(SQL["take"], (lease_ms, limit)).fetchall()
        return sorted((Entry(*row) for row in rows), key=lambda entry: entry.number)

    def settle(self, fates: Sequence[Fate]) -> None:
        delivered = [fate.number for fate in fates if fate.error is None]
        kept = [
            (fate.again_ms or 0, fate.error, fate.again_ms is None, fate.number)
            for fate in fates
            if fate.error is not None
        ]
        with self._transaction() as db, db.cursor() as cursor:
            cursor.execute(SQL["drop"], (delivered,))
            if kept:
                cursor.executemany(SQL["put_off"], kept)

    def stand(self) -> Standing:
        with self._transaction() as db:
            if not _exists(db):
                return Standing(exists=False)
            [(waiting, oldest_ms, aside)] = db.execute(SQL["stand"]).fetchall()
            shown = tuple((JobId(id), str(error)) for id, error in db.execute(SQL["aside"]).fetchall()) if aside else ()
        return Standing(exists=True, waiting=waiting, oldest_ms=max(0, oldest_ms or 0), aside=aside, shown=shown)

    def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    # -- the caller's connection --------------------------------------------------------------------------------------

    def _callers(self, given: Any) -> _Connection:
        db = driver_connection(given)
        if not isinstance(db, psycopg.Connection):
            raise ConnectionInvalid(
                f"{name_of(db)} is no connection of psycopg to PostgreSQL, where the outbox {self._shown} is. "
                "Give a psycopg.Connection, or a SQLAlchemy or Django connection over one."
            )
        if db.closed:
            raise ConnectionInvalid("The connection is closed. Give one that is open, in its transaction.")
        if db.info.transaction_status == TransactionStatus.INERROR:
            raise ConnectionInvalid("The connection's transaction has failed. Roll it back, and do it again.")
        if db.autocommit and db.info.transaction_status == TransactionStatus.IDLE:
            raise ConnectionInvalid(
                "The connection commits each statement by itself, and no transaction is open in it. "
                "Begin one (connection.transaction(); in Django, transaction.atomic()), or leave connection= out."
            )
        if self._database is not None and db.info.dbname != self._database:
            raise ConnectionInvalid(
                f"The connection is to database {db.info.dbname!r}, but the outbox is {self._shown}. "
                "Connect to that, or name this database as the setting `outbox`."
            )
        return db

    # -- its own connection -------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[_Connection]:
        """Hold a connection of its own in one transaction; after a failure the next call makes a new one."""
        try:
            with self._translated():
                if self._db is None:
                    self._db = self._connect()
                with self._db.transaction():
                    self._db.execute(f"SET LOCAL statement_timeout = {round(self._timeout_s * 1000)}".encode())
                    yield self._db
        except EngineError:
            self.close()
            raise

    def _connect(self) -> _Connection:
        """Connect so that a vanished server is noticed in time, also through a pooler that shares connections."""
        seconds = max(1, round(self._timeout_s))
        ours = {
            "connect_timeout": seconds,
            "keepalives_idle": seconds,
            "keepalives_interval": seconds,
            "tcp_user_timeout": seconds * 2000,
            "application_name": "penstock outbox",
        }
        given: dict[str, Any] = {**ours, **conninfo_to_dict(self._url)}
        return psycopg.connect(**given, autocommit=True, prepare_threshold=None)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise self._told(error) from error

    def _told(self, error: psycopg.Error) -> EngineError:
        said = str(error).partition("\n")[0]
        match error:
            case psycopg.errors.UndefinedTable():
                return StoreInvalid(f"{self._shown} holds no outbox yet; run `penstock migrate` first.")
            case psycopg.errors.DiskFull():
                return EngineFull(f"No room left for the outbox {self._shown}: {said}. Free space on its disk.")
            case psycopg.errors.ReadOnlySqlTransaction():
                return EngineReadOnly(f"The outbox {self._shown} cannot be written: {said}. Name the primary server.")
        return EngineDown(f"The outbox {self._shown} failed: {said}. Check that its server runs and lets this user in.")


def _exists(db: _Connection) -> bool:
    return bool(db.execute(SQL["exists"]).fetchall()[0][0])
