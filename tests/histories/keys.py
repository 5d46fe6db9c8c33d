"""Keys and bounds: one live job holds a unique key, an idempotency key makes one job, a queue takes what it may."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence

from msgspec import Struct

from tests.histories.ends import replacers
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


# -- I8 ---------------------------------------------------------------------------------------------------------------


def one_holds_a_key(history: History) -> Iterator[Violation]:
    """I8: at most one live job holds a unique key, who has ended holds none, and an idempotency key makes one job."""
    for adds in history.keys.values():
        yield from _held_by_two(history, adds)
        yield from _held_by_the_ended(history, adds)
    yield from _made_twice(history)


def _held_by_two(history: History, adds: Sequence[Op]) -> Iterator[Violation]:
    lives = {op.act.job: history.lives[op.act.job] for op in adds}
    holds = sorted(filter(None, (_hold(history, life) for life in lives.values())), key=lambda hold: hold.start)
    latest: Hold | None = None
    for hold in holds:
        if latest is not None and hold.start < latest.end:
            what = f"two live jobs held the key {hold.by.act.key!r}"
            yield Violation("I8", hold.by.act.job, what, (latest.by, hold.by))
        latest = hold if latest is None or hold.end > latest.end else latest


def _hold(history: History, life: Life) -> Hold | None:
    """Give the time in which a job surely held its key; None if that is not known."""
    live = sure_life(history, life)
    if live is None or live.by.act.until == "ended":
        return live
    numbers = [op.fence.number for op in life.grants]
    stored = history.final.jobs.get(life.job)
    if min(numbers, default=1 if stored is None or not stored.claim_number else 0) != 1:
        return None  # nobody saw when it started
    return Hold(live.start, min([live.end, *(op.t0 for op in life.grants)]), live.by, live.asked)


def sure_life(history: History, life: Life) -> Hold | None:
    """Give the time in which a job surely was there and had not ended for the first time."""
    accepted = [op for op in life.adds if op.accepted and op.act.told == life.job]
    if not accepted or accepted[0].act.expires:
        return None
    first = min(accepted, key=lambda op: op.t1)
    ends = [op.t0 for op in life.changes if op.possible and op.act.next.is_final]
    ends += [op.t0 for op in life.alters if op.possible and op.act.how in ("cancel", "bury", "delete")]
    ends += [op.t0 for op in replacers(history, life)] if first.act.key else []
    return Hold(first.t1, min(ends, default=NEVER), first, min(op.t0 for op in life.adds))


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
        if history.final.bounds and _stays(life) and (hold := sure_life(history, life)) is not None:
            lives[hold.by.act.queue].append(hold)
    for queue, most in history.final.bounds.items():
        starts, ends = sorted(hold.start for hold in lives[queue]), sorted(hold.end for hold in lives[queue])
        for hold in lives[queue]:
            there = bisect_left(starts, hold.asked) - bisect_right(ends, hold.by.t1)
            if there >= most:
                what = f"queue {queue!r} took it as one more than {there} of at most {most}"
                yield Violation("I9", hold.by.act.job, what, (hold.by,))


def _stays(life: Life) -> bool:
    """Say whether a job surely never left its queue."""
    return not life.alters and not any(op.act.cause == "fall back" for op in life.changes)
