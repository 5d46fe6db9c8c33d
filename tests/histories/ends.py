"""Accepted jobs are kept, and end once: nothing is lost, torn, stuck or brought back by itself."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from penstock.model.job import JobId
from penstock.model.states import State
from tests.histories.history import Altered, Changed, Claimed, History, Life, Op, Stored
from tests.histories.violation import Violation

# -- I1 ---------------------------------------------------------------------------------------------------------------


def accepted_is_kept(history: History) -> Iterator[Violation]:
    """I1: what was accepted is there at the end, what was refused is not, and requests are stored whole."""
    for life in history.lives.values():
        stored = history.final.jobs.get(life.job)
        accepted = [op for op in life.adds if op.accepted and op.act.told == life.job]
        if accepted and stored is None and not life.deleted:
            yield Violation("I1", life.job, "it was accepted and is gone", (*accepted, *life.changes))
        if stored is not None and not may_be_stored(life):
            yield Violation("I1", life.job, "it is there, though it was refused", tuple(life.adds))
    for job in history.final.jobs.keys() - history.lives.keys():
        yield Violation("I1", job, "it is there, though nobody asked for it")
    yield from _torn(history)


def may_be_stored(life: Life) -> bool:
    return any(op.outcome == "unknown" or (op.accepted and op.act.told == life.job) for op in life.adds)


def _torn(history: History) -> Iterator[Violation]:
    """Find requests of which a part is stored; another job may stand in for one with a key."""
    requests: defaultdict[JobId, dict[JobId, Op]] = defaultdict(dict)
    for life in history.lives.values():
        for op in life.adds:
            if not (op.act.key or op.act.once or life.deleted):
                requests[op.act.request][life.job] = op
    for request, jobs in requests.items():
        there = [job for job in jobs if job in history.final.jobs]
        if 0 < len(there) < len(jobs):
            missing = next(job for job in jobs if job not in history.final.jobs)
            what = f"{len(there)} of the {len(jobs)} jobs of its request are there"
            yield Violation("I1", request, what, (jobs[there[0]], jobs[missing]))


# -- I3 ---------------------------------------------------------------------------------------------------------------


def ends_once(history: History) -> Iterator[Violation]:
    """I3: each job reaches one final state, and leaves it only by an operator's hand."""
    for life in history.lives.values():
        yield from _left(life)
        yield from _ended_again(life)
        yield from _forgot_to_stop(life)
        stored = history.final.jobs.get(life.job)
        if stored is not None:
            yield from _stands_as_told(history, life, stored)


def _left(life: Life) -> Iterator[Violation]:
    for end in life.endings():
        for grant in life.grants:
            if grant.accepted and end.before(grant) and not life.returns(end.t0, grant.t1):
                yield Violation("I3", life.job, "it ran again after it had ended", (end, grant))


def _ended_again(life: Life) -> Iterator[Violation]:
    for one, other in pairwise(life.endings()):
        if not life.returns(one.t0, other.t1):
            yield Violation("I3", life.job, "it ended twice", (one, other))


def _forgot_to_stop(life: Life) -> Iterator[Violation]:
    """Find claims that do not know that their job was asked to stop while it ran before."""
    for asked in life.alters:
        if not (asked.accepted and asked.act.how == "cancel" and asked.act.after is State.RUNNING):
            continue
        for claim in life.grants:
            knows = not isinstance(claim.act, Claimed) or claim.act.cancel_requested
            if claim.accepted and not knows and asked.before(claim) and not life.returns(asked.t0, claim.t1):
                yield Violation("I3", life.job, "it was asked to stop, which was forgotten", (asked, claim))


def _stands_as_told(history: History, life: Life, stored: Stored) -> Iterator[Violation]:
    endings = life.endings()
    if not stored.state.is_final:
        yield Violation("I3", life.job, f"it is stuck: {stored.state}", tuple([*life.grants, *life.changes][-4:]))
    elif endings and not life.returns(endings[-1].t0):
        yield from _contradicts(life, endings[-1], stored)
    elif not _is_explained(history, life, stored):
        what = f"it is {stored.state} at claim {stored.claim_number}, and nothing says so"
        yield Violation("I3", life.job, what, tuple([*life.grants, *life.changes][-6:]))


def _contradicts(life: Life, end: Op, stored: Stored) -> Iterator[Violation]:
    """Compare the last sure ending with what is there."""
    told = _told_by(end.act)
    is_there = (stored.state, stored.result)
    if told != is_there:
        yield Violation("I3", life.job, f"it was told to be {told} and is {is_there}", (*life.grants[-2:], end))
    elif isinstance(end.act, Changed) and end.act.error and stored.error != end.act.error:
        what = f"its error was {end.act.error!r} and is {stored.error!r}"
        yield Violation("I3", life.job, what, (end,))


def _told_by(act: Changed | Altered) -> tuple[State | None, str]:
    return (act.next, act.result) if isinstance(act, Changed) else (act.after, "")


def _is_explained(history: History, life: Life, stored: Stored) -> bool:
    """Say whether something may have brought the job where it is."""
    for op in life.changes:
        if op.possible and op.fence.number == stored.claim_number and _told_by(op.act) == (stored.state, stored.result):
            return True
    match stored.state:
        case State.BURIED:
            return _may_have_been(life, "bury")
        case State.CANCELLED:
            return _may_have_been(life, "cancel") or _may_have_made_way(history, life)
        case State.EXPIRED:
            return any(op.act.expires for op in life.adds)
        case _:
            return False


def _may_have_been(life: Life, how: str) -> bool:
    return any(op.possible and op.act.how == how for op in life.alters)


def _may_have_made_way(history: History, life: Life) -> bool:
    """Say whether another job with its key may have taken its place."""
    key = life.adds[0].act.key if life.adds else ""
    return any(may_replace(op) and op.act.job != life.job for op in history.keys.get(key, ()))


def may_replace(add: Op) -> bool:
    return add.possible and add.act.clash == "replace"
