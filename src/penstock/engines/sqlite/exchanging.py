"""The heart: what has ended goes in, what can run comes out."""

import heapq
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from penstock.engine import MOST_AT_ONCE, AddRequest, Answer, Want
from penstock.engines.forms import counters_in, counters_out, details_in, details_out, history_out
from penstock.engines.sqlite.adding import Adding
from penstock.engines.sqlite.ending import end_waiting, find_waiting, forget_at, free_unique
from penstock.engines.sqlite.queries import SQL
from penstock.engines.sqlite.step import Keys, LaneKey, Step, numbers, texts
from penstock.model.job import Change, Claim, Fence, JobId, ProcessId
from penstock.model.states import State

_ALONE_RUNNER = "process"


class Held(NamedTuple):
    """A claim as the store has it, with what is needed to end or requeue its job."""

    token: int
    number: int
    id: str
    lane: int
    rank: int
    policy: int
    claimed_ms: int
    process: str
    keyed: int


class Exchanged(NamedTuple):
    """What an exchange read; the answer is made of it after the commit, when nobody waits for the write lock."""

    keys: Keys
    rows: Sequence[tuple[Any, ...]]
    tokens: Sequence[int]
    late: Sequence[JobId]
    cancels: tuple[Fence, ...]
    drain: bool
    now_ms: int
    mark: int

    def answer(self) -> Answer:
        return Answer(
            claims=tuple(read_claims(self.keys, self.rows, self.tokens)),
            late=tuple(self.late),
            cancels=self.cancels,
            drain=self.drain,
            now_ms=self.now_ms,
            mark=self.mark,
        )


def exchange(
    step: Step, process: ProcessId, beat: int, changes: Sequence[Change], want: Want | None
) -> Exchanged | None:
    """Apply the changes and claim, unless this beat was answered before; then give the same answer again.

    None if the lease is void or unknown: then all that is written is how many changes came too late.
    """
    row = step.db.execute(SQL["process"], (process,)).fetchone()
    if row is None:
        step.late += len(changes)
        return None
    number, last_beat, late, mark, has_cancels, drain, steer = row
    if beat < max(1, last_beat):
        raise ValueError(f"Beat {beat} of process {process} does not follow its last beat {last_beat}.")
    if beat == last_beat:
        return _repeat(step, number, beat, late, mark, drain)
    refused = apply_changes(step, changes)
    rows, has_more = claim_jobs(step, want) if want is not None else ([], False)
    tokens = _store_claims(step, number, beat, rows) if rows else ()
    asked = has_cancels or any(row[12] for row in rows)
    cancels = _cancels(step, number) if asked else ()
    mark = step.seq - has_more
    if changes or rows:
        late = msgspec.json.encode(refused) if refused else None
        step.db.execute(SQL["set_beat"], (beat, late, mark, bool(cancels), number))
    elif steer:
        step.db.execute(SQL["steered_once"], (number,))
    return Exchanged(step.read_keys(rows), rows, tokens, refused, cancels, bool(drain), step.now_ms, mark)


def _repeat(step: Step, process: int, beat: int, late: bytes | None, mark: int, drain: int) -> Exchanged:
    step.db.execute(SQL["steered_once"], (process,))
    rows = sorted(step.db.execute(SQL["held_since"], (process, beat)).fetchall(), key=_order)
    tokens = tuple(row[15] for row in rows)
    refused = msgspec.json.decode(late, type=list[JobId]) if late else []
    cancels = _cancels(step, process)
    return Exchanged(step.read_keys(rows), rows, tokens, refused, cancels, bool(drain), step.now_ms, mark)


def _cancels(step: Step, process: int) -> tuple[Fence, ...]:
    return tuple(Fence(number, token) for token, number in step.db.execute(SQL["cancels"], (process,)).fetchall())


# -- changes ----------------------------------------------------------------------------------------------------------


def apply_changes(step: Step, changes: Sequence[Change]) -> list[JobId]:
    """Apply the changes whose fence is valid; answers the ids of the others, which came too late."""
    if not changes:
        return []
    held = _find_held(step, changes)
    ending: list[tuple[Change, Held]] = []
    requeueing: list[tuple[Change, Held]] = []
    late: list[JobId] = []
    for change in changes:
        claim = held.get(change.fence.token)
        if claim is None or claim.number != change.fence.number or claim.id != change.id:
            late.append(change.id)
        else:
            del held[claim.token]
            (ending if change.next.is_final else requeueing).append((change, claim))
    if ending or requeueing:
        tokens = numbers(claim.token for _, claim in (*ending, *requeueing))
        step.db.execute(SQL["drop_claims"], (tokens,))
        _end(step, ending)
        _requeue(step, requeueing)
        _record_effects(step, (*ending, *requeueing))
        _add_follow_ups(step, [change for change, _ in (*ending, *requeueing)])
    step.late += len(late)
    return late


def _find_held(step: Step, changes: Sequence[Change]) -> dict[int, Held]:
    tokens = numbers(change.fence.token for change in changes)
    return {row[0]: Held(*row) for row in step.db.execute(SQL["held_by_tokens"], (tokens,)).fetchall()}


def _end(step: Step, ending: Sequence[tuple[Change, Held]]) -> None:
    if not ending:
        return
    step.db.executemany(SQL["end_claimed"], [_ended_row(step, change, claim) for change, claim in ending])
    for _, claim in ending:
        if claim.keyed:
            free_unique(step, step.db.execute(SQL["details"], (claim.id,)).fetchone()[0], claim.id)
    step.db.execute(SQL["drop_jobs"], (texts(claim.id for _, claim in ending),))
    for (lane, state), count in Counter((claim.lane, change.next) for change, claim in ending).items():
        step.count(lane, State.RUNNING, -count)
        step.count(lane, state, count)
    step.done = True


def _ended_row(step: Step, change: Change, claim: Held) -> tuple[object, ...]:
    return (
        step.draw_end(),
        change.next.value,
        step.now_ms,
        forget_at(step, claim.policy, change.next),
        claim.number,
        counters_out(change.counters),
        claim.claimed_ms,
        change.ran_us,
        claim.process,
        change.degraded,
        _new_history(step, change),
        change.error is None,
        change.result,
        claim.id,
    )


def _new_history(step: Step, change: Change) -> bytes | None:
    """Give the history with the change's error at its end; None leaves it as it is."""
    if change.error is None:
        return None
    stored = step.db.execute(SQL["history"], (change.id,)).fetchone()[0]
    return history_out(stored, change.error, step.now_ms)


def _requeue(step: Step, requeueing: Sequence[tuple[Change, Held]]) -> None:
    for change, claim in requeueing:
        lane = _lane_after(step, change, claim)
        due_ms = step.now_ms + change.after_ms if change.next is State.SCHEDULED else None
        seq = step.draw_seq()
        step.db.execute(
            SQL["requeue"],
            (
                lane,
                seq,
                due_ms,
                claim.number,
                change.counters.attempts > 0,
                counters_out(change.counters),
                claim.claimed_ms,
                change.ran_us,
                claim.process,
                _new_history(step, change),
                change.error is None,
                claim.id,
            ),
        )
        if due_ms is None:
            step.db.execute(SQL["add_ready"], (lane, claim.rank, seq, claim.id, step.now_ms))
            step.work = True
        else:
            step.due = True
        step.count(claim.lane, State.RUNNING, -1)
        step.count(lane, change.next, 1)


def _lane_after(step: Step, change: Change, claim: Held) -> int:
    """Give the lane in which a job waits from now, after writing down what else a move changes of it."""
    key, move = step.lane_key(claim.lane), change.move
    queue, task = key.queue, key.task
    if move is not None:
        queue, task = move.queue, move.task
        values = {"stage": move.stage, "details": details_out(move.details), "id": claim.id}
        step.db.execute(SQL["move"], values)
    return step.lane(LaneKey(queue, task, key.fair_key, change.counters.runs_alone))


def _record_effects(step: Step, changes: Sequence[tuple[Change, Held]]) -> None:
    rows = [
        (entry.scope, entry.key, change.id, claim.number, claim.token, entry.value, None)
        for change, claim in changes
        for entry in change.ledger
    ]
    if rows:
        step.db.executemany(SQL["set_entry"], rows)


def _add_follow_ups(step: Step, changes: Sequence[Change]) -> None:
    jobs = tuple(job for change in changes for job in change.follow_ups)
    if jobs:
        adding = Adding(step, [AddRequest(jobs)])
        for job in jobs:
            adding.follow_up(job)


# -- claims -----------------------------------------------------------------------------------------------------------


def claim_jobs(step: Step, want: Want) -> tuple[list[tuple[Any, ...]], bool]:
    """Take up to `want` ready jobs out of their lanes, group of queues by group, best head first.

    Also says whether it stopped at the bound on expired jobs, so that more may be there to claim at once.
    """
    picked: list[tuple[Any, ...]] = []
    overdue: list[tuple[Any, ...]] = []
    free = dict(want.free)
    for lanes in _eligible(step, want):
        if len(picked) >= want.limit:
            break
        _pick(step, lanes, free, want.limit - len(picked), picked, overdue)
    if overdue:
        end_waiting(step, [job for row in overdue if (job := find_waiting(step, row[3]))], State.EXPIRED)
    _drop_heads(step, picked)
    return picked, len(overdue) >= MOST_AT_ONCE


def _eligible(step: Step, want: Want) -> Iterator[dict[int, str]]:
    """Give, for each group of queues, the lanes this process could take from, each with its runner."""
    rows = step.db.execute(SQL["ready_lanes"]).fetchall()
    known = [(row[0], row[1], _ALONE_RUNNER if row[4] else want.tasks[row[2]]) for row in rows if row[2] in want.tasks]
    if want.queues is None:
        yield {lane: runner for lane, _, runner in known}
        return
    for group in want.queues:
        yield {lane: runner for lane, queue, runner in known if queue in group}


def _pick(
    step: Step,
    lanes: dict[int, str],
    free: dict[str, int],
    limit: int,
    picked: list[tuple[Any, ...]],
    overdue: list[tuple[Any, ...]],
) -> None:
    """Merge the heads of the lanes; a lane whose runner has no free slot left is left at once, never scanned."""
    last = len(picked) + limit
    heap = []
    for lane, runner in lanes.items():
        if free.get(runner, 0) > 0:
            rows = step.db.execute(SQL["head"], (lane,))
            heap += [(row[0], row[1], row, rows) for row in [rows.fetchone()] if row is not None]
    heapq.heapify(heap)
    while heap and len(picked) < last and len(overdue) < MOST_AT_ONCE:
        _, _, row, rows = heap[0]
        runner = lanes[row[2]]
        if free[runner] <= 0:
            heapq.heappop(heap)
            continue
        if row[8] is not None and row[8] <= step.now_ms and not row[13]:
            overdue.append(row)
        else:
            free[runner] -= 1
            picked.append(row)
        following = rows.fetchone()
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following[0], following[1], following, rows))


def _order(row: tuple[Any, ...]) -> tuple[int, int]:
    return row[0], row[1]


def _drop_heads(step: Step, rows: Iterable[tuple[Any, ...]]) -> None:
    last: dict[int, tuple[int, int]] = {}
    for row in rows:
        last[row[2]] = max(last.get(row[2], (row[0], row[1])), (row[0], row[1]))
    for lane, (rank, seq) in last.items():
        step.db.execute(SQL["drop_ready_run"], (lane, rank, seq))


def _store_claims(step: Step, process: int, beat: int, rows: Sequence[tuple[Any, ...]]) -> tuple[int, ...]:
    tokens, now_ms = draw_tokens(len(rows)), step.now_ms
    step.db.executemany(
        SQL["add_claim"],
        [
            (token, row[3], row[4] + 1, process, beat, now_ms, row[2], row[0], row[5], row[9] is not None)
            for token, row in zip(tokens, rows, strict=True)
        ],
    )
    for lane, count in Counter(row[2] for row in rows).items():
        step.count(lane, State.READY, -count)
        step.count(lane, State.RUNNING, count)
    for row in rows:
        if row[9] is not None:
            _free_at_start(step, row)
    return tokens


def _free_at_start(step: Step, row: tuple[Any, ...]) -> None:
    unique = details_in(row[9]).unique
    if unique is not None and unique.until == "started":
        free_unique(step, row[9], row[3])


def read_claims(keys: Keys, rows: Sequence[tuple[Any, ...]], tokens: Sequence[int]) -> Iterator[Claim]:
    """Make claims of rows of `head` or of rows that begin like it; column 4 is the number before this claim."""
    for token, row in zip(tokens, rows, strict=True):
        lane = keys.lanes[row[2]]
        yield Claim(
            id=row[3],
            fence=Fence(row[4] + 1, token),
            task=lane.task,
            queue=lane.queue,
            envelope=row[14],
            crc=row[6],
            policy=keys.policies[row[5]],
            counters=counters_in(row[10]),
            details=details_in(row[9]),
            priority=-row[0],
            stage=row[11],
            enqueued_ms=row[7],
            cancel_requested=bool(row[12]),
        )


def draw_tokens(count: int) -> tuple[int, ...]:
    """Draw random signed 64-bit numbers, in one call to the system."""
    return struct.unpack(f"{count}q", os.urandom(8 * count))
