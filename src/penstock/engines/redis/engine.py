"""The Redis engine: every verb of the protocol as one script in one slot."""

import contextlib
import operator
import os
import time
import weakref
from collections.abc import Sequence
from typing import Any

import msgspec

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
    Taken,
    Tended,
    Want,
    WorkerInfo,
    WorkerView,
)
from penstock.engines import checks
from penstock.engines.arriving import retry_after_s
from penstock.engines.guard import ClockGuard
from penstock.engines.loading import check_load, held_key, window_ends_ms
from penstock.engines.redis import altering, reading
from penstock.engines.redis.address import Address
from penstock.engines.redis.inspection import durability_of, notes_of, settings_of
from penstock.engines.redis.packing import (
    NUMBERS,
    Argument,
    Catalog,
    Seen,
    attempt,
    body,
    fence_text,
    has_attempt,
    history_out,
    ledger_field,
    pack_changes,
    pack_jobs,
    pack_plain,
    policy_out,
    read_claims,
    read_jobs,
    record_of_end,
    token_text,
)
from penstock.engines.redis.server import SCHEMA, Server
from penstock.engines.redis.waiting import Waiting
from penstock.engines.redis.wire import Reply
from penstock.model.errors import (
    EngineUnavailable,
    IdempotencyConflict,
    LeaseLost,
    PenstockError,
    QueueFull,
    UniqueConflict,
    Unsupported,
)
from penstock.model.job import HISTORY_KEPT, Change, Fence, Job, JobId, ProcessId
from penstock.model.log import LOG_BYTES_KEPT, LOGS_KEPT

_CAPABILITIES = frozenset({"ledger"})
_SEED_BYTES = 16
#: After a store did not take jobs the short way again and again, so many calls are made without trying it.
_LONG_WAYS = 32
_PAGE_IS_LONG = 2
#: From so many jobs on it is worth to spare the list of ids the work of sorting.
_MANY = 16
#: Of how many processes the last beat is known; of one that was forgotten the store is believed.
_BEATS_KEPT = 1000


class RedisEngine:
    """Keeps jobs in one slot of a Redis or Valkey server; thread-safe, and usable after a fork.

    No connection is made before the first call.

    Args:
        prefix: what all keys of the store begin with; stores of different prefixes may share a server.
        max_ended: how many ended jobs each queue keeps, buried ones not counted.
        timeout_s: how long a call may take before it raises `EngineUnavailable`.
        any_eviction: take a server whose `maxmemory-policy` may throw jobs away.
    """

    def __init__(
        self,
        address: Address,
        *,
        prefix: str = "penstock",
        clock: Clock | None = None,
        max_ended: int = 100_000,
        timeout_s: float = 5.0,
        any_eviction: bool = False,
    ) -> None:
        self._clock, self._max_ended, self._prefix = clock, max_ended, prefix
        self._server = Server(
            address,
            f"{{{prefix}}}:",
            timeout_s=timeout_s,
            any_eviction=any_eviction,
        )
        self._guard = ClockGuard()
        self._long_way = self._refused = 0
        self._steered: dict[ProcessId, int] = {}
        self._beats: dict[ProcessId, bytes] = {}  # the last that the store remembers, as it said
        self._scheduled: int | None = None
        weakref.finalize(self, self._server.close).atexit = False

    @property
    def capabilities(self) -> frozenset[str]:
        return _CAPABILITIES

    # -- work ---------------------------------------------------------------------------------------------------------

    def enrol(self, worker: WorkerInfo, processes: Sequence[ProcessId]) -> str:
        checks.check_worker(worker, processes)
        info = msgspec.json.encode(worker)
        epoch, *void = self._run("enrol", [worker.id, info, worker.lease_ms, *processes])
        if void:
            raise LeaseLost(void[0].decode())
        return bytes(epoch).decode()

    def add(self, requests: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
        checks.check_requests(requests, "redis", _CAPABILITIES)
        return [answer for batch in _batches(requests) for answer in self._add(batch)]

    def _add(self, batch: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
        if self._add_plain(batch):
            return [[Added(job.id) for job in request.jobs] for request in batch]
        arguments: list[Argument] = [HISTORY_KEPT, len(batch)]
        for request in batch:
            _pack_request(request, arguments)
        told = self._run("add", arguments)
        return [_added(request, one) for request, one in zip(batch, told, strict=True)]

    def _add_plain(self, batch: Sequence[AddRequest]) -> bool:
        """Store plain jobs the short way, unless it was shut the last times, as it is while a queue has a bound."""
        if self._long_way > 0:
            self._long_way -= 1
            return False
        arguments: list[Argument] = [self._time(), "", ""]
        jobs = [job for request in batch for job in request.jobs]
        if any(request.parent is not None for request in batch) or not pack_plain(jobs, arguments):
            return False
        ids = [job.id for job in jobs]
        if not ids or len(set(ids)) < len(ids):
            return False
        arguments[1:3] = min(ids), _greatest_of_many(ids)
        told = self._server.run("add_plain", arguments)
        self._long_way = self._refused = 0 if told else min(2 * self._refused + 1, _LONG_WAYS)
        if told == _PAGE_IS_LONG:
            with contextlib.suppress(EngineUnavailable):  # the jobs are stored; the next ones divide the page
                self._run("divide", [])
        return bool(told)

    def add_within(
        self,
        connection: Any,  # noqa: ARG002
        requests: Sequence[AddRequest],  # noqa: ARG002
    ) -> list[list[Added] | PenstockError]:
        raise Unsupported("redis", "transactions")

    def exchange(self, process: ProcessId, beat: int, changes: Sequence[Change], want: Want | None) -> Answer:
        checks.check_changes(changes, "redis", _CAPABILITIES)
        checks.check_want(want)
        known = self._beats.get(process, b"")
        arguments: list[Argument] = [process, beat, known, HISTORY_KEPT, os.urandom(_SEED_BYTES)]
        pack_changes(changes, arguments)
        arguments.append(b"" if want is None else msgspec.msgpack.encode(want))
        told = self._run("exchange", arguments)
        if told is None:
            self._beats.pop(process, None)
            raise LeaseLost(process)
        if len(told) == 1:
            raise ValueError(f"Beat {beat} of process {process} does not follow its last beat {int(told[0])}.")
        now_ms, mark, steered, drain, late, cancels, lanes, policies, claims, remembered = told
        self._steered[process] = int(steered)
        self._note_beat(process, remembered)
        with self._server.translated():
            return Answer(
                claims=tuple(read_claims(Catalog(lanes, policies), claims)) if claims else (),
                late=tuple(JobId(id.decode()) for id in late),
                cancels=tuple(reading.fence_in(fence) for fence in cancels),
                drain=drain == 1,
                now_ms=now_ms,
                mark=mark,
            )

    def _note_beat(self, process: ProcessId, beat: bytes) -> None:
        if process not in self._beats and len(self._beats) >= _BEATS_KEPT:
            with contextlib.suppress(KeyError, RuntimeError):  # another thread made room
                del self._beats[next(iter(self._beats))]
        self._beats[process] = beat

    def renew(self, tender: ProcessId, leases: Sequence[ProcessId], deaths: Sequence[Death] = ()) -> Renewed:
        arguments: list[Argument] = [tender, os.urandom(_SEED_BYTES), len(leases), *leases, len(deaths)]
        for death in deaths:
            arguments += (death.process, len(death.started), *map(token_text, death.started))
        told = self._run("renew", arguments)
        if told is None:
            raise LeaseLost(tender)
        _, void, draining, *taken = told
        return Renewed(tuple(map(_process, void)), tuple(map(_process, draining)), self._taken(taken))

    def tend(self, tender: ProcessId, limit: int = MOST_AT_ONCE) -> Tended:
        latest_ms = self._guard.latest_ms(time.monotonic()) if self._clock is None else None
        spares = self._guard.spares(time.monotonic())
        arguments: list[Argument] = [tender, limit, self._max_ended, os.urandom(_SEED_BYTES)]
        arguments += ("" if latest_ms is None else latest_ms, int(spares))
        told = self._run("tend", arguments)
        now_ms, due, expired, pruned, more, next_ms, lapse_ms, scheduled, lease_ms, *taken = told
        self._guard.note(now_ms, time.monotonic(), lease_ms=lease_ms)
        self._scheduled = int(scheduled)
        return Tended(
            due=due,
            expired=expired,
            pruned=pruned,
            taken=self._taken(taken),
            more=more == 1,
            next_ms=int(next_ms) if next_ms else None,
            lapse_ms=int(lapse_ms) if lapse_ms else None,
        )

    def _taken(self, told: Sequence[Any]) -> tuple[Taken, ...]:
        fates, lanes, policies, claims = told
        with self._server.translated():
            found = read_claims(Catalog(lanes, policies), claims)
            return tuple(
                Taken(claim, fates[2 * at].decode(), _process(fates[2 * at + 1])) for at, claim in enumerate(found)
            )

    def wait(self, subject: Subject, since: int, timeout_s: float) -> None:
        marks: dict[str, int | None] = {}
        if subject.queues is not None:
            marks["work"] = since
        if subject.jobs:
            marks["done"] = None
        if subject.process is not None:
            marks["steer"] = self._steered.get(subject.process)
        if subject.due:
            marks["due"] = self._scheduled
        Waiting(self._server, subject, marks, lambda: self._look(subject.jobs)).until(time.monotonic() + timeout_s)

    def _look(self, jobs: Sequence[JobId]) -> tuple[bool, dict[str, int]]:
        over, *numbers = self._run("ended", jobs)
        return over == 1, dict(zip(("work", "done", "due", "steer"), map(int, numbers), strict=True))

    def begin(self, id: JobId, fence: Fence, scope: str, key: str, keep_ms: int | None) -> Begun:
        kept = "" if keep_ms is None else keep_ms
        told = self._run("begin", [id, fence_text(fence), ledger_field(scope, key), kept])
        if told is None:
            raise LeaseLost(f"that held job {id} with fence {fence}")
        if told[0] == 1:
            return Begun(first=True)
        return Begun(first=False, by=JobId(told[1].decode()), value=told[2][1:] if told[2] else None)

    def record(self, id: JobId | None, fence: Fence | None, scope: str, key: str, value: bytes | None) -> bool:
        by_hand = id is None or fence is None
        held: tuple[Argument, ...] = ("", "") if id is None or fence is None else (id, fence_text(fence))
        told = self._run("record", [*held, ledger_field(scope, key), *(() if value is None else (value,))])
        if told is None and not by_hand:
            raise LeaseLost(f"that held job {id} with fence {fence}")
        return bool(told)

    def note(self, notes: Sequence[Note]) -> tuple[JobId, ...]:
        arguments: list[Argument] = [LOG_BYTES_KEPT, LOGS_KEPT]
        for note in notes:
            progress = b"" if note.progress is None else msgspec.json.encode(note.progress)
            log = note.log.encode("utf-8", "replace")
            arguments += (note.id, fence_text(note.fence), progress, log, note.attempt)
        return tuple(JobId(id.decode()) for id in self._run("note", arguments))

    def shared(self, kind: str) -> dict[str, bytes]:
        checks.check_shared(kind)
        found = self._server.command("HGETALL", self._server.prefix + b"shared:" + kind.encode())
        return {found[at].decode(): bytes(found[at + 1]) for at in range(0, len(found), 2)}

    def share(self, kind: str, key: str, value: bytes | None, was: bytes | None) -> bool:
        checks.check_shared(kind, key, value)
        known = (b"" if one is None else b"1" + one for one in (value, was))
        return bool(self._run("share", [kind, key, *known]))

    # -- look ---------------------------------------------------------------------------------------------------------

    def get(self, ids: Sequence[JobId]) -> list[Job | None]:
        checks.check_texts("id of a job", ids)
        seen = (one for at in range(0, len(ids), MOST_AT_ONCE) for one in self._see(ids[at : at + MOST_AT_ONCE])[1])
        return [None if one is None else one.job for one in seen]

    def _see(self, ids: Sequence[JobId]) -> tuple[int, list[Seen | None]]:
        told = self._run("get", ids)
        with self._server.translated():
            return told[0], read_jobs(told)

    def log(self, id: JobId) -> dict[int, str]:
        checks.check_text("id of a job", id)
        found = self._server.command("HGETALL", self._server.prefix + b"log:" + id.encode())
        texts = {int(found[at]): found[at + 1].decode() for at in range(0, len(found), 2)}
        return dict(sorted(texts.items()))

    def find(self, which: Filter) -> Page:
        checks.check_filter(which)
        return reading.find(which, self._run, self._server.translated)

    def counts(self) -> list[Counts]:
        return reading.counts(self._run("queues", []))

    def groups(self) -> list[Group]:
        return reading.groups(self._run("groups", []))

    def queues(self) -> list[QueueInfo]:
        return reading.queues(self._run("queues", []))

    def workers(self) -> list[WorkerView]:
        with self._server.translated():
            return reading.workers(self._run("workers", []))

    def describe(self) -> EngineInfo:
        epoch, late = self._server.command("HMGET", self._server.prefix + b"meta", "epoch", "late")
        if epoch is None:
            _, epoch, late = self._run("open", [SCHEMA, os.urandom(8).hex(), "", "", 0])
        facts, settings = settings_of(self._server.command)
        return EngineInfo(
            kind="redis",
            url=self._server.address.shown(),
            durability=durability_of(facts, settings),
            version=facts.name,
            schema=SCHEMA,
            epoch=epoch.decode(),
            capabilities=_CAPABILITIES,
            late_results=int(late or 0),
            notes=tuple(notes_of(facts, settings)),
        )

    # -- steer --------------------------------------------------------------------------------------------------------

    def load(self, jobs: Sequence[Job]) -> list[Added | PenstockError]:
        check_load(jobs, "redis", _CAPABILITIES)
        if not jobs:
            return []
        now_ms = self._see(())[0]
        arguments: list[Argument] = []
        for job in jobs:
            _pack_loaded(job, now_ms, arguments)
        return [_loaded(job, told) for job, told in zip(jobs, self._run("load", arguments), strict=True)]

    def alter(self, ids: Sequence[JobId], alteration: Alteration) -> list[Altered]:
        checks.check_ids(ids)
        checks.check_alteration(alteration)
        return altering.alter(ids, alteration, self._see, lambda words: self._run("alter", [HISTORY_KEPT, *words]))

    def alter_queue(
        self, name: str, *, paused: bool | None = None, max_jobs: int | None = None, unlimited: bool = False
    ) -> QueueInfo:
        checks.check_queue(name)
        bound = "-" if unlimited else "" if max_jobs is None else max_jobs
        self._run("alter_queue", [name, "" if paused is None else int(paused), bound])
        return next((queue for queue in self.queues() if queue.name == name), QueueInfo(name=name))

    def drain(self, workers: Sequence[str]) -> list[str]:
        checks.check_texts("id of a worker", workers)
        return [worker.decode() for worker in self._run("drain", workers)]

    def evict(self, workers: Sequence[str]) -> list[str]:
        checks.check_texts("id of a worker", workers)
        return [worker.decode() for worker in self._run("evict", workers)]

    def close(self) -> None:
        self._server.close()

    # -- within -------------------------------------------------------------------------------------------------------

    def _run(self, verb: str, arguments: Sequence[Argument]) -> Reply:
        return self._server.run(verb, [self._time(), *arguments])

    def _time(self) -> str:
        if self._clock is None:
            return ""
        return f"{self._clock.wall_ms()} {self._clock.steady_ms()} {self._clock.boot()}"


def _greatest_of_many(ids: list[JobId]) -> str:
    """Give the last id, if they are many and each is greater than the one before; else nothing."""
    return ids[-1] if len(ids) >= _MANY and all(map(operator.lt, ids, ids[1:])) else ""


def _batches(requests: Sequence[AddRequest]) -> list[list[AddRequest]]:
    """Divide requests so that no script stores more than 1,000 jobs."""
    batches: list[list[AddRequest]] = []
    room = 0
    for request in requests:
        if not batches or len(request.jobs) > room:
            batches.append([])
            room = MOST_AT_ONCE
        batches[-1].append(request)
        room -= len(request.jobs)
    return batches


def _pack_request(request: AddRequest, arguments: list[Argument]) -> None:
    if request.parent is None:
        arguments += ("", "")
    else:
        arguments += (request.parent[0], fence_text(request.parent[1]))
    runs_at = len(arguments)
    arguments.append(0)
    arguments[runs_at] = pack_jobs(request.jobs, arguments)


def _added(request: AddRequest, told: Any) -> list[Added] | PenstockError:
    if isinstance(told, int):
        return [Added(job.id) for job in request.jobs]
    if told[0] == b"=":
        holders = zip(request.jobs, told[1], strict=True)
        return [Added(JobId(holder.decode()), True) if holder else Added(job.id) for job, holder in holders]
    return _refused(told)


def _refused(told: Sequence[bytes]) -> PenstockError:
    kind, *facts = (fact.decode() for fact in told)
    if kind == "L":
        return LeaseLost(f"of job {facts[0]}")
    if kind == "F":
        queue, bound, overflow, rate = facts
        return QueueFull(queue, int(bound), retry_after_s(int(overflow), float(rate)))
    return UniqueConflict(*facts) if kind == "U" else IdempotencyConflict(*facts)


def _pack_loaded(job: Job, now_ms: int, arguments: list[Argument]) -> None:
    waits = not job.state.is_final
    unique = held_key(job, now_ms)
    arguments += (
        *(job.id, body(job, expires_ms=job.expires_ms, stage=job.stage), job.queue, job.task),
        *(policy_out(job.policy), job.policy.keep_ms, job.created_ms, NUMBERS[job.state]),
        "" if job.due_ms is None else job.due_ms,
        attempt(job) if waits and has_attempt(job) else b"",
        b"" if waits else record_of_end(job),
        "" if job.ended_ms is None else job.ended_ms,
        history_out(job.history, forgiven=job.error is None),
        b"" if job.progress is None else msgspec.json.encode(job.progress),
        *(int(job.cancel_requested), int(job.counters.runs_alone), int(job.counters.attempts > 0)),
        *(int(unique is not None), 0 if unique is None else window_ends_ms(job, unique)),
    )


def _loaded(job: Job, told: Any) -> Added | PenstockError:
    return Added(job.id, existing=told == 0) if isinstance(told, int) else _refused(told)


def _process(stored: bytes) -> ProcessId:
    return ProcessId(stored.decode())
