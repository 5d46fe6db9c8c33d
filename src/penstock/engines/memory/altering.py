"""What a person does to jobs by hand, as the transition table allows."""

from typing import assert_never

from msgspec.structs import replace

from penstock.engine import Alteration, Altered, Bury, Cancel, Delete, Edit, Kick, Reschedule
from penstock.engines.checks import refusal
from penstock.engines.memory.store import Store, with_error
from penstock.model.job import ErrorInfo, Job, JobId
from penstock.model.states import TRANSITIONS, Cause, State

EDITS_KEPT = 5

_CAUSES: dict[type, Cause] = {
    Cancel: Cause.CANCEL,
    Kick: Cause.KICK,
    Edit: Cause.EDIT,
    Reschedule: Cause.RESCHEDULE,
    Bury: Cause.BURY,
    Delete: Cause.DELETE,
}


def alter(store: Store, id: JobId, alteration: Alteration) -> Altered:
    """Change one job, or say why it was left alone."""
    job = store.jobs.get(id)
    if job is None:
        return Altered(id, None, None, refusal(None))
    if job.state is State.RUNNING and isinstance(alteration, Cancel):
        _ask_to_stop(store, job)
        return Altered(id, job.state, job.state)
    if job.state is State.RUNNING or (job.state, _CAUSES[type(alteration)]) not in TRANSITIONS:
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
    """Refuse to bring a job back while another holds the key that it held until it ended."""
    unique = job.details.unique
    returns = job.state.is_final and isinstance(alteration, Kick | Edit)
    if not returns or unique is None or unique.until != "ended":
        return None
    holder = store.key_holder(unique.key, store.clock.wall_ms())
    return None if holder in (None, job.id) else f"unique key {unique.key!r} is held by {holder}"


def _change(store: Store, job: Job, alteration: Alteration, now: int) -> None:
    match alteration:
        case Cancel():
            store.end(job, State.CANCELLED)
        case Kick():
            _bring_back(store, job, job, now)
        case Edit() if job.state.is_final:
            _bring_back(store, job, _edited(job, alteration), now)
        case Edit():
            store.put(_edited(job, alteration))
        case Reschedule():
            due_ms = now + alteration.delay_ms if alteration.run_at_ms is None else alteration.run_at_ms
            store.put(replace(job, state=State.SCHEDULED, due_ms=due_ms))
        case Bury():
            error = ErrorInfo(kind="buried", message=alteration.reason)
            store.end(with_error(job, error, now), State.BURIED)
        case Delete():
            store.forget(job)
        case _ as unknown:
            assert_never(unknown)


def _bring_back(store: Store, before: Job, job: Job, now: int) -> None:
    """Make a job ready with new chances; a deadline that has passed would end it again, so it is lifted."""
    counters = replace(job.counters, attempts=0, failures=0, crashes=0, suspect=False)
    passed = job.expires_ms is not None and job.expires_ms <= now
    store.put(
        replace(
            job,
            state=State.READY,
            counters=counters,
            cancel_requested=False,
            error=None,
            due_ms=None,
            ended_ms=None,
            expires_ms=None if passed else job.expires_ms,
        )
    )
    unique = job.details.unique
    if before.state.is_final and unique is not None and unique.until == "ended":
        store.hold_key(job, now)


def _edited(job: Job, edit: Edit) -> Job:
    details = job.details
    if edit.tags is not None:
        details = replace(details, tags=edit.tags)
    if edit.envelope is not None:
        old = job.envelope.decode("utf-8", "replace")
        details = replace(details, edited_from=(*details.edited_from, old)[-EDITS_KEPT:])
        job = replace(job, envelope=edit.envelope, crc=edit.crc)
    return replace(
        job,
        details=details,
        queue=job.queue if edit.queue is None else edit.queue,
        priority=job.priority if edit.priority is None else edit.priority,
    )
