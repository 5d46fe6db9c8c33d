"""Waking up: one connection per engine listens for those of its threads that wait.

Who waits for a kind of news holds a shared advisory lock of that kind on the listening connection; where nobody does,
nothing is sent. The lock is kept for a moment after the last waiter has gone, because it will be back.

Where the server or a pooler cannot do this, every wait ends after a poll.
"""

import random
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from penstock.engines.postgres.errors import DeadlinePassed
from penstock.engines.postgres.store import Link, Store
from penstock.model.errors import PenstockError

__all__ = ["ARRIVAL", "DUE", "ENDS", "STEER", "WORK", "Listener"]

WORK, ENDS, DUE, STEER, ARRIVAL = 1, 2, 3, 4, 5

_KEEP_LOCK_S = 0.25
_PING_EVERY_S = 5.0
_RETRY_S = 1.0
_POOLED_RETRY_S = 60.0
_IDLE_S = 60.0


class Pooled(Exception):
    """Another session answers than the one that was connected to: a pooler is between, and what it hears is lost."""


class Listener:
    """Counts the news of one store by kind, in a thread that runs while somebody waits.

    Attributes:
        arrived: whether a transaction of the application has committed jobs since `arrived` was last cleared.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._heard: Counter[int] = Counter()
        self._waiters: Counter[int] = Counter()
        self._locked: frozenset[int] = frozenset()
        self._thread: threading.Thread | None = None
        self._wake: socket.socket | None = None
        self._closing = False
        self.arrived = False

    @contextmanager
    def waiting(self, kinds: Sequence[int]) -> Iterator["Ear"]:
        """Be one of those who wait for some kinds of news."""
        with self._changed:
            self._waiters.update(kinds)
            self._run()
            is_new = not self._locked.issuperset(kinds)
            ear = Ear(self, kinds, Counter(self._heard))
        if is_new:
            self._poke()
        try:
            yield ear
        finally:
            with self._changed:
                self._waiters.subtract(kinds)

    def listens(self, kinds: Sequence[int]) -> bool:
        """Say whether news of these kinds will be heard."""
        return self._locked.issuperset(kinds)

    def hears(self, ear: "Ear", timeout_s: float) -> bool:
        """Wait until there is news, or until it has become clear that news will be heard; say whether there is."""
        with self._changed:
            listened = self.listens(ear.kinds)
            self._changed.wait_for(
                lambda: self._has_news(ear) or self.listens(ear.kinds) is not listened, max(0.0, timeout_s)
            )
            return self._has_news(ear)

    def close(self) -> None:
        """End the thread and its connection."""
        with self._changed:
            self._closing = True
            thread = self._thread
        self._poke()
        if thread is not None and thread is not threading.current_thread():
            thread.join(2.0)

    def abandon(self) -> None:
        """Begin anew in a child process, where the thread is not."""
        self.__init__(self._store)  # type: ignore[misc]

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _has_news(self, ear: "Ear") -> bool:
        return any(self._heard[kind] > ear.before[kind] for kind in ear.kinds)

    def _run(self) -> None:
        if self._thread is not None and self._thread.is_alive() and not self._closing:
            return
        self._closing = False
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._wake = theirs
        self._thread = threading.Thread(
            target=_listen, args=(self, ours, theirs), name="penstock-listener", daemon=True
        )
        self._thread.start()

    def _poke(self) -> None:
        wake = self._wake
        if wake is not None:
            try:
                wake.send(b"x")
            except OSError:
                return  # it is awake, or has ended

    def _is_idle(self) -> bool:
        return self._closing or not any(self._waiters.values())

    def _lost(self) -> None:
        with self._changed:
            self._locked = frozenset()
            self._changed.notify_all()

    def _tell(self, kinds: Counter[int]) -> None:
        with self._changed:
            self._heard.update(kinds)
            if kinds[ARRIVAL]:
                self.arrived = True
                self._heard.update((WORK, DUE))
            self._changed.notify_all()

    def _holds(self, locked: frozenset[int]) -> None:
        with self._changed:
            self._locked = locked
            self._changed.notify_all()


class Ear:
    """One waiter: for which kinds, and what was heard when it began."""

    def __init__(self, listener: Listener, kinds: Sequence[int], before: Counter[int]) -> None:
        self._listener, self.kinds, self.before = listener, tuple(kinds), before

    def hears(self, timeout_s: float) -> bool:
        """Wait for news; see `Listener.hears`."""
        return self._listener.hears(self, timeout_s)

    @property
    def listens(self) -> bool:
        return self._listener.listens(self.kinds)


def _listen(listener: Listener, wake: socket.socket, theirs: socket.socket) -> None:
    """Listen until nobody has waited for a while."""
    idle_since = None
    try:
        while not listener._closing:
            try:
                _converse(listener, wake)
            except (psycopg.Error, PenstockError, OSError, DeadlinePassed, Pooled) as error:
                listener._lost()
                _rest(wake, _POOLED_RETRY_S if isinstance(error, Pooled) else _RETRY_S, listener)
            if listener._is_idle():
                idle_since = idle_since or time.monotonic()
                if time.monotonic() - idle_since > _IDLE_S:
                    return
            else:
                idle_since = None
    finally:
        listener._lost()
        wake.close()
        theirs.close()


def _rest(wake: socket.socket, pause_s: float, listener: Listener) -> None:
    """Pause between two attempts; nobody waits for them, as all poll meanwhile."""
    until = time.monotonic() + pause_s * random.uniform(0.8, 1.2)
    while not listener._closing and (left_s := until - time.monotonic()) > 0:
        select.select([wake], [], [], left_s)
        _drain(wake)


def _converse(listener: Listener, wake: socket.socket) -> None:
    """Listen on one connection, until it fails or nobody has waited for a minute."""
    store = listener._store
    link = store.connect(time.monotonic() + store.timeout_s)
    try:
        Conversation(listener, link, wake).run()
    finally:
        link.close()


class Conversation:
    """What is said on one listening connection."""

    def __init__(self, listener: Listener, link: Link, wake: socket.socket) -> None:
        self._listener, self._link, self._wake = listener, link, wake
        self._locked: frozenset[int] = frozenset()
        self._wanted_s: dict[int, float] = {}
        self._pinged_s = time.monotonic()
        self._place = 0
        self._heard: Counter[int] = Counter()
        link.add_notify_handler(self._note)

    def run(self) -> None:
        if self._query("SELECT pg_backend_pid()") != self._link.info.backend_pid:
            raise Pooled
        self._place = int(self._query("SELECT " + self._listener._store.placed("penstock.place()")))
        self._link.execute(f'LISTEN "penstock_{self._place}"'.encode())
        idle_s = time.monotonic()
        while not self._listener._closing:
            now_s = time.monotonic()
            idle_s = idle_s if self._listener._is_idle() else now_s
            if now_s - idle_s > _IDLE_S:
                return
            self._hold_locks(now_s)
            self._hear(self._pause_s(now_s))
            if time.monotonic() - self._pinged_s > _PING_EVERY_S:
                self._query("SELECT 1")

    def _query(self, query: str) -> Any:
        self._pinged_s = time.monotonic()
        self._link.until = self._pinged_s + self._listener._store.timeout_s
        row = self._link.execute(query.encode()).fetchone()
        return row[0] if row else None

    def _hold_locks(self, now_s: float) -> None:
        """Take the locks of what is waited for, and let go of those that nobody has wanted for a moment."""
        with self._listener._changed:
            waited = {kind for kind, count in self._listener._waiters.items() if count > 0}
        self._wanted_s.update(dict.fromkeys(waited, now_s))
        wanted = frozenset(kind for kind, at_s in self._wanted_s.items() if now_s - at_s < _KEEP_LOCK_S)
        if wanted == self._locked:
            return
        calls = [f"pg_advisory_lock_shared({self._place}, {kind})" for kind in sorted(wanted - self._locked)]
        calls += [f"pg_advisory_unlock_shared({self._place}, {kind})" for kind in sorted(self._locked - wanted)]
        self._query("SELECT " + ", ".join(f"({call})::text" for call in calls))
        self._locked = wanted
        self._listener._holds(wanted)

    def _pause_s(self, now_s: float) -> float:
        leaving = [at_s for kind, at_s in self._wanted_s.items() if kind in self._locked and at_s < now_s]
        ends = [at_s + _KEEP_LOCK_S for at_s in leaving]
        until = min([self._pinged_s + _PING_EVERY_S, *ends])
        return max(0.01, until - now_s)

    def _hear(self, timeout_s: float) -> None:
        if not self._heard:
            ours, theirs = self._link.pgconn.socket, self._wake.fileno()
            readable, _, _ = select.select([ours, theirs], [], [], timeout_s)
            if theirs in readable:
                _drain(self._wake)
            if ours in readable:
                self._link.pgconn.consume_input()
                while notice := self._link.pgconn.notifies():
                    self._count(notice.extra.decode("ascii", "replace"))
        if self._heard:
            heard, self._heard = self._heard, Counter()
            self._listener._tell(heard)

    def _note(self, notice: psycopg.Notify) -> None:
        """Take what came while another answer was read."""
        self._count(notice.payload)

    def _count(self, word: str) -> None:
        self._heard[int(word) if word.isdecimal() else WORK] += 1


def _drain(wake: socket.socket) -> None:
    wake.setblocking(False)
    try:
        while wake.recv(4096):
            continue
    except BlockingIOError:
        return
