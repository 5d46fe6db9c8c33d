"""The file: opening it, writing to it one process at a time, checkpoints, and SQLite's errors in penstock's words."""

import fcntl
import os
import random
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import msgspec

from penstock.engines.sqlite.queries import SQL
from penstock.engines.sqlite.standing import standing
from penstock.model.errors import (
    EngineBusy,
    EngineDown,
    EngineError,
    EngineFull,
    EngineReadOnly,
    EngineUnavailable,
    SchemaMismatch,
    StoreCorrupt,
    StoreInvalid,
)

APPLICATION_ID = 0x50454E53  # "PENS", in the header of every penstock file
_CHECKPOINT_PAGES = 2000
_PAGES_PER_COMMIT, _CHANGES_PER_PAGE = 5, 30
_TRUNCATE_BYTES = 64 * 1024 * 1024
_STRIDE_BYTES = 16 * 1024 * 1024
_PATIENCE_S = 0.0001
_MOST_PATIENCE_S = 0.0005

#: Handles that were inherited through fork. Closing one would drop the parent's locks, so they are kept unclosed.
#: Source: https://www.sqlite.org/howtocorrupt.html, section 2.6.
_abandoned: list[object] = []

_stores: "weakref.WeakSet[Store]" = weakref.WeakSet()


_VENDOR_ERRORS = (sqlite3.Error, msgspec.DecodeError, OSError)


class Store:
    """One SQLite file as one process uses it: one connection to write, one to read, both opened on first use.

    Thread-safe. Writers of all processes queue at a turnstile of two file locks, so that none starves: whoever waits
    for the gate holds the turn, and who has just written must take the turn again.

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
        self._locks: tuple[int, int] | None = None
        self._commits = self._checkpointed_at = 0
        self._log_bytes, self._long_log_bytes = 0, _TRUNCATE_BYTES
        self._is_parted = False
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()

    # -- use ----------------------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Hold the one write transaction; commits at the end, rolls back when the block raises."""
        self._survive_fork()
        deadline = time.monotonic() + self.timeout_s
        if not self._write_lock.acquire(timeout=self.timeout_s):
            raise self._busy()
        try:
            db = self._writer or self._open_writer(deadline)
            self._take_gate(deadline)
            try:
                self._check_identity(self._writer_identity, has_gate=True)
                self._begin(db, deadline)
                try:
                    yield db
                    db.execute("COMMIT")
                except BaseException:
                    self._roll_back(db)
                    raise
                if self._is_log_long(db):
                    self._checkpoint(db)
            finally:
                self._leave_gate()
        except _VENDOR_ERRORS as error:
            raise self._dropping(self._told(error)) from error
        except EngineError as error:
            self._dropping(error)
            raise
        finally:
            self._write_lock.release()

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
        if not self._read_lock.acquire(timeout=self.timeout_s):
            raise self._busy()
        try:
            with self.translated():
                db = self._reader or self._open_reader()
                self._check_identity(self._reader_identity)
                yield db
        except (EngineDown, StoreCorrupt):
            self._drop_reader()
            raise
        finally:
            self._read_lock.release()

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
        """Close both connections; later calls open them again. Handles of a parent process are left alone."""
        self._survive_fork()
        with self._read_lock, self._write_lock:
            self._drop()

    def shorten_log(self) -> None:
        """Let the log begin anew if it can, so that the next commits need no room on the disk."""
        self._long_log_bytes = -1
        with self.writing():
            pass

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

    def _take_gate(self, deadline: float) -> None:
        """Wait for the turn, then for the gate; flock has no timeout, so both are tried until the deadline."""
        turn, gate = self._locks or self._open_locks()
        self._lock(turn, deadline)
        try:
            self._lock(gate, deadline)
        finally:
            fcntl.flock(turn, fcntl.LOCK_UN)

    def _leave_gate(self) -> None:
        if self._locks is not None:
            fcntl.flock(self._locks[1], fcntl.LOCK_UN)

    def _lock(self, descriptor: int, deadline: float) -> None:
        patience_s = _PATIENCE_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise self._busy() from None
                time.sleep(patience_s * random.uniform(0.5, 1.0))
                patience_s = min(patience_s * 1.5, _MOST_PATIENCE_S)
            else:
                return

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
            if _primary_code(error) not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL}:
                self._drop_writer()
        if self._writer is not None:
            self._restore_patience(db)
        self._long_log_bytes = max(_TRUNCATE_BYTES, self.wal_bytes() + _STRIDE_BYTES)

    def _is_log_long(self, db: sqlite3.Connection) -> bool:
        """Estimate what this process added to the log; other processes and large envelopes show in the file's size.

        The size alone would not tell, because the file does not shrink when the log begins anew.
        """
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
            raise self._no_database()  # SQLite takes a file of one byte for an empty one, and would overwrite it
        self._take_gate(deadline)
        try:
            with self.translated():
                db = self._connect(self._prepare)
        except StoreInvalid:
            if is_new_here:
                self._leave_no_trace()
            raise
        finally:
            self._leave_gate()
        self._writer, self._writer_identity = db, self._identity()
        self._commits = self._checkpointed_at = 0
        return db

    def _leave_no_trace(self) -> None:
        """Remove the folder that was just made beside a file of somebody else, unless another process uses it."""
        for name in ("turn", "gate"):
            (self.folder / name).unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _open_reader(self) -> sqlite3.Connection:
        try:
            if self._writer is None:
                with self.writing():
                    pass
            db = self._connect(_query_only)
        except EngineReadOnly:
            if not self.path.exists():
                raise
            db = self._connect(self._check_schema, mode="ro")
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

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Bring a new or older file to this version's schema; refuse foreign and newer ones untouched."""
        known = _migrations()
        found = self._check_schema(db)
        if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            db.execute("PRAGMA journal_mode = WAL")
        if found < len(known):
            with _transaction(db):
                self._migrate(db, known)
        inode = os.stat(self.path).st_ino
        if db.execute(SQL["inode"]).fetchone()[0] != inode:
            with _transaction(db):
                self._begin_epoch(db, inode)

    def _migrate(self, db: sqlite3.Connection, known: list[str]) -> None:
        for script in known[self._schema_of(db) :]:
            for statement in _statements(script):
                db.execute(statement)
        db.execute(SQL["first_meta"], (secrets.token_hex(8), self._now_ms(), os.stat(self.path).st_ino))
        db.execute(SQL["first_numbers"])
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(known)}")

    def _begin_epoch(self, db: sqlite3.Connection, inode: int) -> None:
        """Void all leases of a file that was copied or restored: their workers belong to the other file."""
        db.execute(SQL["begin_epoch"], (secrets.token_hex(8), inode))
        db.execute(SQL["void_all"])

    def _check_schema(self, db: sqlite3.Connection) -> int:
        """Give the schema of the file; refuse one of a newer version."""
        found, known = self._schema_of(db), schema_version()
        if found > known:
            raise SchemaMismatch(
                found,
                known,
                f"{self.path} has schema {found}, written by a newer penstock; this one knows up to {known}. "
                "Upgrade penstock here; nothing was changed.",
            )
        return found

    def _schema_of(self, db: sqlite3.Connection) -> int:
        application = db.execute("PRAGMA application_id").fetchone()[0]
        if application == APPLICATION_ID:
            return int(db.execute("PRAGMA user_version").fetchone()[0])
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreInvalid(
                f"{self.path} is an SQLite database of another program. Give penstock a file of its own, "
                "as in sqlite:///penstock.db; nothing was changed."
            )
        return 0

    def _create_file(self) -> None:
        """Make the file with mode 0600 before SQLite opens it.

        Only a missing file is opened here: closing any descriptor of a database file drops SQLite's locks on it.
        """
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        except OSError as error:
            raise _cannot_create(self.path, error) from error
        os.close(descriptor)

    def _open_locks(self) -> tuple[int, int]:
        if self._locks is None:
            try:
                self.folder.mkdir(mode=0o700, exist_ok=True)
                flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
                self._locks = (
                    os.open(self.folder / "turn", flags, 0o600),
                    os.open(self.folder / "gate", flags, 0o600),
                )
            except OSError as error:
                raise _cannot_create(self.folder, error) from error
        return self._locks

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
        for descriptor in self._locks or ():
            os.close(descriptor)
        self._locks = None

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
        if not self._read_lock.acquire(timeout=self.timeout_s):
            return
        if not self._write_lock.acquire(timeout=self.timeout_s):
            self._read_lock.release()
            return
        self._drop()
        self._is_parted = True

    def rejoin(self) -> None:
        """Go on in the parent after a fork."""
        if self._is_parted:
            self._is_parted = False
            self._write_lock.release()
            self._read_lock.release()

    def restart(self) -> None:
        """Start afresh in a child, also in one that was forked past Python and so inherited what was open."""
        _abandoned.append((self._writer, self._reader))
        for descriptor in self._locks or ():
            os.close(descriptor)
        self._reset()

    def _survive_fork(self) -> None:
        if self._pid != os.getpid():
            self.restart()

    # -- errors -------------------------------------------------------------------------------------------------------

    def _busy(self) -> EngineBusy:
        return EngineBusy(
            f"{self.path} stayed locked by another process or thread for {self.timeout_s:g} s. "
            "Try again; `penstock doctor` says who holds it."
        )

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn SQLite's errors, and stored values that cannot be read, into penstock's."""
        try:
            yield
        except _VENDOR_ERRORS as error:
            raise self._told(error) from error

    def _told(self, error: Exception) -> Exception:
        """Say in penstock's words what SQLite, a stored value or the system said."""
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
            return ValueError(f"The store cannot take this value: {error}.")
        if isinstance(error, sqlite3.Error):
            return self._translate(error)
        if isinstance(error, msgspec.DecodeError):
            return self._damaged(error)
        return EngineDown(f"{self.path} cannot be used: {error}. It must be on a local disk, readable and writable.")

    def _translate(self, error: sqlite3.Error) -> EngineError:
        code = _primary_code(error)
        name = getattr(error, "sqlite_errorname", "")
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return self._busy()
        if code == sqlite3.SQLITE_FULL:
            return EngineFull(f"No room left for {self.path}: {error}. Free space on its disk.")
        if code == sqlite3.SQLITE_READONLY or (code == sqlite3.SQLITE_CANTOPEN and not os.access(self.path, os.W_OK)):
            return EngineReadOnly(f"{self.path} cannot be written: {error}. Check its owner, mode and mount.")
        if code == sqlite3.SQLITE_NOTADB:
            return self._no_database()
        if code == sqlite3.SQLITE_CORRUPT or str(error).startswith("Could not decode"):
            return self._damaged(error)
        return EngineDown(f"{self.path} failed: {error}{f' ({name})' if name else ''}.")

    def _no_database(self) -> StoreInvalid:
        return StoreInvalid(f"{self.path} is not an SQLite database. Give another path; nothing was changed.")

    def _damaged(self, error: Exception) -> StoreCorrupt:
        return StoreCorrupt(f"{self.path} is damaged ({error}). Stop all workers, keep a copy, and restore a backup.")


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


def schema_version() -> int:
    """Give the schema that this version writes."""
    return len(_migrations())


def _migrations() -> list[str]:
    folder = resources.files(__package__) / "migrations"
    scripts = (entry for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [script.read_text() for script in sorted(scripts, key=lambda script: script.name)]


def _statements(script: str) -> Iterator[str]:
    """Split a script at the semicolons that end statements, because executescript would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _cannot_create(path: Path, error: OSError) -> EngineUnavailable:
    kind = EngineFull if error.errno in {28, 122} else EngineReadOnly
    return kind(f"{path} cannot be created: {error.strerror}. Its folder must exist and be writable for this user.")
