"""Deliberate bugs for real processes: an engine, whichever it is, that lies about what it did.

They try the whole way from what a process asks to the verdict; those of `bugs` try what the checker knows.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from penstock.engine import Added, AddRequest, Altered, Answer, Begun, Cancel, Want
from penstock.model import settle as settling
from penstock.model.job import Change, JobId, ProcessId
from penstock.model.states import State
from tests.histories.bugs import charge_no_crash, retry_once_more

#: Names the lie that a process shall tell.
LIE = "HISTORY_LIE"


class Lie(Struct, frozen=True):
    """What finds it, what it is told in place of, and how; the place is the engine's class where none is named."""

    invariant: str
    function: str
    make: Callable[[Callable[..., Any]], Callable[..., Any]]
    place: Any = None


def tell_it(engine: type[Any]) -> None:
    """Let this process tell the lie that its environment names, if it names one."""
    if name := os.environ.get(LIE):
        lie = LIES[name]
        place = lie.place or engine
        setattr(place, lie.function, lie.make(getattr(place, lie.function)))


def _leave_out_the_last(add: Callable[..., Any]) -> Callable[..., Any]:
    def lying(engine: Any, requests: Sequence[AddRequest]) -> Any:
        answers = add(engine, [replace(one, jobs=one.jobs[:-1]) if len(one.jobs) > 1 else one for one in requests])
        return [
            [*answer, Added(one.jobs[-1].id)] if isinstance(answer, list) and len(one.jobs) > 1 else answer
            for one, answer in zip(requests, answers, strict=True)
        ]

    return lying


def _forget_keys(add: Callable[..., Any]) -> Callable[..., Any]:
    def lying(engine: Any, requests: Sequence[AddRequest]) -> Any:
        return add(engine, [replace(one, jobs=tuple(_without_key(job) for job in one.jobs)) for one in requests])

    return lying


def _without_key(job: Any) -> Any:
    return replace(job, details=replace(job.details, unique=None))


def _drop_some_ends(exchange: Callable[..., Any]) -> Callable[..., Any]:
    numbers = itertools.count(1)

    def lying(engine: Any, process: ProcessId, beat: int, changes: Sequence[Change], want: Want | None) -> Answer:
        kept = [change for change in changes if next(numbers) % 10]
        answer: Answer = exchange(engine, process, beat, kept, want)
        return answer

    return lying


def _only_say_cancelled(alter: Callable[..., Any]) -> Callable[..., Any]:
    def lying(engine: Any, ids: Sequence[JobId], alteration: Any) -> Any:
        if not isinstance(alteration, Cancel):
            return alter(engine, ids, alteration)
        states = [None if job is None else job.state for job in engine.get(ids)]
        waiting = {State.READY, State.SCHEDULED}
        return [
            Altered(id, state, State.CANCELLED) if state in waiting else alter(engine, [id], alteration)[0]
            for id, state in zip(ids, states, strict=True)
        ]

    return lying


def _renew_the_tender_alone(renew: Callable[..., Any]) -> Callable[..., Any]:
    return lambda engine, tender, _, deaths=(): renew(engine, tender, [], deaths)


LIES = {
    "a batch is half stored": Lie("I1", "add", _leave_out_the_last),
    "an end is told and not written": Lie("I3", "exchange", _drop_some_ends),
    "to cancel what waits is only said": Lie("I3", "alter", _only_say_cancelled),
    "renewals are not written": Lie("I6", "renew", _renew_the_tender_alone),
    "a key is held by two": Lie("I8", "add", _forget_keys),
    "a crash is not charged": Lie("I10", "_crashed", charge_no_crash, settling),
    "one more attempt than allowed": Lie("I10", "_failed", retry_once_more, settling),
    "everyone is the first to begin": Lie("I12", "begin", lambda _: lambda *_, **__: Begun(first=True)),
}
