"""Writing in the transaction of a connection that belongs to the caller, which alone commits it or takes it back."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.engines.callers import driver_connection, name_of
from penstock.engines.sqlite.errors import Translator, primary_code
from penstock.engines.sqlite.turnstile import Turnstile
from penstock.model.errors import ConnectionInvalid, EngineBusy, StoreInvalid

_LEGACY_CONTROL = -1  # sqlite3.LEGACY_TRANSACTION_CONTROL, from Python 3.12 on


class Caller:
    """A caller's connection to one file.

    Args:
        given: a `sqlite3.Connection`, or what wraps one.
        path: the file that it must have as its main database; an attached one does not count, because SQLite does not
            commit several files of which one is in WAL mode in one step.
        what: the jobs are written to there.
        timeout_s: how long the write lock is waited for, whatever the connection's own timeout is.
        turnstile: before which penstock's own writers of the file stand, if there are any.

    Raises:
        ConnectionInvalid: it cannot carry a job.
    """

    def __init__(self, given: Any, path: Path, what: str, *, timeout_s: float, turnstile: Path | None = None) -> None:
        db = driver_connection(given)
        if not isinstance(db, sqlite3.Connection):
            raise ConnectionInvalid(
                f"{name_of(db)} is no connection to SQLite, where {path} is. "
                "Give a sqlite3.Connection, or a SQLAlchemy or Django connection over one."
            )
        self._db, self._path, self._what = db, path, what
        self._timeout_s, self._turnstile = timeout_s, turnstile
        self._errors = Translator(path, timeout_s)
        with self._plainly():
            self._check_file()
        self._began = False
        self.in_transaction = db.in_transaction
        if not self.in_transaction and _commits_by_itself(db):
            raise ConnectionInvalid(
                "The connection commits each statement by itself, and no transaction is open in it. "
                "Begin one (BEGIN IMMEDIATE; in Django, transaction.atomic()), or leave connection= out."
            )

    @contextmanager
    def transaction(self, write_nothing: str) -> Iterator[sqlite3.Connection]:
        """Hold the connection inside its transaction and under the write lock; what raises is taken back alone.

        Args:
            write_nothing: a statement that needs the write lock and changes nothing.
        """
        with self._errors.translated(), self._plainly():
            if self.in_transaction:
                self._db.execute("SAVEPOINT penstock")
            try:
                self._take_lock(write_nothing)
                self._refuse_hidden_tables()
                yield self._db
            except BaseException:
                self._take_back()
                raise
            if self.in_transaction:
                self._db.execute("RELEASE penstock")

    def leave(self) -> None:
        """End a transaction that was begun for nothing: an empty one would still lock out all others."""
        if self._began:
            self._db.rollback()

    def _take_back(self) -> None:
        if self.in_transaction and self._db.in_transaction:  # after some errors SQLite has taken back all of it
            self._db.execute("ROLLBACK TO penstock")
            self._db.execute("RELEASE penstock")
        self.leave()

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Let rows be tuples and texts be str, whatever the caller has set."""
        db = self._db
        kept = db.row_factory, db.text_factory
        db.row_factory, db.text_factory = None, str
        try:
            yield
        finally:
            db.row_factory, db.text_factory = kept

    def _check_file(self) -> None:
        self._db.text_factory = os.fsdecode
        try:
            files = {name: file for _, name, file in self._db.execute("PRAGMA database_list")}
        except sqlite3.ProgrammingError as error:  # it is closed, or belongs to another thread
            raise ConnectionInvalid(f"The connection cannot be used here: {error} Open one and give that.") from error
        main = files["main"]
        if not main or not _is_same(main, self._path):
            raise ConnectionInvalid(
                f"The connection is to {main or 'a database in memory'}, but the jobs belong in {self._path}. "
                "Connect to that file (an attached one does not count), or name your database as the setting `outbox`."
            )

    def _refuse_hidden_tables(self) -> None:
        """Refuse temporary tables of the same names: what is written would go there, and end with the connection."""
        hidden = self._db.execute(
            "SELECT name FROM sqlite_temp_master WHERE name IN (SELECT name FROM sqlite_master WHERE type = 'table')"
        ).fetchone()
        if hidden is not None:
            raise ConnectionInvalid(
                f"The connection has a temporary table {hidden[0]!r}, which hides the one in {self._path}. Rename it."
            )

    def _take_lock(self, write_nothing: str) -> None:
        """Get the write lock before anything is read, so that nothing can come between reading and writing."""
        patience_ms = self._db.execute("PRAGMA busy_timeout").fetchone()[0]
        deadline = time.monotonic() + self._timeout_s
        try:
            if not self._locks_within(0.0, write_nothing) and not self._queues_for_lock(deadline, write_nothing):
                raise self._errors.busy()
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {patience_ms}")

    def _queues_for_lock(self, deadline: float, write_nothing: str) -> bool:
        """Wait for it behind the turnstile, because busy workers leave no gap for those beside it.

        Not before it was tried in vain: this transaction may hold the lock that all in the turnstile wait for.
        """
        if self._turnstile is None:
            return self._locks_within(self._timeout_s, write_nothing)
        turnstile = Turnstile(self._turnstile)
        try:
            return turnstile.enter(deadline) and self._locks_within(deadline - time.monotonic(), write_nothing)
        finally:
            turnstile.leave()
            turnstile.close()

    def _locks_within(self, timeout_s: float, write_nothing: str) -> bool:
        """Say whether the write lock was got in time.

        Raises:
            EngineBusy: waiting is of no use.
        """
        self._db.execute(f"PRAGMA busy_timeout = {max(0, round(timeout_s * 1000))}")
        try:
            if not self._db.in_transaction:
                self._db.execute("BEGIN IMMEDIATE")
                self._began = True
            self._db.execute(write_nothing)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY_SNAPSHOT:
                raise EngineBusy(
                    f"The transaction had read {self._path} before another one wrote to it, so it can write no more. "
                    "Roll it back, and begin it with BEGIN IMMEDIATE or enqueue before you read."
                ) from error
            if primary_code(error) == sqlite3.SQLITE_BUSY:
                return False
            if primary_code(error) == sqlite3.SQLITE_ERROR:  # its table is not there
                raise StoreInvalid(f"{self._path} holds no {self._what} yet; run `penstock migrate` first.") from error
            raise
        return True


def _commits_by_itself(db: sqlite3.Connection) -> bool:
    control = getattr(db, "autocommit", _LEGACY_CONTROL)
    return control is True or (control == _LEGACY_CONTROL and db.isolation_level is None)


def _is_same(file: str, path: Path) -> bool:
    try:
        return os.path.samefile(file, path)
    except OSError:
        return False
