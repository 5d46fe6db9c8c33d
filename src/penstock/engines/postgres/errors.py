"""What the driver, the server or a stored value says of a failure, in penstock's words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import psycopg
from psycopg import errors

from penstock.model.errors import (
    EngineBusy,
    EngineDown,
    EngineError,
    EngineFull,
    EngineReadOnly,
    StoreCorrupt,
    StoreInvalid,
)

#: What may be tried again at once: another transaction was in the way.
IN_THE_WAY = (errors.SerializationFailure, errors.DeadlockDetected)
#: A pooler gave the statement to another server session than the one that prepared it.
NOT_PREPARED = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement, errors.ProtocolViolation)

_BUSY = (
    *IN_THE_WAY,
    errors.LockNotAvailable,
    errors.QueryCanceled,
    errors.IdleInTransactionSessionTimeout,
)
_FULL = (errors.DiskFull, errors.OutOfMemory)
_AUTH = (errors.InvalidPassword, errors.InvalidAuthorizationSpecification)
# What libpq says of a connection that no PostgreSQL answered; it gives no code with it.
_UNREACHED = ("refused", "resolve host", "No such file", "No route to", "unreachable", "invalid response to SSL")
_TOO_MANY = ("too many clients", "too many connections", "remaining connection slots")
_QUESTION = re.compile(r"\s+Is the server running .*", re.DOTALL)

_no_database = re.compile(r'database ".*" does not exist').search
_no_role = re.compile(r'role ".*" does not exist').search


class DeadlinePassed(Exception):
    """The time ran out before anything was asked of the server."""


class AnswerOverdue(Exception):
    """The server did not answer in time what it was asked, and may do it yet; the connection is given up."""


class Translator:
    """Tells of the failures of one store.

    Args:
        shown: the store's URL without its password.
    """

    def __init__(self, shown: str, timeout_s: float) -> None:
        self._shown, self._timeout_s = shown, timeout_s

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what the driver raises, and stored values that cannot be read, into penstock's errors."""
        try:
            yield
        except (psycopg.Error, msgspec.DecodeError, DeadlinePassed, AnswerOverdue, OSError) as error:
            raise self.told(error) from error

    def told(self, error: Exception) -> Exception:
        """Give the error to raise in place of a driver's."""
        if isinstance(error, DeadlinePassed):
            return self.busy()
        if isinstance(error, AnswerOverdue):
            return self._overdue()
        if isinstance(error, msgspec.DecodeError):
            return self._damaged(error)
        if isinstance(error, psycopg.Error):
            return self._of_server(error)
        return EngineDown(f"{self._shown} cannot be reached: {_text(error)}.")

    def busy(self) -> EngineBusy:
        return EngineBusy(
            f"{self._shown} did not answer within {self._timeout_s:g} s. "
            "Try again; `penstock doctor` shows who holds locks and how busy it is."
        )

    def _overdue(self) -> EngineDown:
        return EngineDown(
            f"{self._shown} did not answer within {self._timeout_s:g} s; what it was asked may have been done. "
            "Look before you try again, or use an idempotency key; `penstock doctor` shows who holds locks."
        )

    def _of_server(self, error: psycopg.Error) -> EngineError | ValueError:
        if isinstance(error, psycopg.DataError) and not isinstance(error, errors.InvalidTextRepresentation):
            return ValueError(f"The store cannot take this value: {_text(error)}.")
        if isinstance(error, _BUSY):
            return EngineBusy(f"{self._shown} is busy: {_text(error)}. Try again.")
        if isinstance(error, _FULL):
            return EngineFull(f"No room left on the server of {self._shown}: {_text(error)}. Free space on its disk.")
        if isinstance(error, errors.ReadOnlySqlTransaction):
            return EngineReadOnly(
                f"{self._shown} cannot be written: {_text(error)}. "
                "It may be a standby; name the primary in the URL, or add ?target_session_attrs=read-write."
            )
        return self._of_kind(error)

    def _of_kind(self, error: psycopg.Error) -> EngineError:
        text = _text(error)
        if isinstance(error, errors.InvalidCatalogName) or (error.sqlstate is None and _no_database(text)):
            return StoreInvalid(f"{self._shown} names no database of this server: {text}. Make it with `createdb`.")
        if isinstance(error, errors.InsufficientPrivilege):
            return StoreInvalid(
                f"{self._shown} may not be used by this role: {text}. "
                "If the store is there, its owner must give this role what docs/explanation/postgres.md lists, "
                "beginning with GRANT USAGE ON SCHEMA; if not, run `penstock migrate` as a role that may CREATE there."
            )
        if isinstance(error, errors.UndefinedTable | errors.UndefinedFunction | errors.InvalidSchemaName):
            return StoreInvalid(f"{self._shown} lacks what penstock keeps there: {text}. Run `penstock migrate`.")
        if isinstance(error, errors.DataCorrupted | errors.IndexCorrupted):
            return self._damaged(error)
        if isinstance(error, _AUTH) or "password" in text or _no_role(text):
            return EngineDown(f"{self._shown} refuses this role: {text}. Check the user and the password in the URL.")
        if isinstance(error, errors.TooManyConnections) or any(words in text for words in _TOO_MANY):
            return EngineBusy(
                f"{self._shown} takes no more connections: {text}. "
                "Raise max_connections, or the CONNECTION LIMIT of the role or database, or use a pooler."
            )
        if "timeout expired" in text or "timed out" in text:
            return self.busy()
        if any(words in text for words in _UNREACHED):
            return EngineDown(f"{self._shown} cannot be reached: {text}. Check that it runs and the address is right.")
        return EngineDown(f"{self._shown} failed: {text}.")

    def _damaged(self, error: Exception) -> StoreCorrupt:
        return StoreCorrupt(f"{self._shown} is damaged ({_text(error)}). Stop all workers and restore a backup.")


def _text(error: BaseException) -> str:
    """Give what was said, on one line and without a full stop."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None  # not the statements around it
    said = primary or _QUESTION.sub("", str(error)) or type(error).__name__
    return " ".join(said.split()).removesuffix(".")
