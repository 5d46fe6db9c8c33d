"""What it takes to store a job as another store had it: what no engine takes in, and the keys that it holds again."""

from collections.abc import Sequence

from penstock.engine import MOST_AT_ONCE
from penstock.engines.checks import check_new_job
from penstock.model.job import Job, NewJob, Unique
from penstock.model.states import State


def check_load(jobs: Sequence[Job], engine: str, capabilities: frozenset[str]) -> None:
    """Refuse jobs that no engine may load, and those beyond what this one can do.

    Raises:
        ValueError: over 1,000 jobs, or one that is running, blocked, out of bounds or at odds with itself.
        Unsupported: a job asks for a capability that `engine` does not declare.
    """
    if len(jobs) > MOST_AT_ONCE:
        raise ValueError(f"{len(jobs):,} jobs in one load are over the limit of {MOST_AT_ONCE:,}.")
    for job in jobs:
        check_new_job(_as_new(job), engine, capabilities)
        oddity = _oddity(job)
        if oddity is not None:
            raise ValueError(f"Job {job.id} is {job.state} {oddity}; it cannot be loaded.")


def held_key(job: Job, now_ms: int) -> Unique | None:
    """Give the unique key that a job holds from now on when it is loaded, None if it holds none.

    One that is held until its job has started is over with the first claim, one until its job has ended with the end.
    Of a window there is what its length leaves, counted from when the job was added, however it fared.
    """
    unique = job.details.unique
    if unique is None:
        return None
    holds = {
        "started": not job.state.is_final and job.claim_number == 0,
        "ended": not job.state.is_final,
        "window": window_ends_ms(job, unique) > now_ms,
    }
    return unique if holds[unique.until] else None


def window_ends_ms(job: Job, unique: Unique) -> int:
    """Give when the window of a unique key is over."""
    return job.created_ms + unique.window_ms


def _as_new(job: Job) -> NewJob:
    return NewJob(
        id=job.id,
        task=job.task,
        envelope=job.envelope,
        crc=job.crc,
        queue=job.queue,
        priority=job.priority,
        fair_key=job.fair_key,
        policy=job.policy,
        details=job.details,
    )


def _oddity(job: Job) -> str | None:
    """Say what a store cannot keep of this job, in words that go on from its state."""
    if job.state in (State.RUNNING, State.BLOCKED):
        return "and would be without what it is bound to"
    if (job.due_ms is not None) != (job.state is State.SCHEDULED):
        return f"with the due time {job.due_ms}"
    if (job.ended_ms is not None) != job.state.is_final:
        return f"and has ended at {job.ended_ms}"
    if job.cancel_requested and job.state.is_final:
        return "and yet asked to stop"
    if job.state is not State.SUCCEEDED and (job.result, job.degraded) != (None, None):
        return "with a result"
    if job.error is not None and job.history[-1:] != (job.error,):
        return "with an error that its history does not end with"
    return None
