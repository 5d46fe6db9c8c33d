"""An engine whose calls no interrupt of a job can tear."""

import time
from collections.abc import Sequence
from typing import Any

from penstock.context import is_guarded, shielded
from penstock.engine import (
    MOST_AT_ONCE,
    Added,
    AddRequest,
    Alteration,
    Altered,
    Answer,
    Begun,
    Counts,
    Death,
    Engine,
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
from penstock.model.errors import EngineUnavailable, PenstockError
from penstock.model.job import Change, Fence, Job, JobId, ProcessId

__all__ = ["Shielded"]

#: How long an interrupt may have to wait for a thread that waits.
_SLICE_S = 0.2
#: By how much less an engine may wait than it was asked to.
_EARLY_S = 0.005


class Shielded:
    """Hands each verb to the engine; what interrupts the calling job waits for the verb's end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def capabilities(self) -> frozenset[str]:
        with shielded():
            return self._engine.capabilities

    def enrol(self, worker: WorkerInfo, processes: Sequence[ProcessId]) -> str:
        with shielded():
            return self._engine.enrol(worker, processes)

    def add(self, requests: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
        with shielded():
            return self._engine.add(requests)

    def add_within(self, connection: Any, requests: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
        with shielded():
            return self._engine.add_within(connection, requests)

    def exchange(self, process: ProcessId, beat: int, changes: Sequence[Change], want: Want | None) -> Answer:
        with shielded():
            return self._engine.exchange(process, beat, changes, want)

    def renew(self, tender: ProcessId, leases: Sequence[ProcessId], deaths: Sequence[Death] = ()) -> Renewed:
        with shielded():
            return self._engine.renew(tender, leases, deaths)

    def tend(self, tender: ProcessId, limit: int = MOST_AT_ONCE) -> Tended:
        with shielded():
            return self._engine.tend(tender, limit)

    def wait(self, subject: Subject, since: int, timeout_s: float) -> None:
        """Do the engine's `wait`; where an interrupt may come, in slices between which it can."""
        if not is_guarded():
            self._engine.wait(subject, since, timeout_s)
            return
        ends = time.monotonic() + timeout_s
        while not self._stirs(subject, since, ends):
            continue

    def begin(self, id: JobId, fence: Fence, scope: str, key: str, keep_ms: int | None) -> Begun:
        with shielded():
            return self._engine.begin(id, fence, scope, key, keep_ms)

    def record(self, id: JobId | None, fence: Fence | None, scope: str, key: str, value: bytes | None) -> bool:
        with shielded():
            return self._engine.record(id, fence, scope, key, value)

    def note(self, notes: Sequence[Note]) -> tuple[JobId, ...]:
        with shielded():
            return self._engine.note(notes)

    def shared(self, kind: str) -> dict[str, bytes]:
        with shielded():
            return self._engine.shared(kind)

    def share(self, kind: str, key: str, value: bytes | None, was: bytes | None) -> bool:
        with shielded():
            return self._engine.share(kind, key, value, was)

    def get(self, ids: Sequence[JobId]) -> list[Job | None]:
        with shielded():
            return self._engine.get(ids)

    def log(self, id: JobId) -> dict[int, str]:
        with shielded():
            return self._engine.log(id)

    def find(self, which: Filter) -> Page:
        with shielded():
            return self._engine.find(which)

    def counts(self) -> list[Counts]:
        with shielded():
            return self._engine.counts()

    def groups(self) -> list[Group]:
        with shielded():
            return self._engine.groups()

    def queues(self) -> list[QueueInfo]:
        with shielded():
            return self._engine.queues()

    def workers(self) -> list[WorkerView]:
        with shielded():
            return self._engine.workers()

    def describe(self) -> EngineInfo:
        with shielded():
            return self._engine.describe()

    def load(self, jobs: Sequence[Job]) -> list[Added | PenstockError]:
        with shielded():
            return self._engine.load(jobs)

    def alter(self, ids: Sequence[JobId], alteration: Alteration) -> list[Altered]:
        with shielded():
            return self._engine.alter(ids, alteration)

    def alter_queue(
        self, name: str, *, paused: bool | None = None, max_jobs: int | None = None, unlimited: bool = False
    ) -> QueueInfo:
        with shielded():
            return self._engine.alter_queue(name, paused=paused, max_jobs=max_jobs, unlimited=unlimited)

    def drain(self, workers: Sequence[str]) -> list[str]:
        with shielded():
            return self._engine.drain(workers)

    def evict(self, workers: Sequence[str]) -> list[str]:
        with shielded():
            return self._engine.evict(workers)

    def close(self) -> None:
        with shielded():
            self._engine.close()

    def _stirs(self, subject: Subject, since: int, ends: float) -> bool:
        """Wait for one slice; say whether something may have changed or the time is over."""
        begun = time.monotonic()
        slice_s = max(0.0, min(_SLICE_S, ends - begun))
        try:
            with shielded():
                self._engine.wait(subject, since, slice_s)
        except EngineUnavailable:
            if time.monotonic() >= ends:
                raise
            return False
        now = time.monotonic()
        return now >= ends or now - begun < slice_s - _EARLY_S
