"""Moving jobs from the hot tables to `ended`, and freeing what they held."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from penstock.engines.forms import details_in, history_out
from penstock.engines.sqlite.queries import SQL
from penstock.engines.sqlite.step import Step, texts
from penstock.model.job import UNREADABLE_DETAILS, ErrorInfo
from penstock.model.states import State


class Waiting(NamedTuple):
    """Where a job that waits stands: in `ready`, or scheduled with a due time."""

    id: str
    lane: int
    rank: int
    seq: int
    due_ms: int | None
    policy: int
    details: bytes | None
    history: bytes | None

    @property
    def state(self) -> State:
        return State.READY if self.due_ms is None else State.SCHEDULED

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        return cls(*row[:8])


def find_waiting(step: Step, id: str) -> Waiting | None:
    """Give an unfinished job that waits; None if it runs or is not among the unfinished."""
    row = step.db.execute(SQL["hot_row"], (id,)).fetchone()
    if row is None or (row[4] is None and not row[-1]):
        return None
    return Waiting.from_row(row)


def end_waiting(step: Step, jobs: Sequence[Waiting], state: State, error: ErrorInfo | None = None) -> None:
    """End jobs that wait, wherever they stand."""
    db = step.db
    db.executemany(SQL["drop_ready"], [(job.lane, job.rank, job.seq) for job in jobs if job.due_ms is None])
    db.executemany(SQL["end_waiting"], [_ended_row(step, job, state, error) for job in jobs])
    db.execute(SQL["drop_jobs"], (texts(job.id for job in jobs),))
    for job in jobs:
        free_unique(step, job.details, job.id)
        step.count(job.lane, job.state, -1)
        step.count(job.lane, state, 1)
    step.done = step.done or bool(jobs)


def _ended_row(step: Step, job: Waiting, state: State, error: ErrorInfo | None) -> tuple[object, ...]:
    forget_ms = forget_at(step, job.policy, state)
    history = history_out(job.history, error, step.now_ms)
    return step.draw_end(), state.value, step.now_ms, forget_ms, history, error is None, job.id


def forget_at(step: Step, policy: int, state: State) -> int | None:
    """Give when an ended job is forgotten; a buried one never is."""
    return None if state is State.BURIED else step.now_ms + step.policy_value(policy).keep_ms


def free_unique(step: Step, details: bytes | None, id: str) -> None:
    """Free the key of a job that has started or ended; a window runs on by itself."""
    known = details_in(details)
    if known is UNREADABLE_DETAILS:
        step.db.execute(SQL["free_unknown_unique"], (id,))
    elif known.unique is not None and known.unique.until != "window":
        step.db.execute(SQL["free_unique"], (known.unique.key, id))
