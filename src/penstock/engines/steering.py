"""What a person's alteration means for the values of a job, whatever store holds them."""

from typing import NamedTuple

from msgspec.structs import replace

from penstock.engine import Alteration, Bury, Cancel, Delete, Edit, Kick, Reschedule, Upgrade
from penstock.model.job import Details, Job
from penstock.model.states import TRANSITIONS, Cause, State

#: How many former envelopes of an edited job are kept.
EDITS_KEPT = 5

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


def edited(details: Details, envelope: bytes, crc: int | None, edit: Edit) -> tuple[Details, bytes, int | None]:
    """Give details and envelope after an edit; the old envelope is kept in the details."""
    if edit.tags is not None:
        details = replace(details, tags=edit.tags)
    if edit.envelope is None:
        return details, envelope, crc
    old = envelope.decode("utf-8", "replace")
    details = replace(details, edited_from=(*details.edited_from, old)[-EDITS_KEPT:])
    return details, edit.envelope, edit.crc


def edited_job(job: Job, edit: Edit) -> Job:
    """Give a job after an edit, where it stands."""
    details, envelope, crc = edited(job.details, job.envelope, job.crc, edit)
    return replace(
        job,
        details=details,
        envelope=envelope,
        crc=crc,
        queue=job.queue if edit.queue is None else edit.queue,
        priority=job.priority if edit.priority is None else edit.priority,
    )


def rescheduled_ms(alteration: Reschedule, now_ms: int) -> int:
    """Give the time at which a rescheduled job is due."""
    return now_ms + alteration.delay_ms if alteration.run_at_ms is None else alteration.run_at_ms


def lifted_ms(expires_ms: int | None, now_ms: int) -> int | None:
    """Give the deadline of a job that is brought back: one that has passed would end it again, so it is lifted."""
    return None if expires_ms is not None and expires_ms <= now_ms else expires_ms
