"""The SQLite engine: every verb of the protocol as one transaction on one file."""

import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
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
from penstock.engines.clock import SystemClock
from penstock.engines.loading import check_load
from penstock.engines.sqlite import altering, exchanging, leasing, ledger, reading
from penstock.engines.sqlite.adding import add_jobs
from penstock.engines.sqlite.ballast import Ballast
from penstock.engines.sqlite.loading import load_jobs
from penstock.engines.sqlite.queries import SQL
from penstock.engines.sqlite.schema import refuse_other_schema, schema_version
from penstock.engines.sqlite.step import Catalog, CatalogStale, Step, texts
from penstock.engines.sqlite.store import Store
from penstock.engines.sqlite.tending import Tending
from penstock.engines.sqlite.watching import NEWS, Bell, Ears
from penstock.engines.sqlite.within import Caller
from penstock.model.errors import EngineFull, EngineUnavailable, LeaseLost, PenstockError
from penstock.model.job import Change, Fence, Job, JobId, ProcessId

_T = TypeVar("_T")

_CAPABILITIES = frozenset({"ledger", "transactions"})
_POLL_S = 1.0
_DUE_SLACK_MS = 2


class SqliteEngine:
    """Keeps jobs in one SQLite file in WAL mode; thread-safe, safe across processes of one machine, and after fork.

    Beside the file stand `-wal` and `-shm` (SQLite's) and the folder `<file>-penstock` (locks and wake files).

    Args:
        path: the file; made with mode 0600 on first use. Its folder must exist.
        durability: `full` syncs at every commit and survives power loss (D2); `normal` survives kills of any process
            but a power cut may take the last commits (D1).
        max_ended: how many ended jobs each queue keeps, buried ones not counted.
        timeout_s: how long a call waits for other writers before it raises `EngineBusy`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        durability: str = "full",
        clock: Clock | None = None,
        max_ended: int = 100_000,
        timeout_s: float = 5.0,
    ) -> None:
        if durability not in {"full", "normal"}:
            raise ValueError(f"The durability {durability!r} is not known; use 'full' or 'normal'.")
        self.path = Path(path).absolute()
        self._clock = clock if clock is not None else SystemClock()
        self._max_ended = max_ended
        catalogs = self._catalog, self._catalog_of_readers = Catalog(), Catalog()
        self._store = Store(
            self.path,
            durability=durability,
            timeout_s=timeout_s,
            now_ms=self._clock.wall_ms,
            forget=partial(_forget, catalogs),
        )
        self._ballast = Ballast(self._store.folder)
        self._bell, self._ears = Bell(self._store.folder), Ears(self._store.folder)
        weakref.finalize(self, _let_go, self._store, self._bell, self._ears).atexit = False

    @property
    def capabilities(self) -> frozenset[str]:
        return _CAPABILITIES

    # -- work ---------------------------------------------------------------------------------------------------------

    def enrol(self, worker: WorkerInfo, processes: Sequence[ProcessId]) -> str:
        checks.check_worker(worker, processes)
        steady_ms, boot = self._clock.steady_ms(), self._clock.boot()
        return self._finish(lambda step: leasing.enrol(step, worker, processes, steady_ms, boot))

    def add(self, requests: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
        checks.check_requests(requests, "sqlite", _CAPABILITIES)
        self._check_room()
        return self._do(lambda step: add_jobs(step, requests))

    def add_within(self, connection: Any, requests: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
        checks.check_requests(requests, "sqlite", _CAPABILITIES)
        self._check_room()
        store = self._store
        caller = Caller(connection, self.path, "store", timeout_s=store.timeout_s, turnstile=store.folder)
        if not caller.in_transaction:
            self._read(lambda _: None)  # makes the store where there is none, which needs the write lock
        with caller.transaction(SQL["write_nothing"]) as db:
            refuse_other_schema(db, self.path)
            # Its catalog is its own: a rollback may take lanes back that it has made.
            _, answers = self._run(lambda step: add_jobs(step, requests), Catalog(), db)
        if all(isinstance(answer, PenstockError) for answer in answers):
            caller.leave()
        return answers

    def exchange(self, process: ProcessId, beat: int, changes: Sequence[Change], want: Want | None) -> Answer:
        checks.check_changes(changes, "sqlite", _CAPABILITIES)
        checks.check_want(want)
        written = self._finish(lambda step: exchanging.exchange(step, process, beat, changes, want))
        if written is None:
            raise LeaseLost(process)
        with self._store.translated():
            return written.answer()

    def renew(self, tender: ProcessId, leases: Sequence[ProcessId], deaths: Sequence[Death] = ()) -> Renewed:
        steady_ms, boot = self._clock.steady_ms(), self._clock.boot()
        return self._finish(lambda step: leasing.beat(step, tender, leases, deaths, steady_ms, boot))

    def tend(self, tender: ProcessId, limit: int = MOST_AT_ONCE) -> Tended:
        steady_ms, boot = self._clock.steady_ms(), self._clock.boot()
        tended = self._finish(lambda step: Tending(step, limit, self._max_ended).run(tender, steady_ms, boot))
        self._ballast.rebuild()
        return tended

    def wait(self, subject: Subject, since: int, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        ear = self._ears.borrow(_news_of(subject))
        try:
            while True:
                ear.forget()
                if self._may_have_changed(subject, since, deadline):
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                if "work" in ear.listen(min(left, _POLL_S)):
                    return
        finally:
            self._ears.give_back(ear)

    def begin(self, id: JobId, fence: Fence, scope: str, key: str, keep_ms: int | None) -> Begun:
        return self._finish(lambda step: ledger.begin(step, id, fence, (scope, key), keep_ms))

    def record(self, id: JobId | None, fence: Fence | None, scope: str, key: str, value: bytes | None) -> bool:
        if id is None or fence is None:
            return self._finish(lambda step: ledger.correct(step, (scope, key), value))
        return self._finish(lambda step: ledger.record(step, id, fence, (scope, key), value))

    def note(self, notes: Sequence[Note]) -> tuple[JobId, ...]:
        return self._finish(lambda step: tuple(note.id for note in notes if not ledger.note(step, note)))

    def shared(self, kind: str) -> dict[str, bytes]:
        checks.check_shared(kind)
        return dict(self._read(lambda db: db.execute(SQL["shared"], (kind,)).fetchall()))

    def share(self, kind: str, key: str, value: bytes | None, was: bytes | None) -> bool:
        checks.check_shared(kind, key, value)
        return self._finish(lambda step: ledger.share(step, kind, key, value, was))

    # -- look ---------------------------------------------------------------------------------------------------------

    def get(self, ids: Sequence[JobId]) -> list[Job | None]:
        checks.check_texts("id of a job", ids)
        return self._read(lambda db: reading.Reading(db, self._catalog_of_readers).get(ids))

    def log(self, id: JobId) -> dict[int, str]:
        checks.check_text("id of a job", id)
        return dict(self._read(lambda db: db.execute(SQL["logs"], (id,)).fetchall()))

    def find(self, which: Filter) -> Page:
        checks.check_filter(which)
        return self._read(lambda db: reading.Reading(db, self._catalog_of_readers).find(which))

    def counts(self) -> list[Counts]:
        return self._read(reading.read_counts)

    def groups(self) -> list[Group]:
        return self._read(reading.read_groups)

    def queues(self) -> list[QueueInfo]:
        return self._read(lambda db: reading.read_queues(db, self._clock.wall_ms()))

    def workers(self) -> list[WorkerView]:
        return self._read(lambda db: reading.read_workers(db, self._clock.steady_ms(), self._clock.boot()))

    def describe(self) -> EngineInfo:
        epoch, late = self._read(lambda db: db.execute(SQL["describe"]).fetchone())
        durability = "D2" if self._store.durability == "full" else "D1"
        return EngineInfo(
            kind="sqlite",
            url=f"sqlite:///{self.path}",
            durability=durability,
            version=sqlite3.sqlite_version,
            schema=schema_version(),
            epoch=epoch,
            capabilities=_CAPABILITIES,
            late_results=late,
            size_bytes=self.path.stat().st_size + self._store.wal_bytes(),
            notes=tuple(version_notes(sqlite3.sqlite_version_info)),
        )

    # -- steer --------------------------------------------------------------------------------------------------------

    def load(self, jobs: Sequence[Job]) -> list[Added | PenstockError]:
        check_load(jobs, "sqlite", _CAPABILITIES)
        self._check_room()
        return self._do(lambda step: load_jobs(step, jobs))

    def alter(self, ids: Sequence[JobId], alteration: Alteration) -> list[Altered]:
        checks.check_ids(ids)
        checks.check_alteration(alteration)
        return self._finish(lambda step: [altering.alter(step, id, alteration) for id in ids])

    def alter_queue(
        self, name: str, *, paused: bool | None = None, max_jobs: int | None = None, unlimited: bool = False
    ) -> QueueInfo:
        checks.check_queue(name)
        self._finish(lambda step: altering.alter_queue(step, name, paused, max_jobs, unlimited))
        return next((queue for queue in self.queues() if queue.name == name), QueueInfo(name=name))

    def drain(self, workers: Sequence[str]) -> list[str]:
        checks.check_texts("id of a worker", workers)
        return self._finish(lambda step: leasing.drain(step, workers))

    def evict(self, workers: Sequence[str]) -> list[str]:
        checks.check_texts("id of a worker", workers)
        return self._finish(lambda step: leasing.evict(step, workers))

    def close(self) -> None:
        _let_go(self._store, self._bell, self._ears)

    # -- within -------------------------------------------------------------------------------------------------------

    def _do(self, verb: Callable[[Step], _T]) -> _T:
        """Do a verb as one write transaction, and ring for its news after the commit."""
        try:
            step, answer = self._store.write(partial(self._run, verb, self._catalog))
        except CatalogStale:
            step, answer = self._store.write(partial(self._run, verb, Catalog()))
        for news in NEWS:
            if getattr(step, news):
                self._bell.ring(news)
        return answer

    def _run(self, verb: Callable[[Step], _T], catalog: Catalog, db: sqlite3.Connection) -> tuple[Step, _T]:
        step = Step(db, catalog, self._clock.wall_ms())
        answer = verb(step)
        step.write_counts()
        return step, answer

    def _finish(self, verb: Callable[[Step], _T]) -> _T:
        """Do what must succeed on a full disk too, where the ballast makes room: ends of jobs, and steering."""
        try:
            return self._do(verb)
        except EngineFull:
            self._ballast.give_up()
            self._store.shorten_log()
        return self._do(verb)

    def _check_room(self) -> None:
        if self._ballast.is_spent and not self._ballast.rebuild():
            raise EngineFull(
                f"No room left for {self.path} but what running jobs need to finish. Free 16 MiB on its disk."
            )

    def _read(self, query: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._store.snapshot() as db:
            return query(db)

    def _may_have_changed(self, subject: Subject, since: int, deadline: float) -> bool:
        try:
            with self._store.reading() as db:
                return self._has_changed(db, subject, since, deadline)
        except EngineUnavailable:
            return False

    def _has_changed(self, db: sqlite3.Connection, subject: Subject, since: int, deadline: float) -> bool:
        if subject.queues is not None and db.execute(SQL["seq"]).fetchone()[0] > since:
            return True
        if subject.jobs and db.execute(SQL["not_unfinished"], (texts(subject.jobs),)).fetchone():
            return True
        if subject.process is not None:
            row = db.execute(SQL["steered"], (subject.process,)).fetchone()
            if row is None or row[0]:
                return True
        return subject.due and self._is_due_before(db, deadline)

    def _is_due_before(self, db: sqlite3.Connection, deadline: float) -> bool:
        """Whether a job will be due while the caller means to sleep: it was scheduled since the caller last looked."""
        due_ms = db.execute(SQL["next_due"]).fetchone()[0]
        left_ms = (deadline - time.monotonic()) * 1000
        return due_ms is not None and due_ms < self._clock.wall_ms() + left_ms - _DUE_SLACK_MS


def _news_of(subject: Subject) -> tuple[str, ...]:
    """Name what tells of a change to the subject, so that nothing else wakes its waiter."""
    concerns = {
        "work": subject.queues is not None,
        "done": bool(subject.jobs),
        "due": subject.due,
        "steer": subject.process is not None,
    }
    return tuple(news for news in NEWS if concerns[news])


def _forget(catalogs: Sequence[Catalog]) -> None:
    for catalog in catalogs:
        catalog.clear()


def _let_go(store: Store, bell: Bell, ears: Ears) -> None:
    store.close()
    bell.close()
    ears.close()


def version_notes(version: tuple[int, int, int]) -> Iterator[str]:
    """Source: https://www.sqlite.org/wal.html, section on the WAL-reset bug."""
    if ((3, 7, 0) <= version < (3, 51, 3) and version[:2] not in {(3, 50), (3, 44)}) or version in _UNFIXED:
        yield (
            f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug; penstock checkpoints under its write lock. "
            "Do not run `PRAGMA wal_checkpoint` on this file with other programs while workers write."
        )


_UNFIXED = frozenset([*((3, 50, patch) for patch in range(7)), *((3, 44, patch) for patch in range(6))])
