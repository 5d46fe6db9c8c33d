"""What is counted is right: what each job has been through, and how many jobs there are."""

from collections.abc import Iterator
from itertools import pairwise

from penstock.model.job import Counters
from penstock.model.states import Cause
from tests.histories.claims import by_number
from tests.histories.history import Claimed, Grant, History, Life, Op
from tests.histories.violation import Violation

_FREE, _STARTED, _FAILED, _CRASHED = (0, 0, 0, 0, 0, 0), (1, 0, 0, 0, 0, 0), (1, 1, 0, 0, 0, 0), (1, 0, 1, 0, 0, 0)

#: By how much an end may raise attempts, failures, crashes, interruptions, losses and snoozes.
RISES = {
    Cause.SUCCEED: {_STARTED},
    Cause.RETRY: {_FAILED},
    Cause.CRASH: {_CRASHED},
    Cause.LOSE: {(0, 0, 0, 0, 1, 0)},
    Cause.SNOOZE: {(0, 0, 0, 0, 0, 1), (1, 0, 0, 0, 0, 1)},
    Cause.RELEASE: {_FREE, (1, 0, 0, 1, 0, 0)},
    Cause.CANCEL: {_FREE, _STARTED, _FAILED, _CRASHED},
    Cause.BURY: {_STARTED, _FAILED, _CRASHED},
}


# -- I10 --------------------------------------------------------------------------------------------------------------


def counters_are_exact(history: History) -> Iterator[Violation]:
    """I10: each end raises the counters as its kind says, none is lost, and the limits hold."""
    for life in history.lives.values():
        grants = {op.fence: op for op in life.grants if op.accepted}
        for change in life.changes:
            if change.accepted and (grant := grants.get(change.fence)) is not None:
                yield from _risen(life, grant, change)
        yield from _carried_on(life)
        yield from _kept(history, life)


def _risen(life: Life, grant: Op, change: Op) -> Iterator[Violation]:
    before, after, act = grant.act.counters, change.act.counters, change.act
    if act.cause is Cause.FALL_BACK:
        if (after.attempts, after.failures, after.crashes) != (0, 0, 0):
            yield Violation("I10", life.job, "a fallback began with the counters of another", (grant, change))
        return
    if _rise(before, after) not in RISES[act.cause]:
        what = f"its counters rose by {_rise(before, after)} when it was told to {act.cause}"
        yield Violation("I10", life.job, what, (grant, change))
    if not act.next.is_final and _is_used_up(grant.act, after):
        yield Violation("I10", life.job, "it may run again beyond its limits", (grant, change))


def _rise(before: Counters, after: Counters) -> tuple[int, ...]:
    names = ("attempts", "failures", "crashes", "interruptions", "losses", "snoozes")
    return tuple(getattr(after, name) - getattr(before, name) for name in names)


def _is_used_up(grant: Grant, counters: Counters) -> bool:
    return counters.failures >= max(1, grant.max_attempts) or counters.crashes >= max(1, grant.max_crashes)


def _carried_on(life: Life) -> Iterator[Violation]:
    """Find claims that do not go on from the counters where the claim before them ended."""
    changes = {op.fence: op for op in life.changes if op.accepted}
    for one, other in pairwise(by_number(life)):
        if other.fence.number != one.fence.number + 1 or life.returns(one.t0, other.t1):
            continue
        ended = changes.get(one.fence) if isinstance(other.act, Claimed) else one
        if ended is not None and ended.act.counters != other.act.counters:
            yield Violation("I10", life.job, "its counters changed between two claims", (ended, other))


def _kept(history: History, life: Life) -> Iterator[Violation]:
    stored = history.final.jobs.get(life.job)
    if stored is None:
        return
    for change in life.changes:
        is_last = change.accepted and change.fence.number == stored.claim_number and not life.returns(change.t0)
        if is_last and change.act.counters != stored.counters:
            yield Violation("I10", life.job, f"its counters are {stored.counters} in the end", (change,))


# -- I11 --------------------------------------------------------------------------------------------------------------


def counts_add_up(history: History) -> Iterator[Violation]:
    """I11: what the store counted is what is there, and nobody holds a claim when all is over."""
    final = history.final
    for where in sorted(final.counted.keys() | final.recounted.keys()):
        counted, there = final.counted.get(where, 0), final.recounted.get(where, 0)
        if counted != there:
            yield Violation("I11", "of any id", f"{where}: {counted} were counted and {there} are there")
    if final.held:
        yield Violation("I11", "of any id", f"{final.held} claims are held by processes that are gone")
