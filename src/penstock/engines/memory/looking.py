"""What can be asked of the store without changing it."""

from collections import defaultdict

from penstock.engine import Counts, Filter, Group, Page, QueueInfo, WorkerView
from penstock.engines.matching import matches
from penstock.engines.memory.store import Store
from penstock.model.job import Job


def find(store: Store, which: Filter) -> Page:
    """Give one page of jobs in falling order of id."""
    ids = sorted(store.jobs if which.ids is None else set(which.ids) & store.jobs.keys(), reverse=True)
    jobs = (store.jobs[id] for id in ids if which.before is None or id < which.before)
    found = [job for job in jobs if matches(job, which)]
    page = tuple(found[: which.limit])
    return Page(page, page[-1].id if len(found) > which.limit else None)


def counts(store: Store) -> list[Counts]:
    """Give the counts that are not zero, by queue and task."""
    rows = ((key, {state: n for state, n in states.items() if n}) for key, states in store.counts.items())
    return [Counts(queue, task, states) for (queue, task), states in sorted(rows, key=lambda row: row[0]) if states]


def groups(store: Store) -> list[Group]:
    """Give the groups of buried jobs by id, each with its newest job."""
    found: defaultdict[str, list[Job]] = defaultdict(list)
    for job in store.jobs.values():
        if job.group:
            found[job.group].append(job)
    return [_group(id, found[id]) for id in sorted(found)]


def _group(id: str, jobs: list[Job]) -> Group:
    times = [job.ended_ms or 0 for job in jobs]
    return Group(id, len(jobs), min(times), max(times), max(job.id for job in jobs))


def see_queues(store: Store) -> list[QueueInfo]:
    """Give every queue that holds jobs or has a switch set, by name."""
    used = {queue for (queue, _), states in store.counts.items() if any(states.values())}
    switched = {name for name, queue in store.queues.items() if queue.paused or queue.max_jobs is not None}
    return [see_queue(store, name) for name in sorted(used | switched)]


def see_queue(store: Store, name: str) -> QueueInfo:
    """Give a queue as it is now."""
    queue, now = store.queues[name], store.clock.wall_ms()
    places = (place for lane, places in store.lanes.items() if lane.queue == name for place in places)
    oldest = min((place.since_ms for place in places), default=None)
    return QueueInfo(
        name=name,
        paused=queue.paused,
        max_jobs=queue.max_jobs,
        unfinished=store.unfinished(name),
        rate=queue.rate,
        oldest_ms=None if oldest is None else max(now - oldest, 0),
    )


def workers(store: Store) -> list[WorkerView]:
    """Give every worker that has a lease, by id."""
    views = (_see_worker(store, id) for id in sorted(store.workers))
    return [view for view in views if view.processes]


def _see_worker(store: Store, id: str) -> WorkerView:
    worker = store.workers[id]
    leases = {process: lease for process, lease in store.leases.items() if lease.worker == id and not lease.void}
    steady = store.clock.steady_ms()
    left = (0 if store.has_lapsed(lease) else lease.until_ms - steady for lease in leases.values())
    return WorkerView(
        info=worker.info,
        processes=tuple(sorted(leases)),
        running=sum(held.process in leases for held in store.claims.values()),
        drain=worker.drain,
        lease_left_ms=max(left, default=0),
        enrolled_ms=worker.enrolled_ms,
    )
