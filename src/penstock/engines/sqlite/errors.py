"""What SQLite, the system or a stored value says of a failure, in penstock's words."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from penstock.model.errors import (
    EngineBusy,
    EngineDown,
    EngineError,
    EngineFull,
    EngineReadOnly,
    EngineUnavailable,
    StoreCorrupt,
    StoreInvalid,
)

VENDOR_ERRORS = (sqlite3.Error, msgspec.DecodeError, OSError)

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


class Translator:
    """Tells of the failures of one store."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path, self._timeout_s = path, timeout_s

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what SQLite raises, and stored values that cannot be read, into penstock's errors."""
        try:
            yield
        except VENDOR_ERRORS as error:
            raise self.told(error) from error

    def told(self, error: Exception) -> Exception:
        """Give the error to raise in place of a vendor's."""
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
            return ValueError(f"The store cannot take this value: {error}.")
        if isinstance(error, sqlite3.Error):
            return self._of_sqlite(error)
        if isinstance(error, msgspec.DecodeError):
            return self._damaged(error)
        return EngineDown(f"{self._path} cannot be used: {error}. It must be on a local disk, readable and writable.")

    def busy(self) -> EngineBusy:
        return EngineBusy(
            f"{self._path} stayed locked by another process or thread for {self._timeout_s:g} s. "
            "Try again; `penstock doctor` says who holds it."
        )

    def no_database(self) -> StoreInvalid:
        return StoreInvalid(f"{self._path} is not an SQLite database. Give another path; nothing was changed.")

    def _of_sqlite(self, error: sqlite3.Error) -> EngineError:
        code = primary_code(error)
        name = getattr(error, "sqlite_errorname", "")
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return self.busy()
        if code == sqlite3.SQLITE_FULL:
            return EngineFull(f"No room left for {self._path}: {error}. Free space on its disk.")
        if code == sqlite3.SQLITE_READONLY or (code == sqlite3.SQLITE_CANTOPEN and not os.access(self._path, os.W_OK)):
            return EngineReadOnly(f"{self._path} cannot be written: {error}. Check its owner, mode and mount.")
        if code == sqlite3.SQLITE_NOTADB:
            return self.no_database()
        if code == sqlite3.SQLITE_CORRUPT or str(error).startswith("Could not decode"):
            return self._damaged(error)
        return EngineDown(f"{self._path} failed: {error}{f' ({name})' if name else ''}.")

    def _damaged(self, error: Exception) -> StoreCorrupt:
        return StoreCorrupt(f"{self._path} is damaged ({error}). Stop all workers, keep a copy, and restore a backup.")


def primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def cannot_create(path: Path, error: OSError) -> EngineUnavailable:
    """Say why a file or folder of the store cannot be made."""
    kind = EngineFull if error.errno in _NO_ROOM else EngineReadOnly
    return kind(f"{path} cannot be created: {error.strerror}. Its folder must exist and be writable for this user.")
