"""Altering by hand: what a person asks is decided on a job as it is read, and applied if it still is so."""

import hashlib
from collections.abc import Callable, Sequence
from typing import assert_never

from msgspec.structs import replace

from penstock.engine import Alteration, Altered, Bury, Cancel, Delete, Edit, Kick, Reschedule, Upgrade
from penstock.engines.checks import refusal
from penstock.engines.redis.packing import (
    NUMBERS,
    Argument,
    Seen,
    attempt,
    error_out,
    has_attempt,
    history_out,
    rewritten,
)
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

See = Callable[[Sequence[JobId]], tuple[int, list[Seen | None]]]
#: So many jobs are altered in one script, during which the server does nothing else.
_AT_ONCE = 200

Apply = Callable[[Sequence[Argument]], list[bytes]]


def alter(ids: Sequence[JobId], alteration: Alteration, see: See, apply: Apply) -> list[Altered]:
    """Alter jobs; an id that is named again is looked at again, and so is a job that has changed meanwhile."""
    answers: dict[int, Altered] = {}
    left = list(range(len(ids)))
    while left:
        first = {ids[at]: at for at in reversed(left)}
        turn = sorted(first.values())[:_AT_ONCE]
        answers |= _in_turn({at: ids[at] for at in turn}, alteration, see, apply)
        left = [at for at in left if at not in answers]
    return [answers[at] for at in range(len(ids))]


def _in_turn(ids: dict[int, JobId], alteration: Alteration, see: See, apply: Apply) -> dict[int, Altered]:
    now_ms, seen = see(list(ids.values()))
    answers: dict[int, Altered] = {}
    asked: dict[int, Altered] = {}
    arguments: list[Argument] = []
    for (at, id), one in zip(ids.items(), seen, strict=True):
        decided = _decide(one, alteration, now_ms)
        if one is None or decided is None:
            state = None if one is None else one.job.state
            answers[at] = Altered(id, state, state, _refusal(one, alteration))
            continue
        after, words = decided
        arguments += (id, digest(one), *words)
        asked[at] = Altered(id, one.job.state, after)
    told = apply(arguments) if asked else []
    for (at, altered), answer in zip(asked.items(), told, strict=True):
        if answer != b"stale":
            answers[at] = altered if answer == b"ok" else _held(altered, seen[list(ids).index(at)], answer)
    return answers


def _held(altered: Altered, seen: Seen | None, holder: bytes) -> Altered:
    unique = None if seen is None else seen.job.details.unique
    key = "" if unique is None else unique.key
    return replace(altered, after=altered.before, refused=f"unique key {key!r} is held by {holder.decode()}")


def digest(seen: Seen) -> str:
    """Give the digest of what is stored of a job, as the script makes it."""
    parts = [
        b"" if piece is None else str(piece).encode() if isinstance(piece, int) else piece for piece in seen.pieces[1:]
    ]
    return hashlib.sha1(b"\0".join(parts), usedforsecurity=False).hexdigest()


def _decide(seen: Seen | None, alteration: Alteration, now_ms: int) -> tuple[State | None, tuple[Argument, ...]] | None:
    """Give the state after it and what the script is to do; None if the job is to be left alone."""
    if seen is None:
        return None
    job = seen.job
    if job.state is State.RUNNING:
        return (State.RUNNING, ("stop",)) if isinstance(alteration, Cancel) else None
    if not may_alter(job.state, alteration):
        return None
    match alteration:
        case Cancel():
            return State.CANCELLED, ("end", NUMBERS[State.CANCELLED], b"")
        case Kick() | Upgrade():
            if refused_upgrade(alteration, job.details) is not None:
                return None
            return _back(seen, returning_job(alteration, job), alteration, now_ms)
        case Edit() if job.state.is_final:
            return _back(seen, edited_job(job, alteration, now_ms), alteration, now_ms)
        case Edit():
            changed = edited_job(job, alteration, now_ms)
            return job.state, ("stay", rewritten(seen.body, changed), changed.queue, changed.task)
        case Reschedule():
            return State.SCHEDULED, ("wait", rescheduled_ms(alteration, now_ms))
        case Bury():
            error = error_out(error_of_burial(alteration, job.queue, job.task))
            return State.BURIED, ("end", NUMBERS[State.BURIED], error)
        case Delete():
            return None, ("delete",)
        case _ as unknown:
            assert_never(unknown)


def _refusal(seen: Seen | None, alteration: Alteration) -> str:
    if seen is None or not may_alter(seen.job.state, alteration):
        return refusal(None if seen is None else seen.job.state)
    return refused_upgrade(alteration, seen.job.details) or refusal(seen.job.state)


def _back(seen: Seen, job: Job, alteration: Alteration, now_ms: int) -> tuple[State, tuple[Argument, ...]]:
    counters = renewed(alteration, job.counters, job.terms)
    job = replace(job, counters=counters, expires_ms=lifted_ms(job.expires_ms, now_ms))
    due_ms = kicked_ms(alteration, now_ms)
    more = attempt(job) if has_attempt(job) else b""
    history = history_out(job.history, forgiven=True)
    words = ("back", rewritten(seen.body, job), job.queue, job.task, more, history)
    return (State.READY, (*words, "")) if due_ms is None else (State.SCHEDULED, (*words, due_ms))
