"""What passing time does, in one bounded step: lapse, fall due, expire, be forgotten."""

from collections import defaultdict
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from penstock.engine import Tended
from penstock.engines.memory.leasing import has_orphans, next_lapse_ms, void_lapsed
from penstock.engines.memory.store import Queue, Store
from penstock.model.job import Job, ProcessId
from penstock.model.states import WAITING, State

SAMPLE_AT_LEAST_MS, SAMPLE_AT_MOST_MS = 10_000, 60_000


def tend(store: Store, tender: ProcessId, limit: int) -> Tended:
    """Do up to `limit` of what is to be done; every claim taken over and every job moved counts as one."""
    now = store.clock.wall_ms()
    taken = void_lapsed(store, tender, limit)
    left = limit - len(taken)
    due = _each(_due(store, now), left, lambda job: store.put(replace(job, state=State.READY, due_ms=None)))
    left -= due
    expired = _each(_expired(store, now), left, lambda job: store.end(job, State.EXPIRED))
    left -= expired
    pruned = _each(_outdated(store, now), left, store.forget)
    pruned += _each(_surplus(store), left - pruned, store.forget)
    _sample_rates(store, now)
    store.ledger = {at: e for at, e in store.ledger.items() if e.until_ms is None or e.until_ms > now}
    more, lapse_ms = _has_more(store, tender, now), next_lapse_ms(store, tender)
    return Tended(due, expired, pruned, tuple(taken), more, _next_ms(store, now), lapse_ms)


def _each(jobs: list[Job], left: int, move: Callable[[Job], None]) -> int:
    chosen = jobs[: max(left, 0)]
    for job in chosen:
        move(job)
    return len(chosen)


def _due(store: Store, now: int) -> list[Job]:
    due = ((job.due_ms, job.id, job) for job in store.jobs.values() if job.due_ms is not None and job.due_ms <= now)
    return [job for *_, job in sorted(due, key=lambda entry: entry[:2])]


def _expired(store: Store, now: int) -> list[Job]:
    expired = [job for job in store.jobs.values() if store.is_expired(job, now)]
    return sorted(expired, key=lambda job: (job.expires_ms or 0, job.id))


def _outdated(store: Store, now: int) -> list[Job]:
    return [job for job in _prunable(store) if (job.ended_ms or 0) + job.policy.keep_ms <= now]


def _surplus(store: Store) -> list[Job]:
    """Give the oldest ended jobs of each queue beyond the number it keeps."""
    by_queue: defaultdict[str, list[Job]] = defaultdict(list)
    for job in _prunable(store):
        by_queue[job.queue].append(job)
    return [job for jobs in by_queue.values() for job in jobs[: max(len(jobs) - store.max_ended, 0)]]


def _prunable(store: Store) -> list[Job]:
    ended = (job for job in store.jobs.values() if job.state.is_final and job.state is not State.BURIED)
    return sorted(ended, key=lambda job: (job.ended_ms or 0, job.id))


def _has_more(store: Store, tender: ProcessId, now: int) -> bool:
    own = store.leases.get(tender)
    orphans = own is not None and not own.void and has_orphans(store)
    return bool(orphans or _due(store, now) or _expired(store, now) or _outdated(store, now) or _surplus(store))


def _next_ms(store: Store, now: int) -> int | None:
    times = list(_times(store.jobs.values()))
    return max(min(times) - now, 0) if times else None


def _times(jobs: Iterable[Job]) -> Iterable[int]:
    for job in jobs:
        if job.due_ms is not None:
            yield job.due_ms
        if job.state in WAITING and not job.counters.attempts and job.expires_ms is not None:
            yield job.expires_ms


def _sample_rates(store: Store, now: int) -> None:
    for name in {name for name, _ in store.counts}:
        _sample_rate(store.queues[name], now)


def _sample_rate(queue: Queue, now: int) -> None:
    """Count what ended since the last sample, once it is 10 s old; from 60 s on, count from now.

    The last known rate stands while a fresh sample is too young. A clock that was set back begins anew.
    """
    elapsed = 0 if queue.sampled_ms is None else now - queue.sampled_ms
    if elapsed >= SAMPLE_AT_LEAST_MS:
        queue.rate = (queue.ended - queue.sampled_ended) * 1000 / elapsed
    if queue.sampled_ms is None or elapsed < 0 or elapsed >= SAMPLE_AT_MOST_MS:
        queue.sampled_ms, queue.sampled_ended = now, queue.ended
