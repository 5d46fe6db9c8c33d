"""Adding jobs: plain ones are stored by one statement over all of them, others are decided one by one in the server."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from penstock.engine import Added, AddRequest
from penstock.engines.arriving import retry_after_s
from penstock.engines.forms import details_out
from penstock.engines.postgres import wire
from penstock.engines.postgres.catalog import Catalog
from penstock.model.errors import IdempotencyConflict, LeaseLost, PenstockError, QueueFull, UniqueConflict
from penstock.model.job import NO_DETAILS, Fence, JobId, NewJob

_STORED, _EXISTS, _ID_CONFLICT, _KEY_CONFLICT, _UNIQUE_CONFLICT, _FULL, _STALE = range(7)

Answers = list[list[Added] | PenstockError]


def is_plain(requests: Sequence[AddRequest]) -> bool:
    """Whether no job can clash with another of the call: no keys, no parent, no id twice."""
    ids = set()
    for request in requests:
        if request.parent is not None:
            return False
        for job in request.jobs:
            details = job.details
            if details is not NO_DETAILS and (details.unique is not None or details.idempotency_key is not None):
                return False
            ids.add(job.id)
    return len(ids) == sum(len(request.jobs) for request in requests)


def plain_columns(catalog: Catalog, jobs: Sequence[NewJob]) -> tuple[Any, ...]:
    """Give jobs as the arrays that the function `add` takes, which may hold once what all share."""
    return _columns(catalog, jobs, share=True)


def plain_values(catalog: Catalog, job: NewJob) -> tuple[Any, ...]:
    """Give one job as the values that the function `add_one` takes."""
    return (
        job.id,
        catalog.lines_of([job])[0],
        catalog.policies_of([job])[0],
        job.crc,
        job.delay_ms,
        job.run_at_ms,
        job.expires_ms,
        job.expires_in_ms,
        None if job.details is NO_DETAILS else details_out(job.details),
        job.envelope,
    )


def columns(catalog: Catalog, requests: Sequence[AddRequest]) -> tuple[Any, ...]:
    """Give requests as the arrays that `add_each` and `add_within` take."""
    parents: list[tuple[JobId, Fence] | None] = [request.parent for request in requests for _ in request.jobs]
    jobs = [job for request in requests for job in request.jobs]
    uniques = [job.details.unique for job in jobs]
    ids, lines, policies, crcs, delays, run_ats, expires, expires_in, details, envelopes = _columns(
        catalog, jobs, share=False
    )
    return (
        wire.ints([number for number, request in enumerate(requests, 1) for _ in request.jobs]),
        wire.texts([None if parent is None else parent[0] for parent in parents]),
        wire.ints([None if parent is None else parent[1].number for parent in parents]),
        wire.longs([None if parent is None else parent[1].token for parent in parents]),
        ids,
        lines,
        policies,
        crcs,
        delays,
        run_ats,
        expires,
        expires_in,
        wire.byteas([digest(job.details.idempotency_key) for job in jobs]),
        wire.byteas([None if unique is None else digest(unique.key) for unique in uniques]),
        wire.texts([None if unique is None else unique.until for unique in uniques]),
        wire.longs([None if unique is None else unique.window_ms for unique in uniques]),
        wire.texts([None if unique is None else unique.clash for unique in uniques]),
        details,
        envelopes,
    )


def _columns(catalog: Catalog, jobs: Sequence[NewJob], *, share: bool) -> tuple[Any, ...]:
    return (
        wire.texts([job.id for job in jobs]),
        wire.ints(wire.shared(catalog.lines_of(jobs), share)),
        wire.ints(wire.shared(catalog.policies_of(jobs), share)),
        wire.longs([job.crc for job in jobs]),
        wire.longs(wire.shared([job.delay_ms for job in jobs], share)),
        wire.longs([job.run_at_ms for job in jobs]),
        wire.longs([job.expires_ms for job in jobs]),
        wire.longs([job.expires_in_ms for job in jobs]),
        wire.byteas([None if job.details is NO_DETAILS else details_out(job.details) for job in jobs]),
        wire.byteas([job.envelope for job in jobs]),
    )


def digest(*parts: str | None) -> bytes | None:
    """Give what a key is found by, as an index takes no long text."""
    if parts[0] is None:
        return None
    return sha256(b"\0".join(str(part).encode("utf-8", "surrogatepass") for part in parts)).digest()


def answers(requests: Sequence[AddRequest], rows: Sequence[tuple[Any, ...]]) -> Answers:
    """Read what `add_each` and `add_within` answer; a request without jobs has no row."""
    jobs = [job for request in requests for job in request.jobs]
    found: Answers = [[] for _ in requests]
    for number, place, code, holder, over, bound, rate in rows:
        given = found[number - 1]
        if code <= _EXISTS and isinstance(given, list):
            given.append(Added(JobId(holder), existing=code == _EXISTS))
        else:
            found[number - 1] = _refusal(code, holder, None if place is None else jobs[place - 1], over, bound, rate)
    return found


def stored(requests: Sequence[AddRequest]) -> Answers:
    """Give the answer to requests of which every job was stored."""
    return [[Added(job.id) for job in request.jobs] for request in requests]


def _refusal(code: int, holder: str, job: NewJob | None, over: int, bound: int, rate: float) -> PenstockError:
    if code == _STALE:
        return LeaseLost(f"of job {holder}")
    if code == _FULL:
        return QueueFull(holder, bound, retry_after_s(over, rate))
    details = NO_DETAILS if job is None else job.details
    if code == _UNIQUE_CONFLICT and details.unique is not None:
        return UniqueConflict(details.unique.key, holder)
    return IdempotencyConflict(holder if code == _ID_CONFLICT else str(details.idempotency_key), holder)
