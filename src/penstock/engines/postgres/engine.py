"""The PostgreSQL engine: every verb of the protocol as one transaction, the busy ones as one statement."""

import os
import random
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from penstock.engine import (
    MOST_AT_ONCE,
    Added,
    AddRequest,
    Alteration,
    Altered,
    Answer,
    Begun,
    Clock,
    Counts,
    Death,
    EngineInfo,
    Filter,
    Group,
    Note,
    Page,
    QueueInfo,
    Renewed,
    Subject,
    Tended,
    Want,
    WorkerInfo,
    WorkerView,
)
from penstock.engines import checks
from penstock.engines.guard import ClockGuard
from penstock.engines.loading import check_load
from penstock.engines.postgres import adding, exchanging, leasing, ledger, listening, moving, reading, wire
from penstock.engines.postgres.altering import Altering, alter_queue
from penstock.engines.postgres.catalog import Catalog
from penstock.engines.postgres.inspection import durability
from penstock.engines.postgres.leasing import Now
from penstock.engines.postgres.loading import Loading
from penstock.engines.postgres.schema import schema_version
from penstock.engines.postgres.store import Row, Session, Store
from penstock.engines.postgres.tending import Tending
from penstock.engines.postgres.within import Caller
from penstock.model.errors import EngineBusy, EngineUnavailable, LeaseLost, PenstockError
from penstock.model.job import Change, Fence, Job, JobId, NewJob, ProcessId

_T = TypeVar("_T")

_CAPABILITIES = frozenset({"ledger", "transactions"})
_POLL_S = 1.0
_RECEIVE_EVERY_S = 1.0
#: After the listening began: a transaction that saw nobody wait has committed by then.
_SETTLE_S = 0.01
_DUE_SLACK_MS = 2
_BEATS_KEPT = 1000
_UNKNOWN = (None, None)
_ONE_BOOT = "server"
_ALL, _APPLY, _CLAIM = range(3)


class PostgresEngine:
    """Keeps jobs in a schema of a PostgreSQL database, 13 or newer; thread-safe, and usable after fork.

    Connections are opened when they are needed, at most ten at once, one more to look things up
    meanwhile, and one that listens while somebody waits.

    Attributes:
        store: its connections.

    Args:
        conninfo: what libpq connects with, as a URL or as words.
        schema: where the tables are; made on first use.
        shown: the URL without its password.
        prepare: whether statements are prepared on the server; turns itself off where a pooler does not bear it.
        max_ended: how many ended jobs each queue keeps, buried ones not counted.
        timeout_s: how long a call may take, connecting included, before it raises `EngineBusy`.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        schema: str = "penstock",
        shown: str = "postgresql://",
        prepare: bool = True,
        clock: Clock | None = None,
        max_ended: int = 100_000,
        timeout_s: float = 5.0,
    ) -> None:
        self._clock, self._max_ended, self._shown = clock, max_ended, shown
        self.store = Store(conninfo, schema=schema, shown=shown, timeout_s=timeout_s, prepares=prepare)
        self._catalog = Catalog(self.store)
        self._sight = exchanging.Sight()
        self.store.forget = _forgetting(self._catalog, self._sight)
        self._listener = listening.Listener(self.store)
        self._beats: dict[ProcessId, tuple[int, int]] = {}
        self._received_s = 0.0
        self._guard = ClockGuard()
        self._careful_until_s = 0.0
        self._pid = os.getpid()
        weakref.finalize(self, _let_go, self.store, self._listener).atexit = False

    @property
    def capabilities(self) -> frozenset[str]:
        return _CAPABILITIES

    # -- work ---------------------------------------------------------------------------------------------------------

    def enrol(self, worker: WorkerInfo, processes: Sequence[ProcessId]) -> str:
        checks.check_worker(worker, processes)
        return self.store.step(lambda session: leasing.enrol(session, worker, processes, self._now(session)))

    def add(self, requests: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
        checks.check_requests(requests, "postgresql", _CAPABILITIES)
        if not all(request.jobs for request in requests):
            return self._add_some(requests)
        jobs = [job for request in requests for job in request.jobs]
        if adding.is_plain(requests) and time.monotonic() > self._careful_until_s and self._store_plain(jobs):
            return adding.stored(requests)
        columns = adding.columns(self._catalog, requests)
        return adding.answers(
            requests, self.store.rows("add_each", self.store.lock_ms, self._wall_ms(), False, True, *columns)
        )

    def _add_some(self, requests: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
        """Add what is not empty; of an empty request only the parent is looked at."""
        some = [request for request in requests if request.jobs]
        filled = iter(self.add(some) if some else [])
        return [next(filled) if request.jobs else self._empty(request) for request in requests]

    def _empty(self, request: AddRequest) -> list[Added] | PenstockError:
        if request.parent is None:
            return []
        id, fence = request.parent
        held = self.store.rows("held", id, fence.number, fence.token)
        return [] if held else LeaseLost(f"of job {id}")

    def _store_plain(self, jobs: Sequence[NewJob]) -> bool:
        """Store jobs that are new, into queues without a bound; say whether they were."""
        if len(jobs) == 1 and jobs[0].id.isascii():  # `wire` refuses what cannot be encoded
            verb, columns = "add_one", adding.plain_values(self._catalog, jobs[0])
        else:
            verb, columns = "add", adding.plain_columns(self._catalog, jobs)
        stored = self.store.row(verb, self.store.lock_ms, self._wall_ms(), *columns)[0]
        if stored is None:
            self._careful_until_s = time.monotonic() + _POLL_S
        return bool(stored)

    def add_within(self, connection: Any, requests: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
        checks.check_requests(requests, "postgresql", _CAPABILITIES)
        caller = Caller(connection, self.store)
        columns = adding.columns(self._catalog, requests)
        with caller.transaction() as session:
            rows = session.rows("add_each", self.store.lock_ms, self._wall_ms(), True, True, *columns)
        return adding.answers(requests, rows)

    def exchange(self, process: ProcessId, beat: int, changes: Sequence[Change], want: Want | None) -> Answer:
        checks.check_changes(changes, "postgresql", _CAPABILITIES)
        checks.check_want(want)
        if want is not None:
            self._receive()
        call = (process, beat, self._wall_ms())
        columns = exchanging.change_columns(changes)
        wanted = (*exchanging.want_columns(want), *self._sight.columns(), *self._beats.get(process, _UNKNOWN))
        if any(change.follow_ups or change.ledger or change.move for change in changes):
            rows = self.store.step(lambda session: self._in_parts(session, changes, call, columns, wanted))
        else:
            rows = self.store.rows("exchange", self.store.lock_ms, _ALL, *call, *columns, *wanted)
        with self.store.translated():
            return self._answer(process, beat, rows)

    def _in_parts(
        self,
        session: Session,
        changes: Sequence[Change],
        call: tuple[Any, ...],
        columns: tuple[Any, ...],
        wanted: tuple[Any, ...],
    ) -> list[Row]:
        """Apply the changes, store what follows from those that came in time, then claim; all in one transaction."""
        moving.move(session, self._catalog, call[0], changes)
        rows = session.rows("exchange", self.store.lock_ms, _APPLY, *call, *columns, *wanted)
        head = exchanging.read_head(rows)
        if not head.applied:
            return rows
        for place, change in enumerate(changes, 1):
            if place in head.places:
                continue
            for entry in change.ledger:
                ledger.settle_entry(session, change.id, change.fence, entry)
            for job in change.follow_ups:
                one = adding.columns(self._catalog, [AddRequest((job,))])
                session.rows("add_each", self.store.lock_ms, call[2], False, False, *one)
        return session.rows("exchange", self.store.lock_ms, _CLAIM, *call, wire.texts(head.late), *columns[1:], *wanted)

    def _answer(self, process: ProcessId, beat: int, rows: Sequence[Row]) -> Answer:
        head = exchanging.read_head(rows)
        if head.lost:
            self._beats.pop(process, None)
            raise LeaseLost(process)
        if head.before is not None or beat < 1:
            raise ValueError(f"Beat {beat} of process {process} does not follow its last beat {head.before or 0}.")
        self._sight.learn(head)
        if process not in self._beats and len(self._beats) >= _BEATS_KEPT:
            self._beats.clear()
        self._beats[process] = head.process, head.beat
        return exchanging.read_answer(self._catalog, rows, head)

    def renew(self, tender: ProcessId, leases: Sequence[ProcessId], deaths: Sequence[Death] = ()) -> Renewed:
        if not deaths:
            return self._renew_alive(tender, leases)
        return self.store.step(
            lambda session: leasing.beat(session, self._catalog, tender, leases, deaths, self._now(session))
        )

    def _renew_alive(self, tender: ProcessId, leases: Sequence[ProcessId]) -> Renewed:
        """Do it in one round trip."""
        clock = self._clock
        now = (None, _ONE_BOOT) if clock is None else (clock.steady_ms(), clock.boot())
        wanted = wire.texts([tender, *leases])
        rows = self.store.rows("renew_alive", self.store.lock_ms, tender, wanted, *now)
        if not rows:
            raise LeaseLost(tender)
        return leasing.renewed(leases, rows)

    def tend(self, tender: ProcessId, limit: int = MOST_AT_ONCE) -> Tended:
        self._receive(at_once=True)
        return self.store.step(lambda session: self._tend(session, tender, limit))

    def _tend(self, session: Session, tender: ProcessId, limit: int) -> Tended:
        now = self._now(session)
        voids = self._clock is not None or self._trusts_clock(session, now.steady_ms)
        return Tending(session, self._catalog, limit, self._max_ended, now, voids=voids).run(tender)

    def _trusts_clock(self, session: Session, now_ms: int) -> bool:
        """Cut leases that reach too far, as the clock was set back; say whether it may void those that lapsed."""
        session.do("cut_leases", now_ms, now_ms)
        own_s = time.monotonic()
        latest_ms = self._guard.latest_ms(own_s)
        has_jumped = latest_ms is not None and now_ms > latest_ms
        self._guard.note(now_ms, own_s, lease_ms=session.value("longest_lease") if has_jumped else 0)
        return not self._guard.spares(own_s)

    def wait(self, subject: Subject, since: int, timeout_s: float) -> None:
        self._check_process()
        until = time.monotonic() + timeout_s
        asks: Callable[[Subject, int, float], bool] = self._has_changed
        with self._listener.waiting(_kinds_of(subject)) as ear:
            settled = ear.listens
            while not _says(asks, subject, since, until):
                asks = self._has_changed_after_all
                left_s = until - time.monotonic()
                pause_s = min(left_s, _POLL_S * random.uniform(0.8, 1.2))
                if left_s <= 0 or ear.hears(pause_s):
                    return
                if ear.listens and not settled:
                    settled = True
                    ear.hears(min(left_s, _SETTLE_S))
                    return
                if not ear.listens and time.monotonic() > until - left_s + pause_s:
                    return

    def begin(self, id: JobId, fence: Fence, scope: str, key: str, keep_ms: int | None) -> Begun:
        return self.store.step(
            lambda session: ledger.begin(session, id, fence, (scope, key), keep_ms, self._now(session).wall_ms)
        )

    def record(self, id: JobId | None, fence: Fence | None, scope: str, key: str, value: bytes | None) -> bool:
        if id is None or fence is None:
            return self.store.step(
                lambda session: ledger.correct(session, (scope, key), value, self._now(session).wall_ms)
            )
        return self.store.step(lambda session: ledger.record(session, id, fence, (scope, key), value))

    def note(self, notes: Sequence[Note]) -> tuple[JobId, ...]:
        return self.store.step(lambda session: tuple(note.id for note in notes if not ledger.note(session, note)))

    def shared(self, kind: str) -> dict[str, bytes]:
        checks.check_shared(kind)
        return dict(self.store.rows("shared", kind))

    def share(self, kind: str, key: str, value: bytes | None, was: bytes | None) -> bool:
        checks.check_shared(kind, key, value)
        return self.store.step(lambda session: ledger.share(session, kind, key, value, was))

    # -- look ---------------------------------------------------------------------------------------------------------

    def get(self, ids: Sequence[JobId]) -> list[Job | None]:
        checks.check_texts("id of a job", ids)
        return self._read(lambda: reading.Reading(self.store, self._catalog).get(ids))

    def log(self, id: JobId) -> dict[int, str]:
        checks.check_text("id of a job", id)
        return {attempt: ledger.log_text(body) for attempt, body in self.store.rows("logs", id)}

    def find(self, which: Filter) -> Page:
        checks.check_filter(which)
        return self._read(lambda: reading.Reading(self.store, self._catalog).find(which))

    def counts(self) -> list[Counts]:
        return self._read(lambda: reading.read_counts(self.store))

    def groups(self) -> list[Group]:
        return self._read(lambda: reading.read_groups(self.store))

    def queues(self) -> list[QueueInfo]:
        return self._read(lambda: reading.read_queues(self.store, self.store.row("now_ms", self._wall_ms())[0]))

    def workers(self) -> list[WorkerView]:
        if self._clock is not None:
            return reading.read_workers(self.store, self._clock.steady_ms(), self._clock.boot())
        return reading.read_workers(self.store, self.store.row("now_ms", None)[0], _ONE_BOOT)

    def describe(self) -> EngineInfo:
        row = self.store.row("describe", self.store.placed("penstock.meta"))
        epoch, late, version, fsync, full_pages, commits, standby_names, size, standbys = row
        return EngineInfo(
            kind="postgresql",
            url=self._shown,
            durability=durability(fsync, full_pages, commits, standby_names, standbys),
            version=version,
            schema=schema_version(),
            epoch=epoch,
            capabilities=_CAPABILITIES,
            late_results=late,
            size_bytes=size,
        )

    # -- steer --------------------------------------------------------------------------------------------------------

    def load(self, jobs: Sequence[Job]) -> list[Added | PenstockError]:
        check_load(jobs, "postgresql", _CAPABILITIES)
        return self.store.step(lambda session: Loading(session, self._catalog, self._now(session).wall_ms).run(jobs))

    def alter(self, ids: Sequence[JobId], alteration: Alteration) -> list[Altered]:
        checks.check_ids(ids)
        checks.check_alteration(alteration)
        self._receive()
        return self.store.step(
            lambda session: Altering(session, self._catalog, alteration, self._now(session).wall_ms).run(ids)
        )

    def alter_queue(
        self, name: str, *, paused: bool | None = None, max_jobs: int | None = None, unlimited: bool = False
    ) -> QueueInfo:
        checks.check_queue(name)
        self.store.step(lambda session: alter_queue(session, name, paused, max_jobs, unlimited))
        return next((queue for queue in self.queues() if queue.name == name), QueueInfo(name=name))

    def drain(self, workers: Sequence[str]) -> list[str]:
        checks.check_texts("id of a worker", workers)
        return self.store.step(lambda session: leasing.drain(session, workers))

    def evict(self, workers: Sequence[str]) -> list[str]:
        checks.check_texts("id of a worker", workers)
        return self.store.step(lambda session: leasing.evict(session, workers))

    def close(self) -> None:
        self._check_process()
        _let_go(self.store, self._listener)

    # -- within -------------------------------------------------------------------------------------------------------

    def _wall_ms(self) -> int | None:
        return None if self._clock is None else self._clock.wall_ms()

    def _now(self, session: Session) -> Now:
        if self._clock is not None:
            return Now(self._clock.wall_ms(), self._clock.steady_ms(), self._clock.boot())
        now_ms = session.value("now_ms", None)
        return Now(now_ms, now_ms, _ONE_BOOT)

    def _read(self, query: Callable[[], _T]) -> _T:
        self._receive()
        with self.store.translated():
            return query()

    def _receive(self, *, at_once: bool = False) -> None:
        """Take over what transactions of the application have committed, when there may be some.

        What is in the way now is taken over the next time: no verb fails for it.
        """
        listener, now_s = self._listener, time.monotonic()
        if at_once or self._clock is not None or listener.arrived or now_s - self._received_s > _RECEIVE_EVERY_S:
            listener.arrived, self._received_s = False, now_s
            with suppress(EngineBusy):
                self.store.rows("receive", self._wall_ms())

    def _has_changed(self, subject: Subject, since: int, until: float) -> bool:
        """Ask for all at once; a due time counts if it comes while the caller means to sleep."""
        left_ms = round((until - time.monotonic()) * 1000) - _DUE_SLACK_MS if subject.due else None
        process = subject.process
        values = (subject.queues is not None, since, wire.texts(subject.jobs), process, process, left_ms)
        return bool(self.store.row("news", *values, self._wall_ms(), left_ms)[0])

    def _has_changed_after_all(self, subject: Subject, since: int, until: float) -> bool:
        """Look behind the mark too: what was drawn before it may have been committed after it, unheard."""
        behind = None if subject.queues is None else self._sight.behind()
        if behind is not None:
            queues = wire.texts(subject.queues) if subject.queues else None
            if self.store.row("behind", behind, queues, queues)[0]:
                self._sight.widen()
                return True
        return self._has_changed(subject, since, until)

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._listener.abandon()


def _says(asks: Callable[[Subject, int, float], bool], subject: Subject, since: int, until: float) -> bool:
    """Ask for news; a store that does not answer has none."""
    try:
        return asks(subject, since, until)
    except EngineUnavailable:
        return False


def _kinds_of(subject: Subject) -> tuple[int, ...]:
    """Name what tells of a change to the subject, so that nothing else wakes its waiter."""
    concerns = {
        listening.WORK: subject.queues is not None,
        listening.ENDS: bool(subject.jobs),
        listening.DUE: subject.due,
        listening.STEER: subject.process is not None,
    }
    return tuple(kind for kind, concerned in concerns.items() if concerned)


def _forgetting(catalog: Catalog, sight: exchanging.Sight) -> Callable[[], None]:
    def forget() -> None:
        catalog.forget()
        sight.forget()

    return forget


def _let_go(store: Store, listener: listening.Listener) -> None:
    listener.close()
    store.close()
