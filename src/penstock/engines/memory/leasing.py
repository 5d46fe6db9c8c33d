"""Leases: given, renewed, voided, and what happens to the claims of a void one."""

from collections.abc import Sequence

from penstock.engine import Death, Renewed, Taken, WorkerInfo
from penstock.engines.memory.exchanging import new_fence
from penstock.engines.memory.store import Fate, Held, Lease, Store, Worker
from penstock.model.errors import LeaseLost
from penstock.model.job import JobId, ProcessId


def enrol(store: Store, info: WorkerInfo, processes: Sequence[ProcessId]) -> None:
    """Give each process a lease or renew the one it has, and replace what is known of the worker."""
    for process in processes:
        if process in store.leases:
            store.lease(process)
    known = store.workers.setdefault(info.id, Worker(info, store.clock.wall_ms()))
    known.info = info
    for process in processes:
        store.renew(store.leases.setdefault(process, Lease(info.id)))
    store.drop_empty_leases()


def renew(store: Store, tender: ProcessId, leases: Sequence[ProcessId], deaths: Sequence[Death]) -> Renewed:
    """Renew the leases that are not void, void those of the dead and hand their claims to the tender."""
    store.renew(store.lease(tender))
    taken = [claim for death in deaths for claim in _bury_process(store, tender, death)]
    store.drop_empty_leases()
    void, drain = [], []
    for process in leases:
        try:
            lease = store.lease(process)
        except LeaseLost:
            void.append(process)
            continue
        store.renew(lease)
        if store.workers[lease.worker].drain:
            drain.append(process)
    return Renewed(tuple(void), tuple(drain), tuple(taken))


def void_lapsed(store: Store, tender: ProcessId, limit: int) -> list[Taken]:
    """Void every lapsed lease and hand up to `limit` claims of void leases to the tender, by the job's id.

    Without a live lease of the tender nothing is voided: claims must not be left with nobody.
    """
    own = store.leases.get(tender)
    if own is None or own.void or store.has_lapsed(own):
        return []
    for lease in store.leases.values():
        lease.void = lease.void or store.has_lapsed(lease)
    orphans = sorted(id for id, held in store.claims.items() if store.leases[held.process].void)
    taken = [_take(store, tender, id, "lost") for id in orphans[:limit]]
    store.drop_empty_leases()
    return taken


def has_orphans(store: Store) -> bool:
    """Say whether a void lease still holds a claim."""
    return any(store.leases[held.process].void for held in store.claims.values())


def next_lapse_ms(store: Store, tender: ProcessId) -> int | None:
    """Give how long until the first lease that is not void lapses, the tender's own apart."""
    others = [lease for process, lease in store.leases.items() if process != tender and not lease.void]
    now = store.clock.steady_ms()
    return min((0 if store.has_lapsed(lease) else lease.until_ms - now for lease in others), default=None)


def drain(store: Store, workers: Sequence[str]) -> list[str]:
    """Ask workers to end and give those that have a lease."""
    known = _present(store, workers)
    for id in known:
        store.workers[id].drain = True
    for lease in store.leases.values():
        lease.news = lease.news or lease.worker in known
    return known


def evict(store: Store, workers: Sequence[str]) -> list[str]:
    """Void the leases of workers and give those that had one; their claims wait for a tender."""
    known = _present(store, workers)
    for lease in store.leases.values():
        lease.void = lease.void or lease.worker in known
    store.drop_empty_leases()
    return known


def _present(store: Store, workers: Sequence[str]) -> list[str]:
    present = {lease.worker for lease in store.leases.values() if not lease.void}
    return [id for id in workers if id in present]


def _bury_process(store: Store, tender: ProcessId, death: Death) -> list[Taken]:
    if death.process in store.leases:
        store.leases[death.process].void = True
    return [
        _take(store, tender, id, "crashed" if held.fence.token in death.started else "released")
        for id, held in store.held_by(death.process)
    ]


def _take(store: Store, tender: ProcessId, id: JobId, seen: Fate) -> Taken:
    """Put a claim under a new fence of the tender. What was seen when it was first taken over still holds."""
    before = store.claims[id]
    fate = before.fate or seen
    store.claim(id, Held(new_fence(store.jobs[id]), tender, fate=fate))
    return Taken(store.see_claim(id), fate, before.process)
