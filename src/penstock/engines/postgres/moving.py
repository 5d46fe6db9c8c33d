"""Letting running jobs go on elsewhere: before their change is applied they are put where they will wait."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from penstock.engines.forms import details_out
from penstock.engines.postgres.altering import count
from penstock.engines.postgres.catalog import Catalog
from penstock.engines.postgres.store import Session
from penstock.model.job import Change, ProcessId
from penstock.model.states import State

__all__ = ["move"]


def move(session: Session, catalog: Catalog, process: ProcessId, changes: Sequence[Change]) -> None:
    """Move the jobs whose change asks for it and whose fence is valid."""
    gained: defaultdict[int, Counter[State]] = defaultdict(Counter)
    moving = [(change, change.move) for change in changes if change.move is not None]
    if moving:
        session.rows("hold_process", process)  # as an exchange does first
    for change, to in moving:
        held = session.rows("hold_claim", change.id, change.fence.number, change.fence.token)
        if not held:
            continue
        line = held[0][0]
        key = catalog.line_keys({line})[line]
        new = catalog.line(key._replace(queue=to.queue, task=to.task))
        session.do("move_job", new, to.stage, to.stage, details_out(to.details), change.id)
        session.do("move_claim", new, change.id)
        gained[line][State.RUNNING] -= 1
        gained[new][State.RUNNING] += 1
    count(session, gained)
