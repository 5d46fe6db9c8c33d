"""Claims and leases: fences rise, one holds a job, a stale one changes nothing, and no living worker is robbed."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from msgspec import Struct

from tests.histories.history import Changed, Claimed, Dead, Evicted, History, Leased, Life, Op, Taken, Voided
from tests.histories.violation import Violation

#: By how much the clock of a store may differ from ours over a lease, in ns: it counts whole ms, and is adjusted.
SLACK_NS = 5_000_000


# -- I2 ---------------------------------------------------------------------------------------------------------------


def stale_changes_nothing(history: History) -> Iterator[Violation]:
    """I2: who no longer holds a job changes neither its state nor its result, ledger, notes or children."""
    void_since = _void_since(history)
    for life in history.lives.values():
        yield from _overtaken(life)
        yield from _foreign(life)
        yield from _after_its_end(life)
        yield from _under_void_lease(life, void_since)


def _overtaken(life: Life) -> Iterator[Violation]:
    """Find writes that were accepted after a newer claim was surely given out."""
    grants = sorted((op for op in life.grants if op.accepted), key=lambda op: op.t1)
    newest = list(accumulate(grants, lambda one, other: max(one, other, key=number_of)))
    ends = [op.t1 for op in grants]
    for write in life.fenced():
        before = bisect_left(ends, write.t0)
        if write.accepted and before and newest[before - 1].fence.number > write.fence.number:
            yield Violation("I2", life.job, "a stale claim's write was accepted", (newest[before - 1], write))


def _foreign(life: Life) -> Iterator[Violation]:
    """Find writes that were accepted under a number that was given out with another token."""
    granted = {op.fence.number: op for op in life.grants if op.accepted}
    for write in life.fenced():
        grant = granted.get(write.fence.number)
        if write.accepted and grant is not None and grant.fence != write.fence:
            yield Violation("I2", life.job, "a write with another token was accepted", (grant, write))


def _after_its_end(life: Life) -> Iterator[Violation]:
    """Find writes that were accepted after their claim had ended, and claims that ended twice."""
    ended: dict[int, Op] = {}
    for change in life.changes:
        if change.accepted and (first := ended.setdefault(change.fence.number, change)) is not change:
            yield Violation("I2", life.job, "one claim ended twice", (first, change))
    for write in life.fenced():
        end = ended.get(write.fence.number)
        if write.accepted and end is not None and end.before(write) and not isinstance(write.act, Changed):
            yield Violation("I2", life.job, "a write was accepted after its claim had ended", (end, write))


def _void_since(history: History) -> dict[str, Op]:
    """Give by whom it was first heard that the lease of a process is void for good.

    Who asks before its lease was given hears the same, and is given one after.
    """
    given: dict[str, int] = {}
    for op in history.leases:
        if isinstance(op.act, Leased) and op.act.ms and op.possible:
            given[op.act.process] = max(op.t1, given.get(op.act.process, 0))
    void: dict[str, Op] = {}
    for op in history.leases:
        if isinstance(op.act, Voided) and op.accepted and given.get(op.act.process, 0) < op.t0:
            known = void.get(op.act.process)
            void[op.act.process] = op if known is None or op.t1 < known.t1 else known
    return void


def _under_void_lease(life: Life, void_since: dict[str, Op]) -> Iterator[Violation]:
    for change in life.changes:
        void = void_since.get(change.process)
        if change.accepted and void is not None and void.before(change):
            yield Violation("I2", life.job, "a change was accepted under a void lease", (void, change))


# -- I4 ---------------------------------------------------------------------------------------------------------------


def fences_rise(history: History) -> Iterator[Violation]:
    """I4: the fences of a job strictly rise, and each is given to one process once."""
    for life in history.lives.values():
        grants = by_number(life)
        yield from _given_twice(life, grants)
        yield from _fallen(life, grants)
        stored = history.final.jobs.get(life.job)
        if stored is not None and grants and stored.claim_number < grants[-1].fence.number:
            yield Violation("I4", life.job, f"its claim number fell to {stored.claim_number}", (grants[-1],))


def _given_twice(life: Life, grants: Sequence[Op]) -> Iterator[Violation]:
    for one, other in pairwise(grants):
        if one.fence.number == other.fence.number and (one.fence, one.process) != (other.fence, other.process):
            yield Violation("I4", life.job, "one claim number was given out twice", (one, other))
        elif one.fence.number != other.fence.number and one.fence.token == other.fence.token:
            yield Violation("I4", life.job, "one token was given out twice", (one, other))


def _fallen(life: Life, grants: Sequence[Op]) -> Iterator[Violation]:
    """Find claims that were surely given out before one of a lower number."""
    latest: Op | None = None
    for grant in grants:
        if latest is not None and grant.before(latest) and grant.fence.number > latest.fence.number:
            yield Violation("I4", life.job, "a later claim has a lower number", (grant, latest))
        latest = grant if latest is None or grant.t0 > latest.t0 else latest


# -- I5 ---------------------------------------------------------------------------------------------------------------


def one_holds_it(history: History) -> Iterator[Violation]:
    """I5: a job has one valid claim at most: it is claimed again only after its last claim was ended or taken over."""
    for life in history.lives.values():
        for one, other in pairwise(by_number(life)):
            if other.fence.number == one.fence.number + 1:
                yield from _handed_on(life, one, other)


def _handed_on(life: Life, one: Op, other: Op) -> Iterator[Violation]:
    ends = [op for op in life.changes if op.possible and op.fence == one.fence]
    if isinstance(other.act, Claimed) and not any(end.t0 < other.t1 for end in ends):
        yield Violation("I5", life.job, "it was claimed while another claim held it", (one, *ends, other))
    if isinstance(other.act, Taken):
        if other.act.previous != one.process:
            yield Violation("I5", life.job, "it was taken over from one who did not hold it", (one, other))
        if any(end.accepted and end.before(other) for end in ends):
            yield Violation("I5", life.job, "it was taken over after its claim had ended", (one, *ends, other))


# -- I6 ---------------------------------------------------------------------------------------------------------------


class Lease(Struct):
    """What is known of the lease of one process.

    Attributes:
        worker: who enrolled it.
        renewals: when it was surely given or renewed.
        dead: who first reported the process dead.
    """

    worker: str = ""
    ms: int = 0
    renewals: list[Op] = []
    dead: Op | None = None

    def last_renewal(self, before: Op) -> Op | None:
        return max((op for op in self.renewals if op.before(before)), key=lambda op: op.t0, default=None)

    def is_reported_dead(self, before: Op) -> bool:
        return self.dead is not None and self.dead.t0 < before.t1


def the_living_are_not_robbed(history: History) -> Iterator[Violation]:
    """I6: a claim is taken over only from a process that was reported dead, or whose lease had lapsed.

    An operator may evict a worker. After the store's clock was set forward a lease may lapse at once; the documents
    say so.
    """
    leases = _leases(history)
    evictions = [op for op in history.leases if isinstance(op.act, Evicted) and op.possible]
    for life in history.lives.values():
        for take in life.grants:
            if not isinstance(take.act, Taken) or not take.accepted:
                continue
            lease, fate = leases[take.act.previous], take.act.fate
            if lease.is_reported_dead(take):
                continue
            if fate != "lost" and not _may_go_on(life, take):
                yield Violation("I6", life.job, f"it was taken over as {fate}, and nobody saw that", (take,))
            last = lease.last_renewal(take)
            excuses = [*history.jumps, *(op.t0 for op in evictions if op.act.worker == lease.worker)]
            if last is not None and _holds(last, lease.ms, take, excuses):
                yield Violation("I6", life.job, "it was taken from a process whose lease held", (last, take))


def _holds(renewal: Op, ms: int, take: Op, excuses: Sequence[int]) -> bool:
    """Say whether a lease that was renewed surely held when a claim was taken over."""
    until = renewal.t0 + ms * 1_000_000 - SLACK_NS
    return take.t1 < until and not any(renewal.t0 <= excuse <= take.t1 for excuse in excuses)


def _may_go_on(life: Life, take: Op) -> bool:
    """Say whether what was seen when the claim was first taken over may still hold, after the taker died as well."""
    before = [op for op in life.grants if op.fence.number == take.fence.number - 1]
    return not before or any(isinstance(op.act, Taken) and op.act.fate == take.act.fate for op in before)


def _leases(history: History) -> defaultdict[str, Lease]:
    leases: defaultdict[str, Lease] = defaultdict(Lease)
    for op in history.leases:
        match op.act:
            case Leased(process, ms) if op.accepted:
                lease = leases[process]
                lease.renewals.append(op)
                if ms:
                    lease.ms, lease.worker = ms, op.process
            case Dead(process) if op.possible:
                leases[process].dead = leases[process].dead or op
    return leases


def number_of(op: Op) -> int:
    return op.fence.number


def by_number(life: Life) -> list[Op]:
    """Give the claims that were surely given out, each once, though its answer may have been repeated."""
    seen: dict[tuple[object, str], Op] = {}
    for op in life.grants:
        if op.accepted:
            seen.setdefault((op.fence, op.process), op)
    return sorted(seen.values(), key=number_of)
