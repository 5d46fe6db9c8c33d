"""Writing in the transaction of a connection that belongs to the caller, which alone commits it or takes it back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import TransactionStatus

from penstock.engines.callers import driver_connection, name_of
from penstock.engines.postgres.store import Session, Store
from penstock.model.errors import ConnectionInvalid

#: The epoch of the store that each connection was found to lead to, by the schema that was looked at.
_known: "WeakKeyDictionary[psycopg.Connection[Any], dict[str, str]]" = WeakKeyDictionary()


class Caller:
    """A caller's connection to the database of one store.

    Raises:
        ConnectionInvalid: it cannot carry a job.
    """

    def __init__(self, given: Any, store: Store) -> None:
        db = driver_connection(given)
        self._store = store
        if not isinstance(db, psycopg.Connection):
            raise ConnectionInvalid(
                f"{name_of(db)} is no connection of psycopg 3 to {store.shown}, where the jobs are. "
                "Give a psycopg.Connection, or a SQLAlchemy or Django connection over one."
            )
        self._db: psycopg.Connection[Any] = db
        if db.closed:
            raise ConnectionInvalid("The connection is closed. Give one that is open, in its transaction.")
        status = db.info.transaction_status
        if status == TransactionStatus.IDLE and db.autocommit:
            raise ConnectionInvalid(
                "The connection commits each statement by itself, and no transaction is open in it. "
                "Begin one (`with db.transaction():`; in Django, transaction.atomic()), or leave connection= out."
            )
        if status == TransactionStatus.INERROR:
            raise ConnectionInvalid("The connection's transaction has failed. Roll it back, and begin anew.")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Hold the connection inside its transaction; what raises is taken back alone."""
        db = self._db
        with self._store.translated():
            db.execute("SAVEPOINT penstock")
            try:
                session = self._store.session(db)
                self._check_database(session)
                yield session
            except BaseException:
                if db.info.transaction_status in (TransactionStatus.INERROR, TransactionStatus.INTRANS):
                    db.execute("ROLLBACK TO SAVEPOINT penstock")
                raise
            db.execute("RELEASE SAVEPOINT penstock")

    def _check_database(self, session: Session) -> None:
        """Compare the stores' epochs: each store has its own."""
        known = _known.setdefault(self._db, {})
        if known.get(self._store.schema) == self._store.epoch != "":
            return
        try:
            row = session.row("epoch")
        except psycopg.errors.UndefinedTable:
            theirs = None
        else:
            if row is None:
                raise ConnectionInvalid(
                    f"The connection's transaction began before {self._store.shown} was made, and cannot see it. "
                    "Begin a new transaction, or let it be READ COMMITTED."
                )
            theirs = row[0]
        ours = self._store.row("epoch")[0]
        if theirs != ours:
            raise ConnectionInvalid(
                f"The connection is to the database {self._db.info.dbname!r}, "
                f"but the jobs belong in {self._store.shown}. "
                "Connect to that database, or name your database as the setting `outbox`."
            )
        known[self._store.schema] = ours
