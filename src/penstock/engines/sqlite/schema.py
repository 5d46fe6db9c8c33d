"""The schema: bringing a file to it, and telling penstock's files from those of others."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from penstock.engines.sqlite.queries import SQL
from penstock.model.errors import SchemaMismatch, StoreInvalid

APPLICATION_ID = 0x50454E53  # "PENS", in the header of every penstock file


def schema_version() -> int:
    """Give the schema that this version writes."""
    return len(_migrations())


def prepare(db: sqlite3.Connection, path: Path, now_ms: int) -> None:
    """Bring a new or older file to this version's schema; refuse foreign and newer ones untouched.

    Raises:
        StoreInvalid: the file is a database of another program.
        SchemaMismatch: it has a newer schema.
    """
    found = check_schema(db, path)
    if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        db.execute("PRAGMA journal_mode = WAL")
    inode = os.stat(path).st_ino
    if found < schema_version():
        with transaction(db):
            _migrate(db, path, now_ms, inode)
    if db.execute(SQL["inode"]).fetchone()[0] != inode:
        with transaction(db):
            _begin_epoch(db, inode)


def check_schema(db: sqlite3.Connection, path: Path) -> int:
    """Give the schema of a file, 0 of an empty one; refuse a foreign file, or one of a newer version."""
    found, known = _schema_of(db, path), schema_version()
    if found > known:
        raise SchemaMismatch(
            found,
            known,
            f"{path} has schema {found}, written by a newer penstock; this one knows up to {known}. "
            "Upgrade penstock here; nothing was changed.",
        )
    return found


def refuse_other_schema(db: sqlite3.Connection, path: Path) -> None:
    """Refuse a file without this version's schema, for those who cannot bring it to that.

    Raises:
        StoreInvalid: it holds no store.
        SchemaMismatch: its store has another schema.
    """
    found, known = check_schema(db, path), schema_version()
    if found < known:
        raise SchemaMismatch(found, known, f"{path} has schema {found} of {known}; run `penstock migrate` first.")


def _schema_of(db: sqlite3.Connection, path: Path) -> int:
    application = db.execute("PRAGMA application_id").fetchone()[0]
    if application == APPLICATION_ID:
        return int(db.execute("PRAGMA user_version").fetchone()[0])
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreInvalid(
            f"{path} is an SQLite database of another program. Give penstock a file of its own, "
            "as in sqlite:///penstock.db; nothing was changed."
        )
    return 0


def _migrate(db: sqlite3.Connection, path: Path, now_ms: int, inode: int) -> None:
    """Run the missing scripts, inside a transaction, so that of two processes the second finds nothing to do."""
    known = _migrations()
    for script in known[_schema_of(db, path) :]:
        for statement in _statements(script):
            db.execute(statement)
    db.execute(SQL["first_meta"], (os.urandom(8).hex(), now_ms, inode))
    db.execute(SQL["first_numbers"])
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {len(known)}")


def _begin_epoch(db: sqlite3.Connection, inode: int) -> None:
    """Void all leases of a file that was copied or restored: their workers belong to the other file."""
    db.execute(SQL["begin_epoch"], (os.urandom(8).hex(), inode))
    db.execute(SQL["void_all"])


@cache
def _migrations() -> tuple[str, ...]:
    scripts = sorted(Path(__file__).with_name("migrations").glob("*.sql"))
    return tuple(script.read_text(encoding="utf-8") for script in scripts)


def _statements(script: str) -> Iterator[str]:
    """Split a script at the semicolons that end statements, because executescript would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Write in one transaction, which begins with the write lock."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
