"""What a person does to jobs by hand, as the transition table allows."""

from typing import assert_never

from msgspec.structs import replace

from penstock.engine import Alteration, Altered, Bury, Cancel, Delete, Edit, Kick, Reschedule, Upgrade
from penstock.engines.checks import refusal
from penstock.engines.memory.store import Store, with_error
from penstock.engines.steering import (
    edited_job,
    error_of_burial,
    kicked_ms,
    lifted_ms,
    may_alter,
    refused_upgrade,
    renewed,
    rescheduled_ms,
    returning_job,
)
from penstock.model.job import Job, JobId
from penstock.model.states import State


def alter(store: Store, id: JobId, alteration: Alteration) -> Altered:
    """Change one job, or say why it was left alone."""
    job = store.jobs.get(id)
    if job is None:
        return Altered(id, None, None, refusal(None))
    if job.state is State.RUNNING and isinstance(alteration, Cancel):
        _ask_to_stop(store, job)
        return Altered(id, job.state, job.state)
    if job.state is State.RUNNING or not may_alter(job.state, alteration):
        return Altered(id, job.state, job.state, refusal(job.state))
    refused = _refused_return(store, job, alteration)
    if refused is None:
        _change(store, job, alteration, store.clock.wall_ms())
    after = store.jobs.get(id)
    return Altered(id, job.state, after.state if after is not None else None, refused)


def _ask_to_stop(store: Store, job: Job) -> None:
    store.put(replace(job, cancel_requested=True))
    lease = store.leases.get(store.claims[job.id].process)
    if lease is not None:
        lease.news = True


def _refused_return(store: Store, job: Job, alteration: Alteration) -> str | None:
    """Refuse to upgrade what no fallback had, and to bring a job back while another holds the key that it held."""
    if (refused := refused_upgrade(alteration, job.details)) is not None:
        return refused
    unique = job.details.unique
    returns = job.state.is_final and isinstance(alteration, Kick | Edit | Upgrade)
    if not returns or unique is None or unique.until != "ended":
        return None
    holder = store.key_holder(unique.key, store.clock.wall_ms())
    return None if holder in (None, job.id) else f"unique key {unique.key!r} is held by {holder}"


def _change(store: Store, job: Job, alteration: Alteration, now: int) -> None:
    match alteration:
        case Cancel():
            store.end(job, State.CANCELLED)
        case Kick() | Upgrade():
            _bring_back(store, job, returning_job(alteration, job), alteration, now)
        case Edit() if job.state.is_final:
            _bring_back(store, job, edited_job(job, alteration, now), alteration, now)
        case Edit():
            store.put(edited_job(job, alteration, now))
        case Reschedule():
            store.put(replace(job, state=State.SCHEDULED, due_ms=rescheduled_ms(alteration, now)))
        case Bury():
            error = error_of_burial(alteration, job.queue, job.task)
            store.end(with_error(job, error, now), State.BURIED)
        case Delete():
            store.forget(job)
        case _ as unknown:
            assert_never(unknown)


def _bring_back(store: Store, before: Job, job: Job, alteration: Alteration, now: int) -> None:
    """Let a job begin anew, now or later; a deadline that has passed would end it again, so it is lifted."""
    due_ms = kicked_ms(alteration, now)
    store.put(
        replace(
            job,
            state=State.READY if due_ms is None else State.SCHEDULED,
            counters=renewed(alteration, job.counters, job.terms),
            cancel_requested=False,
            error=None,
            due_ms=due_ms,
            ended_ms=None,
            expires_ms=lifted_ms(job.expires_ms, now),
        )
    )
    unique = job.details.unique
    if before.state.is_final and unique is not None and unique.until == "ended":
        store.hold_key(job, now)
