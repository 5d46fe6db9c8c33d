"""The file: opening it, writing to it one process at a time, and moving its log into it."""

import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from penstock.engines.sqlite.errors import VENDOR_ERRORS, Translator, cannot_create, primary_code
from penstock.engines.sqlite.mutex import Mutex
from penstock.engines.sqlite.schema import check_schema, prepare
from penstock.engines.sqlite.standing import standing
from penstock.engines.sqlite.turnstile import Turnstile
from penstock.model.errors import EngineDown, EngineError, EngineReadOnly, StoreCorrupt, StoreInvalid

_T = TypeVar("_T")

_CHECKPOINT_PAGES = 2000
_PAGES_PER_COMMIT, _CHANGES_PER_PAGE = 5, 30
_TRUNCATE_BYTES = 64 * 1024 * 1024
_STRIDE_BYTES = 16 * 1024 * 1024

#: Handles that were inherited through fork. Closing one would drop the parent's locks, so they are kept unclosed.
#: Source: https://www.sqlite.org/howtocorrupt.html, section 2.6.
_abandoned: list[object] = []

_stores: "weakref.WeakSet[Store]" = weakref.WeakSet()


class Store:
    """One SQLite file as one process uses it: one connection to write, one to read, both opened on first use.

    Thread-safe. The writers of all processes pass a turnstile.

    Args:
        forget: called when what was read or written before may no longer hold: after a rollback, and before the file
            is opened anew.
    """

    def __init__(
        self,
        path: Path,
        *,
        durability: str,
        timeout_s: float,
        now_ms: Callable[[], int],
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self._file, self._log = os.fsencode(path), os.fsencode(f"{path}-wal")
        self.folder = path.with_name(path.name + "-penstock")
        self.durability = durability
        self.timeout_s = timeout_s
        self._turnstile = Turnstile(self.folder)
        self._errors = Translator(path, timeout_s)
        self._now_ms = now_ms
        self._forget = forget
        self._reset()
        _stores.add(self)
        _guard_forks()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._writer_identity: tuple[object, ...] = ()
        self._reader_identity: tuple[object, ...] = ()
        self._commits = self._checkpointed_at = self._counted_changes = 0
        self._log_bytes, self._long_log_bytes = 0, _TRUNCATE_BYTES
        self._write_mutex, self._read_mutex = Mutex(), Mutex()
        self._is_writing = False

    # -- use ----------------------------------------------------------------------------------------------------------

    def write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do work in the one write transaction: commits when it returns, rolls back when it raises."""
        self._survive_fork()
        deadline = time.monotonic() + self.timeout_s
        try:
            if not self._write_mutex.enter(self.timeout_s) or self._is_writing:
                raise self._errors.busy()
            return self._write_alone(work, deadline)
        except VENDOR_ERRORS as error:
            raise self._dropping(self._errors.told(error)) from error
        except EngineError as error:
            self._dropping(error)
            raise
        finally:
            try:  # noqa: SIM105 (`suppress` is Python code, which Ctrl-C may end before it does anything)
                self._write_mutex.release()
            except RuntimeError:
                pass  # it was not entered

    def _write_alone(self, work: Callable[[sqlite3.Connection], _T], deadline: float) -> _T:
        """Pass the gate, do work, commit. Wherever Ctrl-C comes, other processes find gate and file free."""
        try:
            db = self._writer or self._open_writer(deadline)
            self._enter(deadline)
            self._check_identity(self._writer_identity, has_gate=True)
            self._begin(db, deadline)
            done = self._commit(db, work)
            self._turnstile.leave()
        except BaseException:
            self._back_out()
            raise
        return done

    def _commit(self, db: sqlite3.Connection, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do work and commit; what this thread calls meanwhile, from a signal handler or a finalizer, is refused."""
        self._is_writing = True
        try:
            done = work(db)
            db.execute("COMMIT")
        finally:
            self._is_writing = False
        if self._is_log_long(db):
            self._checkpoint(db)
        return done

    def _back_out(self) -> None:
        """Take back a transaction that may be open, and let the next writer through."""
        try:
            if self._writer is not None:
                self._roll_back(self._writer)
        finally:
            self._turnstile.leave()

    def _roll_back(self, db: sqlite3.Connection) -> None:
        """Take the transaction back; whoever remembers what it wrote must forget it before the next one begins."""
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        finally:
            self._forget()

    def _dropping(self, error: Exception) -> Exception:
        """After an I/O error nothing cached may be trusted: the next call opens the file anew."""
        if isinstance(error, EngineDown | StoreCorrupt):
            self._drop_writer()
        return error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Hold the read connection; each statement sees the latest commit."""
        self._survive_fork()
        try:
            if not self._read_mutex.enter(self.timeout_s):
                raise self._errors.busy()
            with self.translated():
                db = self._reader or self._open_reader()
                self._check_identity(self._reader_identity)
                yield db
        except (EngineDown, StoreCorrupt):
            self._drop_reader()
            raise
        finally:
            try:  # noqa: SIM105 (`suppress` is Python code, which Ctrl-C may end before it does anything)
                self._read_mutex.release()
            except RuntimeError:
                pass  # it was not entered

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Hold the read connection in one read transaction, so that several statements agree."""
        with self.reading() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.rollback()

    def close(self) -> None:
        """Close both connections; later calls open them again. Handles of a parent process are left alone.

        Connections that another thread uses for longer than the timeout are left to it.
        """
        self._survive_fork()
        try:
            if self._read_mutex.enter(self.timeout_s) and self._write_mutex.enter(self.timeout_s):
                self._drop()
        finally:
            self._write_mutex.leave()
            self._read_mutex.leave()

    def shorten_log(self) -> None:
        """Let the log begin anew if it can, so that the next commits need no room on the disk."""
        self._long_log_bytes = -1
        self.write(_nothing)

    def translated(self) -> AbstractContextManager[None]:
        """Turn what reading stored values may raise into penstock's errors."""
        return self._errors.translated()

    def wal_bytes(self) -> int:
        try:
            return standing(self._log).size
        except FileNotFoundError:
            return 0

    # -- transactions -------------------------------------------------------------------------------------------------

    def _begin(self, db: sqlite3.Connection, deadline: float) -> None:
        """Take SQLite's own write lock, which other programs may hold, with the patience that waiting has left.

        IMMEDIATE always: a read transaction that turns into a write fails at once when another writer came between.
        """
        if db.in_transaction:
            self._roll_back(db)  # Ctrl-C came twice, the second time before the last one was taken back
        left_s = deadline - time.monotonic()
        if left_s > self.timeout_s / 2:
            db.execute("BEGIN IMMEDIATE")
            return
        db.execute(f"PRAGMA busy_timeout = {max(0, round(left_s * 1000))}")
        try:
            db.execute("BEGIN IMMEDIATE")
        finally:
            self._restore_patience(db)

    def _restore_patience(self, db: sqlite3.Connection) -> None:
        db.execute(f"PRAGMA busy_timeout = {round(self.timeout_s * 1000)}")

    def _enter(self, deadline: float) -> None:
        if not self._turnstile.enter(deadline):
            raise self._errors.busy()

    def _checkpoint(self, db: sqlite3.Connection) -> None:
        """Move the log into the file, always under the write lock.

        Bare PASSIVE checkpoints beside a writer can destroy the file on SQLite before 3.51.3 (the WAL-reset bug,
        https://www.sqlite.org/wal.html); RESTART and TRUNCATE take the write lock, and the gate is held here too.
        """
        self._checkpointed_at = db.total_changes
        self._commits = 0
        mode = "TRUNCATE" if self.wal_bytes() > _TRUNCATE_BYTES else "RESTART"
        db.execute("PRAGMA busy_timeout = 0")
        try:
            db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.OperationalError as error:
            # The transaction is committed, so its caller must not hear of this. A reader in the way or a full disk only
            # puts the checkpoint off; after an I/O error the next call opens the file anew.
            if primary_code(error) not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL}:
                self._drop_writer()
        if self._writer is not None:
            self._restore_patience(db)
        self._long_log_bytes = max(_TRUNCATE_BYTES, self.wal_bytes() + _STRIDE_BYTES)

    def _is_log_long(self, db: sqlite3.Connection) -> bool:
        """Estimate what this process added to the log; other processes and large envelopes show in the file's size.

        The size alone would not tell, because the file does not shrink when the log begins anew.
        """
        if db.total_changes != self._counted_changes:
            self._counted_changes = db.total_changes
            self._commits += 1
        pages = self._commits * _PAGES_PER_COMMIT + (db.total_changes - self._checkpointed_at) // _CHANGES_PER_PAGE
        return pages >= _CHECKPOINT_PAGES or self._log_bytes > self._long_log_bytes

    # -- opening ------------------------------------------------------------------------------------------------------

    def _open_writer(self, deadline: float) -> sqlite3.Connection:
        if self.path.is_dir():
            raise StoreInvalid(f"{self.path} is a folder. Give the path of a file in it, as {self.path}/penstock.db.")
        is_new_here = not self.folder.exists()
        self._create_file()
        if os.stat(self.path).st_size == 1:
            raise self._errors.no_database()  # SQLite takes a file of one byte for an empty one, and would overwrite it
        self._enter(deadline)
        try:
            with self.translated():
                db = self._connect(lambda db: prepare(db, self.path, self._now_ms()))
        except StoreInvalid:
            if is_new_here:
                self._turnstile.remove()
            raise
        finally:
            self._turnstile.leave()
        self._writer, self._writer_identity = db, self._identity()
        self._commits = self._checkpointed_at = self._counted_changes = 0
        return db

    def _open_reader(self) -> sqlite3.Connection:
        try:
            if self._writer is None:
                self.write(_nothing)
            db = self._connect(_query_only)
        except EngineReadOnly:
            if not self.path.exists():
                raise
            db = self._connect(lambda db: check_schema(db, self.path), mode="ro")
        self._reader, self._reader_identity = db, self._identity()
        return db

    def _connect(self, prepare: Callable[[sqlite3.Connection], object], mode: str = "rw") -> sqlite3.Connection:
        db = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode={mode}",
            uri=True,
            timeout=self.timeout_s,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )
        try:
            db.execute(f"PRAGMA synchronous = {'FULL' if self.durability == 'full' else 'NORMAL'}")
            db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute("PRAGMA cache_size = -16384")
            db.execute("PRAGMA temp_store = MEMORY")
            prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _create_file(self) -> None:
        """Make the file with mode 0600 before SQLite opens it.

        Only a missing file is opened here: closing any descriptor of a database file drops SQLite's locks on it.
        """
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        except OSError as error:
            raise cannot_create(self.path, error) from error
        os.close(descriptor)

    def _identity(self) -> tuple[object, ...]:
        """Tell the files that stand at the path from others that stood there: the database and its log."""
        try:
            file, log = standing(self._file), standing(self._log)
        except FileNotFoundError:
            return ()
        self._log_bytes = log.size
        return file.device, file.inode, log.inode

    def _check_identity(self, opened: tuple[object, ...], *, has_gate: bool = False) -> None:
        found = self._identity()
        if found == opened:
            return
        if has_gate and found[:2] != opened[:2] and found[2:] == opened[2:]:
            # The log of the old file would be taken for that of the new one, and ruin it.
            os.replace(self._log, self.folder / "log-of-the-replaced-file")
            Path(f"{self.path}-shm").unlink(missing_ok=True)
        raise EngineDown(
            f"{self.path} or its log was replaced or removed while in use. What was written before is in the old files."
        )

    def _drop(self) -> None:
        self._drop_writer()
        self._drop_reader()
        self._turnstile.close()

    def _drop_writer(self) -> None:
        self._forget()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _drop_reader(self) -> None:
        self._forget()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # -- forks --------------------------------------------------------------------------------------------------------

    def part(self) -> None:
        """Close everything before a fork.

        A child that inherits a connection believes that it holds locks which only its parent has. When the parent then
        ends, it deletes the log that the child still writes to.
        """
        if self._read_mutex.enter(self.timeout_s) and self._write_mutex.enter(self.timeout_s) and not self._is_writing:
            self._drop()

    def rejoin(self) -> None:
        """Go on in the parent after a fork."""
        self._write_mutex.leave()
        self._read_mutex.leave()

    def restart(self) -> None:
        """Start afresh in a child, also in one that was forked past Python and so inherited what was open."""
        _abandoned.append((self._writer, self._reader))
        self._turnstile.close()
        self._reset()

    def _survive_fork(self) -> None:
        if self._pid != os.getpid():
            self.restart()


@cache
def _guard_forks() -> None:
    os.register_at_fork(before=_part, after_in_parent=_rejoin, after_in_child=_restart)


def _part() -> None:
    for store in list(_stores):
        store.part()


def _rejoin() -> None:
    for store in list(_stores):
        store.rejoin()


def _restart() -> None:
    for store in list(_stores):
        store.restart()


def _query_only(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA query_only = 1")


def _nothing(db: sqlite3.Connection) -> None:
    """Write nothing; opening and committing is all that is wanted."""
