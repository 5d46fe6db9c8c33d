"""Leases: giving, renewing and voiding them, and taking over what a void one held."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from penstock.engine import Death, Renewed, Taken, WorkerInfo
from penstock.engines.postgres import wire
from penstock.engines.postgres.catalog import Catalog
from penstock.engines.postgres.exchanging import read_claims
from penstock.engines.postgres.store import Row, Session
from penstock.model.errors import LeaseLost
from penstock.model.job import ProcessId

_EVERY_CLAIM = 2**31 - 1


class Now(NamedTuple):
    """The time of one step: of day, on the steady clock, and in which boot."""

    wall_ms: int
    steady_ms: int
    boot: str


def enrol(session: Session, worker: WorkerInfo, processes: Sequence[ProcessId], now: Now) -> str:
    """Give each process a lease or renew the one it has, and replace what is known of the worker; answers the epoch."""
    session.do("enrol_worker", worker.id, msgspec.json.encode(worker), now.wall_ms)
    for process in sorted(processes):
        number, void = session.rows("enrol_process", process, worker.id, worker.lease_ms)[0]
        if void:
            raise LeaseLost(process)
        session.do("give_lease", number, now.steady_ms + worker.lease_ms, now.boot)
    return str(session.value("epoch"))


def beat(
    session: Session,
    catalog: Catalog,
    tender: ProcessId,
    leases: Sequence[ProcessId],
    deaths: Sequence[Death],
    now: Now,
) -> Renewed:
    """Renew the tender's lease and those it vouches for, and let it take over what the dead held."""
    for process in sorted({tender, *(death.process for death in deaths)}):
        session.rows("hold_process", process)
    own = session.row("lease_row", tender)
    if own is None:
        raise LeaseLost(tender)
    taken: list[Taken] = []
    for death in deaths:
        row = session.row("void_process", death.process)
        if row is not None:
            taken += take_over(session, catalog, row[0], death.process, own[0], _EVERY_CLAIM, death.started)
            drop_if_empty(session, row[0])
    wanted = wire.texts([tender, *leases])
    session.do("renew", now.steady_ms, now.boot, wanted)
    return renewed(leases, session.rows("leases", wanted), taken)


def renewed(leases: Sequence[ProcessId], rows: Sequence[Row], taken: Sequence[Taken] = ()) -> Renewed:
    """Tell what a renewal found, from the leases that are not void."""
    known: dict[str, bool] = {row[0]: row[1] for row in rows}
    void = tuple(process for process in leases if process not in known)
    return Renewed(void, tuple(process for process in leases if known.get(process)), tuple(taken))


def take_over(
    session: Session,
    catalog: Catalog,
    process: int,
    id: str,
    tender: int,
    limit: int,
    started: frozenset[int] | None = None,
) -> list[Taken]:
    """Move claims of a void lease to the tender under new fences.

    Args:
        started: tokens whose code had begun; None if nobody saw, so that each is lost unless its fate is on record.
    """
    seen = started is not None
    rows = session.rows("take_over", process, limit, tender, seen, wire.longs(sorted(started or ())))
    rows.sort(key=_id_of)
    claims = read_claims(catalog, [row[:13] for row in rows])
    taken = [Taken(claim, row[13], ProcessId(id)) for claim, row in zip(claims, rows, strict=True)]
    if any(one.claim.cancel_requested for one in taken):
        session.do("has_cancels", tender)
    return taken


def _id_of(row: Row) -> str:
    return str(row[2])


def drop_if_empty(session: Session, process: int) -> None:
    """Forget a void lease that holds nothing any more; a worker goes with its last process."""
    session.do("drop_process", process)
    session.do("forget_workers")


def drain(session: Session, workers: Sequence[str]) -> list[str]:
    """Ask workers to finish and end; answers those that are alive."""
    known = {row[0] for row in session.rows("drain_workers", wire.texts(workers))}
    found = [id for id in workers if id in known]
    session.do("steer_workers", wire.texts(found))
    session.rows("ring", 4)
    return found


def evict(session: Session, workers: Sequence[str]) -> list[str]:
    """Void the leases of workers; answers those that had one. Their claims wait for a tender."""
    known: set[str] = set()
    for id, worker in session.rows("processes_of", wire.texts(workers)):
        session.rows("hold_process", id)
        row = session.row("void_process", id)
        if row is not None:  # else its death was reported meanwhile
            drop_if_empty(session, row[0])
            known.add(worker)
    session.rows("ring", 4)
    return [id for id in workers if id in known]
