"""Connections to one database: lent to one thread at a time, given up at a deadline, opened again when they broke."""

import os
import random
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.rows import tuple_row

from penstock.engines.postgres import wire
from penstock.engines.postgres.errors import IN_THE_WAY, NOT_PREPARED, AnswerOverdue, DeadlinePassed, Translator
from penstock.engines.postgres.queries import placed, statements
from penstock.engines.postgres.schema import prepare

__all__ = ["Link", "Session", "Store"]

_T = TypeVar("_T")
Row = tuple[Any, ...]

_MOST_CONNECTIONS = 10
_TRIES = 6
_LONGEST_PAUSE_S = 0.05
#: What of the deadline a wait for a lock may take, so that the server ends it before the client gives up.
_LOCK_SHARE = 0.8

_abandoned: list[Any] = []


class Link(psycopg.Connection[Row]):
    """A connection whose calls end at `until`, on the monotonic clock."""

    until = float("inf")

    def wait(self, gen: PQGen[RV], interval: float = 0.0, timeout: float | None = None) -> RV:  # noqa: ARG002
        try:
            wanted = next(gen)
            poller = select.poll()
            poller.register(self.pgconn.socket, wanted)
            while True:
                wanted = gen.send(self._ready(poller, wanted))
        except StopIteration as ended:
            value: RV = ended.value
            return value
        except psycopg.Error:
            raise
        except BaseException:
            self.pgconn.finish()  # in the middle of a conversation that nobody will finish
            raise

    def _ready(self, poller: select.poll, wanted: int) -> Any:
        reads, writes = wanted & 1, wanted & 2
        poller.modify(self.pgconn.socket, (select.POLLIN if reads else 0) | (select.POLLOUT if writes else 0))
        left = self.until - time.monotonic()
        found = poller.poll(min(max(left, 0.0), 3600.0) * 1000)
        if not found:
            if left > 3600.0:
                return 0
            raise DeadlinePassed
        event = found[0][1]
        broken = event & (select.POLLERR | select.POLLHUP | select.POLLNVAL)
        return (1 if reads and (broken or event & select.POLLIN) else 0) | (
            2 if writes and (broken or event & select.POLLOUT) else 0
        )

    def is_quiet(self) -> bool:
        """Say whether the server has said nothing unasked, such as that it is going down."""
        if self.closed:
            return False
        poller = select.poll()
        poller.register(self.pgconn.socket, select.POLLIN)
        return not poller.poll(0)


class Session:
    """A transaction in several steps, on one connection."""

    def __init__(self, link: Link, sql: Mapping[str, bytes], prepares: bool | None) -> None:
        self._link, self._sql, self._prepares = link, sql, prepares

    def rows(self, statement: str, *values: Any) -> list[Row]:
        """Give the rows of a statement."""
        return self.query(self._sql[statement], values)

    def query(self, query: bytes, values: Sequence[Any]) -> list[Row]:
        """Give the rows of a query."""
        # Not link.cursor(): a caller's own kind of cursor, as Django's, may not know binary results.
        with psycopg.Cursor(self._link, row_factory=tuple_row) as cursor:
            return cursor.execute(query, values, prepare=self._prepares, binary=True).fetchall()

    def row(self, statement: str, *values: Any) -> Row | None:
        """Give the first row of a statement."""
        rows = self.rows(statement, *values)
        return rows[0] if rows else None

    def value(self, statement: str, *values: Any) -> Any:
        """Give the one value of a statement that always has one."""
        return self.rows(statement, *values)[0][0]

    def do(self, statement: str, *values: Any) -> int:
        """Run a statement and give how many rows it touched."""
        with self._link.cursor(binary=True) as cursor:
            return cursor.execute(self._sql[statement], values, prepare=self._prepares).rowcount


class Store:
    """The database of one engine; thread-safe, and usable after fork.

    Args:
        conninfo: what libpq connects with.
        shown: the URL without its password, for messages.
        timeout_s: the longest that connecting and a call may take together.
        prepares: whether statements are prepared on the server, which some poolers do not bear.

    Attributes:
        lock_ms: how long a statement may wait for a lock.
        epoch: that of the last connection; empty before the first.
        forget: called when a connection finds another epoch than before, or a server that began anew and may have lost
            its last commits, so that what was remembered is not its own.
    """

    def __init__(self, conninfo: str, *, schema: str, shown: str, timeout_s: float, prepares: bool) -> None:
        self.schema, self.shown, self.timeout_s = schema, shown, timeout_s
        self.prepares = prepares
        self.translator = Translator(shown, timeout_s)
        self.translated = self.translator.translated
        self.sql = statements(schema)
        self._conninfo = conninfo
        self._idle: list[Link] = []
        self._make_room()
        self._pid = os.getpid()
        self.epoch = self._started = ""
        self.forget: Callable[[], None] = _nothing
        self.lock_ms = str(max(1, round(timeout_s * _LOCK_SHARE * 1000)))
        self._timeout_ms = str(max(1, round(timeout_s * 1000)))

    # -- calls --------------------------------------------------------------------------------------------------------

    def rows(self, statement: str, *values: Any) -> list[Row]:
        """Run one statement as one transaction and one round trip, and give its rows."""
        return self._try(lambda link: self._session(link).rows(statement, *values))

    def row(self, statement: str, *values: Any) -> Row:
        """Give the one row of such a statement."""
        return self.rows(statement, *values)[0]

    def query(self, query: str, *values: Any) -> list[Row]:
        """Give the rows of a query that was put together of parts."""
        return self._try(lambda link: self._session(link).query(query.encode(), values))

    def placed(self, sql: str) -> str:
        """Let a part of a query speak of this store's schema."""
        return placed(sql, self.schema)

    def step(self, verb: Callable[[Session], _T]) -> _T:
        """Do several statements as one transaction; it is done again as a whole when another was in its way."""
        return self._try(lambda link: self._transact(link, verb))

    def session(self, link: Any) -> Session:
        """Make a session of a caller's own connection, whose transaction it neither begins nor ends."""
        wire.register(link)
        return Session(link, self.sql, None)

    def _session(self, link: Link) -> Session:
        return Session(link, self.sql, self.prepares)

    def _transact(self, link: Link, verb: Callable[[Session], _T]) -> _T:
        session = self._session(link)
        with link.transaction():
            session.rows("limit_waits", self.lock_ms, self._timeout_ms, self._timeout_ms)
            return verb(session)

    def _try(self, call: Callable[[Link], _T]) -> _T:
        until = time.monotonic() + self.timeout_s
        with self.translated():
            for left in range(_TRIES, 0, -1):
                try:
                    return self._ask(call, until)
                except NOT_PREPARED:
                    if not self.prepares:
                        raise
                    self.prepares = False
                except IN_THE_WAY:
                    if left == 1 or time.monotonic() > until:
                        raise
                    time.sleep(random.random() * _LONGEST_PAUSE_S)
            raise DeadlinePassed

    def _ask(self, call: Callable[[Link], _T], until: float) -> _T:
        with self._lent(until) as link:
            try:
                return call(link)
            except DeadlinePassed as passed:
                raise AnswerOverdue from passed

    # -- connections --------------------------------------------------------------------------------------------------

    @contextmanager
    def _lent(self, until: float) -> Iterator[Link]:
        if self._pid != os.getpid():
            self._abandon()
        inner = getattr(self._lending, "outer", False)
        idle, room = self._idle, self._inner_room if inner else self._room
        if not room.acquire(timeout=max(0.0, until - time.monotonic())):
            raise DeadlinePassed
        try:
            link = self._borrow(until)
            self._lending.outer = True
            try:
                yield link
            finally:
                self._lending.outer = inner
                if link.pgconn.transaction_status == 0 and not link.closed:
                    link.until = float("inf")
                    idle.append(link)
                else:
                    link.close()
        finally:
            room.release()

    def _borrow(self, until: float) -> Link:
        while self._idle:
            try:
                link = self._idle.pop()
            except IndexError:
                break
            if link.is_quiet():
                link.until = until
                return link
            link.close()
        link = self.connect(until)
        try:
            epoch = prepare(link, self.schema, self.shown)
            started, session = self._session(link).rows("started")[0]
        except BaseException:
            link.close()
            raise
        self._settle_preparing(link, session)
        if (epoch, started) != (self.epoch, self._started):
            self.epoch, self._started = epoch, started
            self.forget()
        return link

    def connect(self, until: float) -> Link:
        """Open a connection that the caller closes; the schema is not looked at, and no statement is prepared."""
        left_s = max(2, round(until - time.monotonic()))
        link = Link.connect(self._conninfo, autocommit=True, connect_timeout=left_s, prepare_threshold=None)
        link.until = until
        wire.register(link)
        return link

    def _settle_preparing(self, link: Link, session: int) -> None:
        """Prepare statements only where one server session answers all along.

        A pooler that lends sessions by transaction knows nothing of statements (PgBouncer before 1.21): the name that
        this connection has given to one may be that of another client's in the session that it is lent next, and that
        one would run in its place, without an error if it takes as many values.

        Args:
            session: the server session that has answered; a pooler gives another for the connection itself.
        """
        self.prepares = self.prepares and session == link.info.backend_pid
        if self.prepares:
            link.prepare_threshold = 5

    def close(self) -> None:
        """Close what is not in use; the rest is closed when it is given back to a store that was closed meanwhile."""
        if self._pid != os.getpid():
            self._abandon()
        idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    def _abandon(self) -> None:
        """Leave the parent's connections to the parent: closing one here would end its conversation there."""
        _abandoned.append(self._idle)
        self._idle, self._pid = [], os.getpid()
        self._make_room()

    def _make_room(self) -> None:
        """Keep one connection for calls inside a step: were it from the same room, full of steps, none would go on."""
        self._room = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._inner_room = threading.BoundedSemaphore(1)
        self._lending = threading.local()


def _nothing() -> None:
    """Remember nothing, so that nothing is to be forgotten."""


def flat(rows: Sequence[Row]) -> list[Any]:
    """Give the first column of rows."""
    return [row[0] for row in rows]
