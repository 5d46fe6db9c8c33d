"""The memory engine: one lock around plain dicts, written to be read as the specification of every verb."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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
from penstock.engines.memory import adding, altering, exchanging, leasing, ledger, loading, looking, tending
from penstock.engines.memory.store import Queue, Store
from penstock.model.errors import PenstockError, Unsupported
from penstock.model.job import Change, Fence, Job, JobId, ProcessId

SCHEMA = 1


class MemoryEngine:
    """Keeps jobs in this process; they are gone with it, so nothing it accepts is durable.

    Every verb is atomic and thread-safe. What a verb does is told in the module of its name beside this one.

    Args:
        clock: where the time comes from; tests give one that they turn.
        name: tells one engine from another in its URL.
        max_ended: how many ended jobs each queue keeps, buried ones not counted.

    >>> engine = MemoryEngine()
    >>> engine.counts()
    []
    """

    def __init__(self, clock: Clock | None = None, *, name: str = "memory", max_ended: int = 100_000) -> None:
        self._store = Store(clock if clock is not None else SystemClock(), max_ended)
        self._changed = threading.Condition()
        self._name = name
        self._epoch = os.urandom(8).hex()

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset({"ledger"})

    # -- work ---------------------------------------------------------------------------------------------------------

    def enrol(self, worker: WorkerInfo, processes: Sequence[ProcessId]) -> str:
        checks.check_worker(worker, processes)
        with self._step() as store:
            leasing.enrol(store, worker, processes)
            return self._epoch

    def add(self, requests: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
        checks.check_requests(requests, "memory", self.capabilities)
        with self._step() as store:
            return [adding.add(store, request) for request in requests]

    def add_within(
        self,
        connection: Any,  # noqa: ARG002
        requests: Sequence[AddRequest],  # noqa: ARG002
    ) -> list[list[Added] | PenstockError]:
        raise Unsupported("memory", "transactions")

    def exchange(self, process: ProcessId, beat: int, changes: Sequence[Change], want: Want | None) -> Answer:
        checks.check_changes(changes, "memory", self.capabilities)
        checks.check_want(want)
        with self._step() as store:
            return exchanging.exchange(store, process, beat, changes, want)

    def renew(self, tender: ProcessId, leases: Sequence[ProcessId], deaths: Sequence[Death] = ()) -> Renewed:
        with self._step() as store:
            return leasing.renew(store, tender, leases, deaths)

    def tend(self, tender: ProcessId, limit: int = MOST_AT_ONCE) -> Tended:
        with self._step() as store:
            return tending.tend(store, tender, limit)

    def wait(self, subject: Subject, since: int, timeout_s: float) -> None:
        with self._changed:
            schedulings = self._store.schedulings
            self._changed.wait_for(lambda: self._has_stirred(subject, since, schedulings), timeout_s)

    def begin(self, id: JobId, fence: Fence, scope: str, key: str, keep_ms: int | None) -> Begun:
        with self._step() as store:
            return ledger.begin(store, id, fence, (scope, key), keep_ms)

    def record(self, id: JobId | None, fence: Fence | None, scope: str, key: str, value: bytes | None) -> bool:
        with self._step() as store:
            if id is None or fence is None:
                return ledger.correct(store, (scope, key), value)
            return ledger.record(store, id, fence, (scope, key), value)

    def note(self, notes: Sequence[Note]) -> tuple[JobId, ...]:
        with self._step() as store:
            return tuple(note.id for note in notes if not ledger.note(store, note))

    def shared(self, kind: str) -> dict[str, bytes]:
        checks.check_shared(kind)
        with self._changed:
            return {key: value for (found, key), value in self._store.shared.items() if found == kind}

    def share(self, kind: str, key: str, value: bytes | None, was: bytes | None) -> bool:
        checks.check_shared(kind, key, value)
        with self._step() as store:
            if store.shared.get((kind, key)) != was:
                return False
            if value is None:
                store.shared.pop((kind, key), None)
            else:
                store.shared[kind, key] = value
            return True

    # -- look ---------------------------------------------------------------------------------------------------------

    def get(self, ids: Sequence[JobId]) -> list[Job | None]:
        checks.check_texts("id of a job", ids)
        with self._changed:
            return [self._store.jobs.get(id) for id in ids]

    def log(self, id: JobId) -> dict[int, str]:
        checks.check_text("id of a job", id)
        with self._changed:
            return dict(sorted(self._store.logs.get(id, {}).items()))

    def find(self, which: Filter) -> Page:
        checks.check_filter(which)
        with self._changed:
            return looking.find(self._store, which)

    def counts(self) -> list[Counts]:
        with self._changed:
            return looking.counts(self._store)

    def groups(self) -> list[Group]:
        with self._changed:
            return looking.groups(self._store)

    def queues(self) -> list[QueueInfo]:
        with self._changed:
            return looking.see_queues(self._store)

    def workers(self) -> list[WorkerView]:
        with self._changed:
            return looking.workers(self._store)

    def describe(self) -> EngineInfo:
        return EngineInfo(
            kind="memory",
            url=f"memory://{self._name}",
            durability="D0",
            version="",
            schema=SCHEMA,
            epoch=self._epoch,
            capabilities=self.capabilities,
            late_results=self._store.late_results,
            notes=("Jobs are lost when this process ends.",),
        )

    # -- steer --------------------------------------------------------------------------------------------------------

    def load(self, jobs: Sequence[Job]) -> list[Added | PenstockError]:
        check_load(jobs, "memory", self.capabilities)
        with self._step() as store:
            return [loading.load(store, job) for job in jobs]

    def alter(self, ids: Sequence[JobId], alteration: Alteration) -> list[Altered]:
        checks.check_ids(ids)
        checks.check_alteration(alteration)
        with self._step() as store:
            return [altering.alter(store, id, alteration) for id in ids]

    def alter_queue(
        self, name: str, *, paused: bool | None = None, max_jobs: int | None = None, unlimited: bool = False
    ) -> QueueInfo:
        checks.check_queue(name)
        with self._step() as store:
            queue = store.queues.setdefault(name, Queue())
            if queue.paused and paused is False:
                store.draw_seq()
            queue.paused = queue.paused if paused is None else paused
            queue.max_jobs = None if unlimited else queue.max_jobs if max_jobs is None else max_jobs
            return looking.see_queue(store, name)

    def drain(self, workers: Sequence[str]) -> list[str]:
        checks.check_texts("id of a worker", workers)
        with self._step() as store:
            return leasing.drain(store, workers)

    def evict(self, workers: Sequence[str]) -> list[str]:
        checks.check_texts("id of a worker", workers)
        with self._step() as store:
            return leasing.evict(store, workers)

    def close(self) -> None:
        """Do nothing: there is no connection, and the jobs stay."""

    @contextmanager
    def _step(self) -> Iterator[Store]:
        with self._changed:
            yield self._store
            self._changed.notify_all()

    def _has_stirred(self, subject: Subject, since: int, schedulings: int) -> bool:
        store = self._store
        if subject.queues is not None and store.last_seq > since:
            return True
        if any(id not in store.jobs or store.jobs[id].state.is_final for id in subject.jobs):
            return True
        if subject.due and store.schedulings > schedulings:
            return True
        lease = None if subject.process is None else store.leases.get(subject.process)
        return subject.process is not None and (lease is None or lease.void or lease.news)
