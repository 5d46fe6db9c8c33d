"""Deliberate bugs, each of which a checker worth its name finds: the checker itself is tested with them.

They are planted in the memory engine, or in the one decision on ended attempts that all engines share.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from msgspec import Struct
from msgspec.structs import replace

from penstock.engine import Altered, Begun, Cancel
from penstock.engines.memory import adding, altering, exchanging, leasing, ledger, tending
from penstock.engines.memory.store import Store
from penstock.model import settle as settling
from penstock.model.job import NO_COUNTERS, Fence
from penstock.model.states import Cause, State

Plant = Callable[[Callable[..., Any]], Callable[..., Any]]


class Bug(Struct, frozen=True):
    """One bug: what finds it, which function it is in, and what it makes of that function."""

    invariant: str
    place: Any
    function: str
    make: Plant


@contextmanager
def planted(name: str) -> Iterator[Bug]:
    """Have a bug for a while."""
    bug = BUGS[name]
    with mock.patch.object(bug.place, bug.function, bug.make(getattr(bug.place, bug.function))):
        yield bug


def _always(value: Any) -> Plant:
    return lambda _: lambda *_, **__: value


def _now_and_then(wrong: Callable[..., Any]) -> Plant:
    """Do something wrong one time in five."""
    dice = random.Random(1)

    def make(right: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: (wrong if dice.random() < 0.2 else right)(*given)

    return make


# -- what is accepted is kept -----------------------------------------------------------------------------------------


def _forget_what_is_refused(apply: Callable[..., bool]) -> Callable[..., bool]:
    def broken(store: Store, change: Any, now: int) -> bool:
        done = apply(store, change, now)
        if not done and change.id in store.jobs and change.id not in store.claims:
            store.forget(store.jobs[change.id])
        return done

    return broken


def _leave_out_the_last(commit: Callable[..., None]) -> Callable[..., None]:
    def broken(store: Store, plan: Any, now: int) -> None:
        if len(plan.jobs) > 1:
            plan.jobs.popitem()
        commit(store, plan, now)

    return broken


def _prune_the_living(outdated: Callable[..., Any]) -> Callable[..., Any]:
    def broken(store: Store, now: int) -> Any:
        old = [job for job in store.jobs.values() if job.state is State.READY and job.created_ms < now - 3000]
        return [*outdated(store, now), *old]

    return broken


def _forget_who_falls_back(apply: Callable[..., bool]) -> Callable[..., bool]:
    """Let the fallback go on as a job of its own."""

    def broken(store: Store, change: Any, now: int) -> bool:
        done = apply(store, change, now)
        if done and change.cause is Cause.FALL_BACK:
            job = store.jobs[change.id]
            store.forget(job)
            store.put(replace(job, id=f"{job.id}b"))
        return done

    return broken


# -- stale claims change nothing --------------------------------------------------------------------------------------


def _same_number(store: Store, id: str, fence: Fence) -> bool:
    held = store.claims.get(id)
    return held is not None and held.fence.number == fence.number


def _whoever(store: Store, id: str, _: Fence) -> bool:
    return id in store.claims


def _any_parent(add: Callable[..., Any]) -> Callable[..., Any]:
    return lambda store, request: add(store, replace(request, parent=None))


# -- jobs end once ----------------------------------------------------------------------------------------------------


def _only_say_cancelled(alter: Callable[..., Altered]) -> Callable[..., Altered]:
    def broken(store: Store, id: str, alteration: Any) -> Altered:
        job = store.jobs.get(id)
        if isinstance(alteration, Cancel) and job is not None and job.state in (State.READY, State.SCHEDULED):
            return Altered(id, job.state, State.CANCELLED)
        return alter(store, id, alteration)

    return broken


def _bury_without_error(end: Callable[..., None]) -> Callable[..., None]:
    return lambda store, job, state: end(store, replace(job, error=None) if state is State.BURIED else job, state)


# -- claims -----------------------------------------------------------------------------------------------------------


def _held_by_anyone(store: Store, _: str) -> list[Any]:
    return list(store.claims.items())


def _old_token(job: Any) -> Fence:
    return Fence(job.claim_number + 1, int(job.id[-12:]))


def _number_begins_anew(bring_back: Callable[..., None]) -> Callable[..., None]:
    return lambda store, before, job, *rest: bring_back(store, before, replace(job, claim_number=0), *rest)


def _take_and_let_run(take: Callable[..., Any]) -> Callable[..., Any]:
    """Let others claim what was taken over before it was settled."""

    def broken(store: Store, *given: Any) -> Any:
        taken = take(store, *given)
        store.put(replace(store.jobs[taken.claim.id], state=State.READY))
        return taken

    return broken


def _renew_once(renew: Callable[..., None]) -> Callable[..., None]:
    return lambda store, lease: None if lease.until_ms else renew(store, lease)


# -- counting ---------------------------------------------------------------------------------------------------------


def charge_no_crash(crashed: Callable[..., Any]) -> Callable[..., Any]:
    def broken(claim: Any, outcome: Any) -> Any:
        change = crashed(claim, outcome)
        return replace(change, counters=replace(change.counters, crashes=claim.counters.crashes))

    return broken


def retry_once_more(failed: Callable[..., Any]) -> Callable[..., Any]:
    def broken(claim: Any, outcome: Any, luck: float) -> Any:
        policy = claim.policy
        return failed(replace(claim, policy=replace(policy, max_attempts=policy.max_attempts + 1)), outcome, luck)

    return broken


def _forgive_on_take(take: Callable[..., Any]) -> Callable[..., Any]:
    def broken(store: Store, tender: str, id: str, seen: str) -> Any:
        store.put(replace(store.jobs[id], counters=NO_COUNTERS))
        return take(store, tender, id, seen)

    return broken


def _count_no_ends(end: Callable[..., None]) -> Callable[..., None]:
    def broken(store: Store, job: Any, state: State) -> None:
        end(store, job, state)
        store.counts[job.queue, job.task][state] -= state is State.EXPIRED

    return broken


BUGS: dict[str, Bug] = {
    "a late result takes its job along": Bug("I1", exchanging, "_apply", _forget_what_is_refused),
    "a batch is half stored": Bug("I1", adding, "_commit", _leave_out_the_last),
    "what waits for long is pruned": Bug("I1", tending, "_outdated", _prune_the_living),
    "a fallback loses the id": Bug("I1", exchanging, "_apply", _forget_who_falls_back),
    "an end needs no fence": Bug("I2", Store, "holds_claim", lambda _: _whoever),
    "a fence is its number alone": Bug("I2", Store, "holds_claim", lambda _: _same_number),
    "the ledger needs no fence": Bug("I2", ledger, "_check_fence", _always(None)),
    "children need no fence": Bug("I2", adding, "add", _any_parent),
    "an end is told before it is written": Bug("I3", exchanging, "_apply", _now_and_then(lambda *_: True)),
    "to cancel what waits is only said": Bug("I3", altering, "alter", _only_say_cancelled),
    "to stop what runs is only said": Bug("I3", altering, "_ask_to_stop", _always(None)),
    "the buried lose their error": Bug("I3", Store, "end", _bury_without_error),
    "claims are given to all who ask": Bug("I4", Store, "held_by", lambda _: _held_by_anyone),
    "a claim keeps the last token": Bug("I4", exchanging, "new_fence", lambda _: _old_token),
    "a kick sets the claim number back": Bug("I4", altering, "_bring_back", _number_begins_anew),
    "what is taken over is claimed too": Bug("I5", leasing, "_take", _take_and_let_run),
    "renewals are not written": Bug("I6", Store, "renew", _renew_once),
    "a key is held by two": Bug("I8", adding, "_resolve_unique", _always(None)),
    "a key is never freed": Bug("I8", Store, "_free_key", _always(None)),
    "an idempotency key is not looked at": Bug("I8", adding, "_known", _always(None)),
    "a queue takes more than it may": Bug("I9", adding, "_check_room", _always(None)),
    "a crash is not charged": Bug("I10", settling, "_crashed", charge_no_crash),
    "one more attempt than allowed": Bug("I10", settling, "_failed", retry_once_more),
    "a takeover forgives": Bug("I10", leasing, "_take", _forgive_on_take),
    "counts drift": Bug("I11", Store, "end", _count_no_ends),
    "everyone is the first to begin": Bug("I12", ledger, "begin", _always(Begun(first=True))),
}
