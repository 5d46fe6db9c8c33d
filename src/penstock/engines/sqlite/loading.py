"""Loading jobs of another store: each as it was there, with its keys, or not at all."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from penstock.engine import Added
from penstock.engines.forms import counters_out, details_out
from penstock.engines.loading import held_key, window_ends_ms
from penstock.engines.sqlite.queries import SQL
from penstock.engines.sqlite.step import LaneKey, Step, texts
from penstock.model.errors import IdempotencyConflict, JobRefused, PenstockError, UniqueConflict
from penstock.model.job import Job, JobId, Unique
from penstock.model.states import State


def load_jobs(step: Step, jobs: Sequence[Job]) -> list[Added | PenstockError]:
    """Store jobs as they are; each has its own answer."""
    loading = Loading(step, jobs)
    answers = [loading.load(job) for job in jobs]
    loading.flush()
    return answers


class Loading:
    """Jobs on their way into one transaction: keys are taken at once, rows gathered and written together."""

    def __init__(self, step: Step, jobs: Sequence[Job]) -> None:
        self._step = step
        rows = step.db.execute(SQL["stored_ids"], {"ids": texts(job.id for job in jobs)})
        self._stored = {JobId(row[0]) for row in rows.fetchall()}
        self._waiting: list[tuple[object, ...]] = []
        self._ready: list[tuple[object, ...]] = []
        self._ended: list[tuple[object, ...]] = []
        self._ended_by_queue: Counter[str] = Counter()

    def load(self, job: Job) -> Added | PenstockError:
        if job.id in self._stored:
            return Added(job.id, existing=True)
        try:
            self._take_keys(job)
        except JobRefused as refused:
            return refused
        self._stored.add(job.id)
        if job.state.is_final:
            self._put_ended(job)
        else:
            self._put_waiting(job)
        return Added(job.id)

    def flush(self) -> None:
        """Write the gathered rows; what was loaded as ended does not count as ended now, in the rate of its queue."""
        db = self._step.db
        db.executemany(SQL["load_waiting"], self._waiting)
        db.executemany(SQL["add_ready"], self._ready)
        db.executemany(SQL["load_ended"], self._ended)
        db.executemany(SQL["skip_in_rate"], [(count, queue) for queue, count in self._ended_by_queue.items()])

    # -- rows ---------------------------------------------------------------------------------------------------------

    def _put_waiting(self, job: Job) -> None:
        step, lane = self._step, self._lane(job)
        seq = step.draw_seq() if job.state is State.READY else 0
        started, forgiven = job.counters.attempts > 0, job.error is None
        own = (seq, job.due_ms, job.cancel_requested, started, forgiven)
        self._waiting.append((*self._shared(job, lane), *own))
        step.count(lane, job.state, 1)
        if job.state is State.READY:
            self._ready.append((lane, -job.priority, seq, job.id, step.now_ms))
            step.work = True
        else:
            step.due = True

    def _put_ended(self, job: Job) -> None:
        step, lane = self._step, self._lane(job)
        ended_ms = job.ended_ms or 0
        forget_ms = None if job.state is State.BURIED else ended_ms + job.policy.keep_ms
        own = (step.draw_end(), job.state.value, ended_ms, forget_ms, job.error is None, job.degraded, job.result)
        self._ended.append((*self._shared(job, lane), *own))
        self._ended_by_queue[job.queue] += 1
        step.count(lane, job.state, 1)
        step.done = True

    def _lane(self, job: Job) -> int:
        return self._step.lane(LaneKey(job.queue, job.task, job.fair_key, job.counters.runs_alone))

    def _shared(self, job: Job, lane: int) -> tuple[object, ...]:
        """Give the columns that waiting and ended jobs have in common, in the order of both statements."""
        return (
            job.id,
            lane,
            -job.priority,
            self._step.policy(job.policy),
            job.crc,
            job.created_ms,
            job.expires_ms,
            details_out(job.details),
            job.envelope,
            job.claim_number,
            job.stage,
            counters_out(job.counters),
            job.claimed_ms,
            job.ran_us,
            job.process,
            None if job.progress is None else msgspec.json.encode(job.progress),
            msgspec.json.encode(job.history) if job.history else None,
        )

    # -- keys ---------------------------------------------------------------------------------------------------------

    def _take_keys(self, job: Job) -> None:
        """Take the keys of a job, all or none; an ended one leaves its window to another that holds the key."""
        db, key = self._step.db, job.details.idempotency_key
        unique = held_key(job, self._step.now_ms)
        holder = None if unique is None else self._holder(unique)
        is_free = holder in (None, job.id)  # a window outlives its job, also one that was deleted and comes back
        if unique is not None and holder is not None and not is_free and not job.state.is_final:
            raise UniqueConflict(unique.key, holder)
        if key is not None:
            self._check_idempotency_key(key)
            db.execute(SQL["add_key"], (key, job.id))
        if unique is not None and is_free:
            free_ms = window_ends_ms(job, unique) if unique.until == "window" else None
            db.execute(SQL["hold_unique"], (unique.key, job.id, free_ms))

    def _holder(self, unique: Unique) -> str | None:
        row = self._step.db.execute(SQL["unique_holder"], (unique.key, self._step.now_ms)).fetchone()
        return None if row is None else str(row[0])

    def _check_idempotency_key(self, key: str) -> None:
        row = self._step.db.execute(SQL["key_holder"], (key,)).fetchone()
        if row is not None:
            raise IdempotencyConflict(key, row[0])
