"""A process's conversation with the store: what ended is written down, then what can run is claimed."""

import os
from collections.abc import Sequence

from msgspec.structs import replace

from penstock.engine import Answer, Want
from penstock.engines.memory.adding import add_follow_ups
from penstock.engines.memory.store import Entry, Held, Lane, Lease, Store, with_error
from penstock.model.errors import LeaseLost
from penstock.model.job import Change, Fence, Job, JobId, Move, ProcessId
from penstock.model.states import State


def exchange(store: Store, process: ProcessId, beat: int, changes: Sequence[Change], want: Want | None) -> Answer:
    """Apply the changes and claim, unless this beat was answered before; then answer the same again."""
    try:
        lease = store.lease(process)
    except LeaseLost:
        store.late_results += len(changes)
        raise
    if beat < max(1, lease.beat):
        raise ValueError(f"Beat {beat} of process {process} does not follow its last beat {lease.beat}.")
    if beat == lease.beat:
        return _answer(store, process, lease, beat)
    now = store.clock.wall_ms()
    applied = [_apply(store, change, now) for change in changes]
    late = tuple(change.id for change, done in zip(changes, applied, strict=True) if not done)
    for change, done in zip(changes, applied, strict=True):
        if done:
            add_follow_ups(store, change.follow_ups, now)
    claimed = _claim(store, process, beat, want, now) if want is not None else 0
    if changes or claimed:
        lease.beat, lease.late, lease.mark = beat, late, store.last_seq
        return _answer(store, process, lease, beat)
    return replace(_answer(store, process, lease, beat), late=(), mark=store.last_seq)


def new_fence(job: Job) -> Fence:
    """Draw the fence of the job's next claim."""
    return Fence(job.claim_number + 1, int.from_bytes(os.urandom(8), signed=True))


def _apply(store: Store, change: Change, now: int) -> bool:
    """Write one change down, or refuse it because its claim is no longer the job's."""
    if not store.holds_claim(change.id, change.fence):
        store.late_results += 1
        return False
    del store.claims[change.id]
    job = with_error(store.jobs[change.id], change.error, now)
    job = _moved(replace(job, counters=change.counters, ran_us=change.ran_us), change.move)
    if change.next.is_final:
        store.end(replace(job, result=change.result, degraded=change.degraded), change.next)
    elif change.next is State.SCHEDULED:
        store.put(replace(job, state=State.SCHEDULED, due_ms=now + change.after_ms))
    else:
        store.put(replace(job, state=State.READY))
    for entry in change.ledger:
        store.ledger[entry.scope, entry.key] = Entry(change.id, change.fence, None, entry.value)
    return True


def _moved(job: Job, move: Move | None) -> Job:
    if move is None:
        return job
    expires_ms = job.expires_ms if move.stage == job.stage else None
    moved = {"task": move.task, "queue": move.queue, "stage": move.stage, "details": move.details}
    return replace(job, **moved, expires_ms=expires_ms)


def _claim(store: Store, process: ProcessId, beat: int, want: Want, now: int) -> int:
    free, left = dict(want.free), want.limit
    groups = want.queues if want.queues is not None else (tuple(store.queues),)
    for group in groups:
        while left > 0 and (lane := _best_lane(store, group, want, free)) is not None:
            job = store.jobs[store.lanes[lane][0].id]
            if store.is_expired(job, now):
                store.end(job, State.EXPIRED)
                continue
            _hold(store, job.id, Held(new_fence(job), process, beat), now)
            free[_runner(lane, want)] -= 1
            left -= 1
    return want.limit - left


def _best_lane(store: Store, group: Sequence[str], want: Want, free: dict[str, int]) -> Lane | None:
    eligible = (
        lane
        for lane in store.lanes
        if lane.queue in group
        and not store.queues[lane.queue].paused
        and lane.task in want.tasks
        and free.get(_runner(lane, want), 0) > 0
    )
    return min(eligible, key=lambda lane: store.lanes[lane][0], default=None)


def _runner(lane: Lane, want: Want) -> str:
    return "process" if lane.alone else want.tasks[lane.task]


def _hold(store: Store, id: JobId, held: Held, now: int) -> None:
    store.start_frees_key(store.jobs[id])
    store.claim(id, held)
    store.put(replace(store.jobs[id], claimed_ms=now))


def _answer(store: Store, process: ProcessId, lease: Lease, beat: int) -> Answer:
    held = store.held_by(process)
    lease.news = False
    return Answer(
        claims=tuple(store.see_claim(id) for id, claim in held if claim.beat == beat),
        late=lease.late,
        cancels=tuple(claim.fence for id, claim in held if store.jobs[id].cancel_requested),
        drain=store.workers[lease.worker].drain,
        now_ms=store.clock.wall_ms(),
        mark=lease.mark,
    )
