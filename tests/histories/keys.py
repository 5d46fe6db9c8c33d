"""Keys and bounds: one live job holds a unique key, an idempotency key makes one job, a queue takes what it may."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate

from msgspec import Struct

from penstock.model.job import JobId
from tests.histories.ends import may_replace
from tests.histories.history import NEVER, History, Life, Op
from tests.histories.violation import Violation


class Hold(Struct, frozen=True):
    """The time in which a job surely was there and had not ended, or surely held its key.

    Attributes:
        by: the act that made it known; it may have been there since `asked`.
    """

    start: int
    end: int
    by: Op
    asked: int


class Replacements:
    """Who may have taken the place of a waiting job, of one key: found by when it was done at the latest."""

    def __init__(self, adds: Sequence[Op]) -> None:
        self._ops = sorted((op for op in adds if may_replace(op)), key=lambda op: op.t1)
        self._done = [op.t1 for op in self._ops]
        first = accumulate((op.t0 for op in reversed(self._ops)), min)
        self._first_from = [*reversed(list(first)), NEVER]

    def first_after(self, asked: int, start: int, job: JobId) -> int:
        """Give from when on another job may have replaced one that was asked for then, and was there at `start`."""
        beside, later = bisect_right(self._done, asked), bisect_right(self._done, start)
        others = (op.t0 for op in self._ops[beside:later] if op.act.job != job)
        return min(min(others, default=NEVER), self._first_from[later])


# -- I8 ---------------------------------------------------------------------------------------------------------------


def one_holds_a_key(history: History) -> Iterator[Violation]:
    """I8: at most one live job holds a unique key, who has ended holds none, and an idempotency key makes one job."""
    for adds in history.keys.values():
        yield from _held_by_two(history, adds, Replacements(adds))
        yield from _held_by_the_ended(history, adds)
    yield from _made_twice(history)


def _held_by_two(history: History, adds: Sequence[Op], replacements: Replacements) -> Iterator[Violation]:
    lives = {op.act.job: history.lives[op.act.job] for op in adds}
    holds = [_hold(history, life, replacements) for life in lives.values()]
    latest: Hold | None = None
    for hold in sorted(filter(None, holds), key=lambda hold: hold.start):
        if latest is not None and hold.start < latest.end:
            what = f"two live jobs held the key {hold.by.act.key!r}"
            yield Violation("I8", hold.by.act.job, what, (latest.by, hold.by))
        latest = hold if latest is None or hold.end > latest.end else latest


def _hold(history: History, life: Life, replacements: Replacements) -> Hold | None:
    """Give the time in which a job surely held its key; None if that is not known."""
    live = sure_life(life, replacements)
    if live is None or live.by.act.until == "ended":
        return live
    numbers = [op.fence.number for op in life.grants]
    stored = history.final.jobs.get(life.job)
    if min(numbers, default=1 if stored is None or not stored.claim_number else 0) != 1:
        return None  # nobody saw when it started
    end = min([live.end, *(op.t0 for op in life.grants)])
    return Hold(live.start, end, live.by, live.asked) if live.start < end else None


def sure_life(life: Life, replacements: Replacements | None = None) -> Hold | None:
    """Give the time in which a job surely was there and had not ended for the first time."""
    accepted = [op for op in life.adds if op.accepted and op.act.told == life.job]
    if not accepted or accepted[0].act.expires:
        return None
    first = min(accepted, key=lambda op: op.t1)
    ends = [op.t0 for op in life.changes if op.possible and op.act.next.is_final]
    ends += [op.t0 for op in life.alters if op.possible and op.act.how in ("cancel", "bury", "delete")]
    asked = min(op.t0 for op in life.adds)
    if replacements is not None:
        ends.append(replacements.first_after(asked, first.t1, life.job))
    end = min(ends, default=NEVER)
    return Hold(first.t1, end, first, asked) if first.t1 < end else None


def _held_by_the_ended(history: History, adds: Sequence[Op]) -> Iterator[Violation]:
    """Find those who were refused, or given another job, for the sake of one that surely held the key no more."""
    for op in adds:
        holder = history.lives.get(op.act.told) if op.act.told != op.act.job and not op.act.once else None
        if holder is None or op.outcome == "unknown" or not holder.adds:
            continue
        over = [end for end in holder.endings() if end.before(op) and not holder.returns(end.t0, op.t1)]
        if holder.adds[0].act.until == "started":
            over += [grant for grant in holder.grants if grant.accepted and grant.before(op)]
        if over:
            yield Violation("I8", holder.job, f"it held the key {op.act.key!r} longer than it may", (over[0], op))


def _made_twice(history: History) -> Iterator[Violation]:
    made: dict[str, str] = {}
    for stored in history.final.jobs.values():
        if stored.once and made.setdefault(stored.once, stored.job) != stored.job:
            adds = (*history.lives[made[stored.once]].adds, *history.lives[stored.job].adds)
            yield Violation("I8", stored.job, f"the idempotency key {stored.once!r} made two jobs", adds)


# -- I9 ---------------------------------------------------------------------------------------------------------------


def bounds_hold(history: History) -> Iterator[Violation]:
    """I9: a queue takes no new jobs beyond its bound."""
    lives: defaultdict[str, list[Hold]] = defaultdict(list)
    for life in history.lives.values():
        if history.final.bounds and _stays(life) and (hold := sure_life(life)) is not None:
            lives[hold.by.act.queue].append(hold)
    for queue, most in history.final.bounds.items():
        starts, ends = sorted(hold.start for hold in lives[queue]), sorted(hold.end for hold in lives[queue])
        for hold in lives[queue]:
            there = bisect_left(starts, hold.asked) - bisect_right(ends, hold.by.t1)
            if there >= most:
                what = f"queue {queue!r} took it as one more than {there} of at most {most}"
                yield Violation("I9", hold.by.act.job, what, (hold.by,))


def _stays(life: Life) -> bool:
    """Say whether a job surely never left its queue, and never made way for another."""
    has_key = any(op.act.key for op in life.adds)
    return not has_key and not life.alters and not any(op.act.cause == "fall back" for op in life.changes)
