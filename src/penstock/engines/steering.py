"""What a person's alteration means for the values of a job, whatever store holds them."""

from typing import NamedTuple

from msgspec.structs import replace

from penstock.engine import Alteration, Bury, Cancel, Delete, Edit, Kick, Reschedule, Upgrade
from penstock.model.groups import grouped
from penstock.model.job import Counters, Details, ErrorInfo, Former, Job
from penstock.model.retry import Policy
from penstock.model.states import TRANSITIONS, Cause, State

#: Of how many edits of a job it is kept what it was before, and how many bytes of its former envelopes.
EDITS_KEPT = 20
EDIT_BYTES_KEPT = 64 * 1024

_CAUSES: dict[type, Cause] = {
    Cancel: Cause.CANCEL,
    Kick: Cause.KICK,
    Upgrade: Cause.UPGRADE,
    Edit: Cause.EDIT,
    Reschedule: Cause.RESCHEDULE,
    Bury: Cause.BURY,
    Delete: Cause.DELETE,
}


def may_alter(state: State, alteration: Alteration) -> bool:
    """Say whether the transition table lets a job in this state be altered so."""
    return (state, _CAUSES[type(alteration)]) in TRANSITIONS


class Place(NamedTuple):
    """Where a job that is brought back goes on: under which task, in which queue, at which stage."""

    task: str
    queue: str
    stage: int


def refused_upgrade(alteration: Alteration, details: Details) -> str | None:
    """Say why a job cannot be upgraded, None if it can, or if that is not what is asked."""
    return "no fallback took it over" if isinstance(alteration, Upgrade) and details.home is None else None


def returning(alteration: Alteration, now: Place, details: Details) -> tuple[Place, Details]:
    """Give where a job goes on that is brought back, and its details then."""
    home = details.home if isinstance(alteration, Upgrade) else None
    return (now, details) if home is None else (Place(home.task, home.queue, 0), replace(details, home=None))


def returning_job(alteration: Alteration, job: Job) -> Job:
    """Do the same with a whole job, which is without a result then."""
    place, details = returning(alteration, Place(job.task, job.queue, job.stage), job.details)
    return replace(
        job, task=place.task, queue=place.queue, stage=place.stage, details=details, result=None, degraded=None
    )


class Standing(NamedTuple):
    """Where a job stands that is edited, and when."""

    queue: str
    priority: int
    now_ms: int


def edited(
    details: Details, envelope: bytes, crc: int | None, edit: Edit, was: Standing
) -> tuple[Details, bytes, int | None]:
    """Give details and envelope after an edit; what a person has replaced is kept in the details."""
    if edit.by and (former := _former(details, envelope, edit, was)) is not None:
        details = replace(details, edits=_bounded((*details.edits, former)))
    if edit.tags is not None:
        details = replace(details, tags=edit.tags)
    return (details, envelope, crc) if edit.envelope is None else (details, edit.envelope, edit.crc)


def _former(details: Details, envelope: bytes, edit: Edit, was: Standing) -> Former | None:
    """Give what an edit replaces, None if it is nothing."""
    rewrites = edit.envelope not in (None, envelope)
    former = Former(
        was.now_ms,
        edit.by,
        envelope=envelope.decode("utf-8", "replace") if rewrites else "",
        size=len(envelope) if rewrites else 0,
        queue=was.queue if edit.queue not in (None, was.queue) else None,
        priority=was.priority if edit.priority not in (None, was.priority) else None,
        tags=details.tags if edit.tags not in (None, details.tags) else None,
    )
    return None if former == Former(was.now_ms, edit.by) else former


def _bounded(edits: tuple[Former, ...]) -> tuple[Former, ...]:
    """Keep the last edits, and of their envelopes the last ones that are not too long together."""
    kept: list[Former] = []
    left = EDIT_BYTES_KEPT
    for former in reversed(edits[-EDITS_KEPT:]):
        left -= len(former.envelope.encode())
        kept.append(former if left >= 0 else replace(former, envelope=""))
    return tuple(reversed(kept))


def edited_job(job: Job, edit: Edit, now_ms: int) -> Job:
    """Give a job after an edit, where it stands."""
    was = Standing(job.queue, job.priority, now_ms)
    details, envelope, crc = edited(job.details, job.envelope, job.crc, edit, was)
    return replace(
        job,
        details=details,
        envelope=envelope,
        crc=crc,
        queue=job.queue if edit.queue is None else edit.queue,
        priority=job.priority if edit.priority is None else edit.priority,
    )


def error_of_burial(bury: Bury, queue: str, task: str) -> ErrorInfo:
    """Give the error of a job that a person buries."""
    return grouped(queue, task, ErrorInfo("buried", message=bury.reason))


def kicked_ms(alteration: Alteration, now_ms: int) -> int | None:
    """Give when a job that is brought back is due; None if it is ready at once."""
    return now_ms + alteration.delay_ms if isinstance(alteration, Kick) and alteration.delay_ms else None


def renewed(alteration: Alteration, counters: Counters, terms: Policy) -> Counters:
    """Give the counters of a job that is brought back: with new chances, or for a trial with one."""
    fresh = counters.forgiven()
    if isinstance(alteration, Kick) and alteration.trial:
        return replace(fresh, failures=max(terms.max_attempts - 1, 0))
    return fresh


def rescheduled_ms(alteration: Reschedule, now_ms: int) -> int:
    """Give the time at which a rescheduled job is due."""
    return now_ms + alteration.delay_ms if alteration.run_at_ms is None else alteration.run_at_ms


def lifted_ms(expires_ms: int | None, now_ms: int) -> int | None:
    """Give the deadline of a job that is brought back: one that has passed would end it again, so it is lifted."""
    return None if expires_ms is not None and expires_ms <= now_ms else expires_ms
