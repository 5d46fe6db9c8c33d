"""How jobs of another store enter: each as it was there, with its keys, or not at all."""

from penstock.engine import Added
from penstock.engines.loading import held_key
from penstock.engines.memory.store import Store
from penstock.model.errors import IdempotencyConflict, JobRefused, PenstockError, UniqueConflict
from penstock.model.job import Job


def load(store: Store, job: Job) -> Added | PenstockError:
    """Store one job as it is, or answer why it was not stored."""
    if job.id in store.jobs:
        return Added(job.id, existing=True)
    now = store.clock.wall_ms()
    try:
        holds = _may_hold(store, job, now)
        _check_idempotency_key(store, job)
    except JobRefused as refused:
        return refused
    store.put(job)
    if holds:
        store.hold_key(job, job.created_ms)
    if job.details.idempotency_key is not None:
        store.idempotency_keys[job.details.idempotency_key] = job.id
    return Added(job.id)


def _may_hold(store: Store, job: Job, now: int) -> bool:
    """Say whether the job takes its unique key; an ended one leaves its window to another that holds the key."""
    unique = held_key(job, now)
    holder = None if unique is None else store.key_holder(unique.key, now)
    is_free = holder in (None, job.id)  # a window outlives its job, also one that was deleted and comes back
    if unique is not None and holder is not None and not is_free and not job.state.is_final:
        raise UniqueConflict(unique.key, holder)
    return unique is not None and is_free


def _check_idempotency_key(store: Store, job: Job) -> None:
    key = job.details.idempotency_key
    if key is not None and key in store.idempotency_keys:
        raise IdempotencyConflict(key, store.idempotency_keys[key])
