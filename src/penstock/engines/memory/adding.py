"""How new jobs enter: each request is planned whole, and stored only if every job of it is taken."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from penstock.engine import Added, AddRequest
from penstock.engines.arriving import due_ms, expires_ms, retry_after_s
from penstock.engines.memory.store import Store, with_error
from penstock.model.errors import IdempotencyConflict, JobRefused, LeaseLost, PenstockError, QueueFull, UniqueConflict
from penstock.model.job import ErrorInfo, Job, JobId, NewJob, origin_of
from penstock.model.states import WAITING, State


@dataclass(slots=True)
class Plan:
    """What a request will do: its answers, the jobs to store, and which waiting job each of them replaces."""

    answers: list[Added] = field(default_factory=list)
    jobs: dict[JobId, NewJob] = field(default_factory=dict)
    replaces: dict[JobId, JobId] = field(default_factory=dict)
    idempotency_keys: dict[str, JobId] = field(default_factory=dict)
    unique_keys: dict[str, JobId] = field(default_factory=dict)


def add(store: Store, request: AddRequest) -> list[Added] | PenstockError:
    """Store a request whole, or answer why nothing of it was stored."""
    if request.parent is not None and not store.holds_claim(*request.parent):
        id, fence = request.parent
        return LeaseLost(f"that held job {id} with fence {fence}")
    now = store.clock.wall_ms()
    try:
        plan = _plan(store, request.jobs, now)
        _check_room(store, plan)
    except JobRefused as refused:
        return refused
    _commit(store, plan, now)
    return plan.answers


def add_follow_ups(store: Store, jobs: Sequence[NewJob], now: int) -> None:
    """Store jobs outside every bound; those that are known, or whose key is held, are passed over."""
    for job in jobs:
        try:
            plan = _plan(store, (job,), now)
        except JobRefused:
            continue
        _commit(store, plan, now)


def _plan(store: Store, jobs: Sequence[NewJob], now: int) -> Plan:
    plan = Plan()
    for job in jobs:
        known = _known(store, plan, job) or _resolve_unique(store, plan, job, now)
        plan.answers.append(Added(known or job.id, existing=known is not None))
        if known is None:
            plan.jobs[job.id] = job
            if job.details.idempotency_key is not None:
                plan.idempotency_keys[job.details.idempotency_key] = job.id
            if job.details.unique is not None:
                plan.unique_keys[job.details.unique.key] = job.id
    return plan


def _known(store: Store, plan: Plan, job: NewJob) -> JobId | None:
    """Find the job that was added before by the same id or idempotency key."""
    key = job.details.idempotency_key
    holder = job.id
    earlier: NewJob | Job | None = plan.jobs.get(job.id) or store.jobs.get(job.id)
    if earlier is None and key is not None:
        found = plan.idempotency_keys.get(key) or store.idempotency_keys.get(key)
        if found is not None:
            holder, earlier = found, plan.jobs.get(found) or store.jobs[found]
    if earlier is None:
        return None
    if (origin_of(earlier.details, earlier.task), earlier.envelope) != (job.task, job.envelope):
        raise IdempotencyConflict(job.id if holder == job.id else str(key), holder)
    return holder


def _resolve_unique(store: Store, plan: Plan, job: NewJob, now: int) -> JobId | None:
    """Find the holder that stands in for the job, or note the one that it replaces."""
    unique = job.details.unique
    if unique is None:
        return None
    holder = plan.unique_keys.get(unique.key) or store.key_holder(unique.key, now)
    if holder is None:
        return None
    if unique.clash == "refuse":
        raise UniqueConflict(unique.key, holder)
    if unique.clash == "replace" and _waits(store, plan, holder):
        plan.replaces[job.id] = holder
        return None
    return holder


def _waits(store: Store, plan: Plan, id: JobId) -> bool:
    return id in plan.jobs or (id in store.jobs and store.jobs[id].state in WAITING)


def _check_room(store: Store, plan: Plan) -> None:
    """Refuse a request that would take a queue over its bound; what it replaces makes room."""
    more = Counter(job.queue for job in plan.jobs.values())
    less = Counter((plan.jobs.get(id) or store.jobs[id]).queue for id in plan.replaces.values())
    for name, count in more.items():
        queue = store.queues.get(name)
        if queue is None or queue.max_jobs is None:
            continue
        overflow = store.unfinished(name) + count - less[name] - queue.max_jobs
        if overflow > 0:
            raise QueueFull(name, queue.max_jobs, retry_after_s(overflow, queue.rate))


def _commit(store: Store, plan: Plan, now: int) -> None:
    for new in plan.jobs.values():
        if new.id in plan.replaces:
            _make_way(store, store.jobs[plan.replaces[new.id]], new.id, now)
        job = _stored(new, now)
        store.put(job)
        store.hold_key(job, now)
        if new.details.idempotency_key is not None:
            store.idempotency_keys[new.details.idempotency_key] = new.id


def _make_way(store: Store, job: Job, successor: JobId, now: int) -> None:
    error = ErrorInfo(kind="cancelled", message=f"replaced by {successor}")
    store.end(with_error(job, error, now), State.CANCELLED)


def _stored(new: NewJob, now: int) -> Job:
    due = due_ms(new, now)
    job = Job(
        id=new.id,
        state=State.READY,
        task=new.task,
        queue=new.queue,
        envelope=new.envelope,
        crc=new.crc,
        priority=new.priority,
        fair_key=new.fair_key,
        policy=new.policy,
        details=new.details,
        created_ms=now,
        expires_ms=expires_ms(new, now),
    )
    return job if due is None else replace(job, state=State.SCHEDULED, due_ms=due)
