"""Leases: giving, renewing and voiding them, and taking over what a void one held."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from penstock.engine import Death, Renewed, Taken, WorkerInfo
from penstock.engines.sqlite.exchanging import draw_tokens, read_claims
from penstock.engines.sqlite.queries import SQL
from penstock.engines.sqlite.step import Step, texts
from penstock.model.errors import LeaseLost
from penstock.model.job import ProcessId

_EVERY_CLAIM = -1


def enrol(step: Step, worker: WorkerInfo, processes: Sequence[ProcessId], steady_ms: int, boot: str) -> str:
    """Give each process a lease or renew the one it has, and replace what is known of the worker; answers the epoch."""
    void = step.db.execute(SQL["void_among"], (texts(processes),)).fetchone()
    if void is not None:
        raise LeaseLost(void[0])
    step.db.execute(SQL["enrol_worker"], (worker.id, msgspec.json.encode(worker), step.now_ms))
    until = steady_ms + worker.lease_ms
    step.db.executemany(
        SQL["enrol_process"], [(process, worker.id, worker.lease_ms, until, boot) for process in processes]
    )
    return str(step.db.execute(SQL["describe"]).fetchone()[0])


def beat(
    step: Step, tender: ProcessId, leases: Sequence[ProcessId], deaths: Sequence[Death], steady_ms: int, boot: str
) -> Renewed:
    """Renew the tender's lease and those it vouches for, and let it take over what the dead held."""
    own = lease_row(step, tender)
    renew(step, (tender,), steady_ms, boot)
    taken = bury_the_dead(step, deaths, own)
    void, drain = renew(step, leases, steady_ms, boot)
    return Renewed(void, drain, tuple(taken))


def renew(
    step: Step, leases: Sequence[ProcessId], steady_ms: int, boot: str
) -> tuple[tuple[ProcessId, ...], tuple[ProcessId, ...]]:
    """Extend the leases that are known; answers those that are void and those that should drain."""
    wanted = texts(leases)
    step.db.execute(SQL["renew"], (steady_ms, boot, wanted))
    known = dict(step.db.execute(SQL["leases"], (wanted,)).fetchall())
    void = tuple(process for process in leases if process not in known)
    return void, tuple(process for process in leases if known.get(process))


def lease_row(step: Step, process: ProcessId) -> int:
    """Give the row of a process that is enrolled.

    Raises:
        LeaseLost: its lease is void or unknown.
    """
    row = step.db.execute(SQL["lease_row"], (process,)).fetchone()
    if row is None:
        raise LeaseLost(process)
    return int(row[0])


def bury_the_dead(step: Step, deaths: Sequence[Death], tender: int) -> list[Taken]:
    """Void the leases of processes that were seen to die, and take their claims over with what is known of each."""
    taken: list[Taken] = []
    for death in deaths:
        row = step.db.execute(SQL["process_row"], (death.process,)).fetchone()
        if row is not None:
            taken += take_over(step, row[0], death.process, tender, _EVERY_CLAIM, death.started)
            drop_if_empty(step, row[0])
    return taken


def take_over(
    step: Step, process: int, id: str, tender: int, limit: int, started: frozenset[int] | None = None
) -> list[Taken]:
    """Move claims of a void lease to the tender under new fences.

    Args:
        started: tokens whose code had begun; None if nobody saw, so that each is lost unless its fate is on record.
    """
    rows = step.db.execute(SQL["held_by_process"], (process, limit)).fetchall()
    tokens = draw_tokens(len(rows))
    fates = [row[16] or _fate(row[15], started) for row in rows]
    moves = [(token, row[4] + 1, tender, fate, row[15]) for token, row, fate in zip(tokens, rows, fates, strict=True)]
    step.db.executemany(SQL["take_over"], moves)
    claims = read_claims(step.read_keys(rows), rows, tokens)
    taken = [Taken(claim, fate, ProcessId(id)) for claim, fate in zip(claims, fates, strict=True)]
    if any(one.claim.cancel_requested for one in taken):
        step.db.execute(SQL["has_cancels"], (tender,))
    return taken


def _fate(token: int, started: frozenset[int] | None) -> Literal["crashed", "released", "lost"]:
    if started is None:
        return "lost"
    return "crashed" if token in started else "released"


def drop_if_empty(step: Step, process: int) -> None:
    """Forget a void lease that holds nothing any more; a worker goes with its last process."""
    if step.db.execute(SQL["holds_claims"], (process,)).fetchone() is None:
        step.db.execute(SQL["drop_process"], (process,))
        step.db.execute(SQL["forget_workers"])


def drain(step: Step, workers: Sequence[str]) -> list[str]:
    """Ask workers to finish and end; answers those that are alive."""
    known = [id for id in workers if step.db.execute(SQL["drain_worker"], {"worker": id}).rowcount]
    step.db.executemany(SQL["steer_worker"], [(id,) for id in known])
    step.steer = True
    return known


def evict(step: Step, workers: Sequence[str]) -> list[str]:
    """Void the leases of workers; answers those that had one. Their claims wait for a tender."""
    wanted = texts(workers)
    present = step.db.execute(SQL["void_workers"], (wanted,)).fetchall()
    for process, _ in present:
        drop_if_empty(step, process)
    step.steer = True
    known = {worker for _, worker in present}
    return [id for id in workers if id in known]
