"""What the memory engine holds, and the few moves that every verb is made of.

`put` alone writes a job, so counts and lanes cannot come apart from the jobs.
"""

from bisect import insort
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, NewType

from msgspec.structs import replace

from penstock.engine import Clock, WorkerInfo
from penstock.engines.forms import history_with
from penstock.model.errors import LeaseLost
from penstock.model.job import Claim, ErrorInfo, Fence, Job, JobId, ProcessId
from penstock.model.states import WAITING, State

Fate = Literal["crashed", "released", "lost"]
Seq = NewType("Seq", int)

UNFINISHED = WAITING | {State.RUNNING}


class Lane(NamedTuple):
    """Ready jobs that are eligible together: what stops one of them stops all."""

    queue: str
    task: str
    fair_key: str
    alone: bool


class Place(NamedTuple):
    """Where a ready job stands in its lane, and since when: the least one is claimed first."""

    falling_priority: int
    seq: Seq
    id: JobId
    since_ms: int


@dataclass(frozen=True, slots=True)
class Held:
    """A claim: by whom and since which beat (0: taken over), and what is known of a claim that was taken over."""

    fence: Fence
    process: ProcessId
    beat: int = 0
    fate: Fate | None = None


@dataclass(slots=True)
class Lease:
    """A process's promise to be alive, and what its last exchange answered.

    Attributes:
        until_ms: steady time of `boot` from which it has lapsed.
        void: nothing is accepted under it; it stays until its last claim has been taken over.
        news: a cancel or drain that the process has not been told of.
    """

    worker: str
    boot: str = ""
    until_ms: int = 0
    void: bool = False
    beat: int = 0
    late: tuple[JobId, ...] = ()
    mark: int = 0
    news: bool = False


@dataclass(slots=True)
class Worker:
    """A worker as it enrolled."""

    info: WorkerInfo
    enrolled_ms: int
    drain: bool = False


@dataclass(slots=True)
class Queue:
    """A queue's switches and, for its rate, how many of its jobs had ended at the last sample."""

    paused: bool = False
    max_jobs: int | None = None
    ended: int = 0
    sampled_ms: int | None = None
    sampled_ended: int = 0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Hold:
    """A unique key in use. `until_ms` is set for a window, which no fate of the job shortens."""

    holder: JobId
    until: Literal["started", "ended", "window"]
    until_ms: int = 0


@dataclass(slots=True)
class Entry:
    """A side effect in the ledger; without `until_ms` it lives as long as the job that recorded it."""

    by: JobId
    fence: Fence
    until_ms: int | None = None
    value: bytes | None = None


@dataclass(slots=True)
class Store:
    """All that the memory engine knows. Not thread-safe: the engine holds its lock around every use."""

    clock: Clock
    max_ended: int
    jobs: dict[JobId, Job] = field(default_factory=dict)
    shared: dict[tuple[str, str], bytes] = field(default_factory=dict)
    claims: dict[JobId, Held] = field(default_factory=dict)
    lanes: dict[Lane, list[Place]] = field(default_factory=dict)
    places: dict[JobId, tuple[Lane, Place]] = field(default_factory=dict)
    counts: defaultdict[tuple[str, str], Counter[State]] = field(default_factory=lambda: defaultdict(Counter))
    idempotency_keys: dict[str, JobId] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    queues: dict[str, Queue] = field(default_factory=dict)
    leases: dict[ProcessId, Lease] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    ledger: dict[tuple[str, str], Entry] = field(default_factory=dict)
    logs: defaultdict[JobId, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    last_seq: Seq = Seq(0)
    late_results: int = 0
    schedulings: int = 0

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def put(self, job: Job) -> None:
        """Store a job as it is now. One that becomes ready or changes its lane or priority goes to the end of it."""
        before = self.jobs.get(job.id)
        if before is not None:
            self.counts[before.queue, before.task][before.state] -= 1
        self.counts[job.queue, job.task][job.state] += 1
        self.queues.setdefault(job.queue, Queue())
        self.jobs[job.id] = job
        self._line_up(job)
        if job.state is State.SCHEDULED:
            self.schedulings += 1

    def end(self, job: Job, state: State) -> None:
        """Bring a job to a final state and free its unique key."""
        self._free_key(job)
        self.put(replace(job, state=state, ended_ms=self.clock.wall_ms(), due_ms=None, cancel_requested=False))
        self.queues[job.queue].ended += 1

    def forget(self, job: Job) -> None:
        """Drop a job and all that lives as long as it does."""
        self._leave_lane(job.id)
        self._free_key(job)
        self.counts[job.queue, job.task][job.state] -= 1
        self.idempotency_keys.pop(job.details.idempotency_key or "", None)
        self.logs.pop(job.id, None)
        self.ledger = {at: e for at, e in self.ledger.items() if e.by != job.id or e.until_ms is not None}
        del self.jobs[job.id]

    def draw_seq(self) -> Seq:
        """Give the next number of the order in which jobs became ready."""
        self.last_seq = Seq(self.last_seq + 1)
        return self.last_seq

    def unfinished(self, queue: str) -> int:
        """Count the jobs of a queue that have not ended."""
        rows = (states for (name, _), states in self.counts.items() if name == queue)
        return sum(states[state] for states in rows for state in UNFINISHED)

    def is_expired(self, job: Job, now: int) -> bool:
        """Say whether the job's deadline passed before an attempt was charged."""
        unstarted = job.state in WAITING and not job.counters.attempts
        return unstarted and job.expires_ms is not None and job.expires_ms <= now

    def _line_up(self, job: Job) -> None:
        before = self.places.get(job.id)
        if job.state is not State.READY:
            self._leave_lane(job.id)
            return
        lane = Lane(job.queue, job.task, job.fair_key, job.counters.runs_alone)
        if before is not None and (before[0], before[1].falling_priority) == (lane, -job.priority):
            return
        self._leave_lane(job.id)
        place = Place(-job.priority, self.draw_seq(), job.id, self.clock.wall_ms())
        insort(self.lanes.setdefault(lane, []), place)
        self.places[job.id] = (lane, place)

    def _leave_lane(self, id: JobId) -> None:
        lane, place = self.places.pop(id, (None, None))
        if lane is None or place is None:
            return
        self.lanes[lane].remove(place)
        if not self.lanes[lane]:
            del self.lanes[lane]

    # -- unique keys --------------------------------------------------------------------------------------------------

    def hold_key(self, job: Job, now: int) -> None:
        """Let a job hold its unique key, if it has one."""
        unique = job.details.unique
        if unique is not None:
            self.holds[unique.key] = Hold(job.id, unique.until, now + unique.window_ms)

    def key_holder(self, key: str, now: int) -> JobId | None:
        """Give the job that holds a unique key now."""
        hold = self.holds.get(key)
        if hold is None or (hold.until == "window" and hold.until_ms <= now):
            return None
        return hold.holder

    def start_frees_key(self, job: Job) -> None:
        """Free a unique key that is held until its job has started."""
        if self._own_hold(job) == "started":
            del self.holds[job.details.unique.key]  # type: ignore[union-attr]  # it has a hold, so it has a key

    def _free_key(self, job: Job) -> None:
        if self._own_hold(job) in ("started", "ended"):
            del self.holds[job.details.unique.key]  # type: ignore[union-attr]  # it has a hold, so it has a key

    def _own_hold(self, job: Job) -> str | None:
        hold = self.holds.get(job.details.unique.key) if job.details.unique is not None else None
        return hold.until if hold is not None and hold.holder == job.id else None

    # -- claims and leases --------------------------------------------------------------------------------------------

    def lease(self, process: ProcessId) -> Lease:
        """Give the lease of a process; a lapsed one is good until it is voided.

        Raises:
            LeaseLost: it is void or was never given.
        """
        lease = self.leases.get(process)
        if lease is None or lease.void:
            raise LeaseLost(process)
        return lease

    def renew(self, lease: Lease) -> None:
        """Count a lease from now, in this boot."""
        lease.boot = self.clock.boot()
        lease.until_ms = self.clock.steady_ms() + self.workers[lease.worker].info.lease_ms

    def has_lapsed(self, lease: Lease) -> bool:
        """Say whether a lease has run out or belongs to another boot of the machine."""
        return lease.boot != self.clock.boot() or lease.until_ms <= self.clock.steady_ms()

    def holds_claim(self, id: JobId, fence: Fence) -> bool:
        """Say whether a fence is the one the job runs under, number and token."""
        held = self.claims.get(id)
        return held is not None and held.fence == fence

    def held_by(self, process: ProcessId) -> list[tuple[JobId, Held]]:
        """Give the claims of a process, oldest first."""
        return [(id, held) for id, held in self.claims.items() if held.process == process]

    def claim(self, id: JobId, held: Held) -> None:
        """Put a job under a new claim, whoever held it before."""
        self.claims.pop(id, None)
        self.claims[id] = held
        job = self.jobs[id]
        self.put(replace(job, state=State.RUNNING, claim_number=held.fence.number, process=held.process))

    def see_claim(self, id: JobId) -> Claim:
        """Give a claim as its process needs it."""
        job = self.jobs[id]
        return Claim(
            id=id,
            fence=self.claims[id].fence,
            task=job.task,
            queue=job.queue,
            envelope=job.envelope,
            crc=job.crc,
            policy=job.policy,
            counters=job.counters,
            details=job.details,
            priority=job.priority,
            stage=job.stage,
            enqueued_ms=job.created_ms,
            cancel_requested=job.cancel_requested,
        )

    def drop_empty_leases(self) -> None:
        """Forget void leases that hold nothing any more, and workers without a lease."""
        holding = {held.process for held in self.claims.values()}
        self.leases = {id: lease for id, lease in self.leases.items() if not lease.void or id in holding}
        present = {lease.worker for lease in self.leases.values()}
        self.workers = {id: worker for id, worker in self.workers.items() if id in present}


def with_error(job: Job, error: ErrorInfo | None, now: int) -> Job:
    """Give the job with this error as its last, at the end of its history."""
    if error is None:
        return job
    history = history_with(job.history, error, now)
    return replace(job, error=history[-1], history=history)
