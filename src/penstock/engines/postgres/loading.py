"""Loading jobs of another store: each as it was there, with its keys, or not at all."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.engine import Added
from penstock.engines.forms import counters_out, details_out
from penstock.engines.loading import held_key, window_ends_ms
from penstock.engines.postgres.adding import digest
from penstock.engines.postgres.altering import count
from penstock.engines.postgres.catalog import Catalog, LineKey
from penstock.engines.postgres.store import Session
from penstock.model.errors import IdempotencyConflict, JobRefused, PenstockError, UniqueConflict
from penstock.model.job import Job, JobId
from penstock.model.states import State


class Loading:
    """Jobs on their way into one transaction."""

    def __init__(self, session: Session, catalog: Catalog, now_ms: int) -> None:
        self._session, self._catalog, self._now_ms = session, catalog, now_ms
        self._moves: defaultdict[int, Counter[State]] = defaultdict(Counter)
        self._earliest: dict[str, int] = {}

    def run(self, jobs: Sequence[Job]) -> list[Added | PenstockError]:
        """Store jobs as they are; each has its own answer."""
        keys = [_line_key(job) for job in jobs]
        lines, policies = self._catalog.lines(keys), self._catalog.policies_of(jobs)
        answers = [self._load(*one) for one in zip(jobs, lines, policies, strict=True)]
        count(self._session, self._moves)
        for queue, ended_ms in self._earliest.items():
            self._session.do("unsweep_queue", ended_ms, queue, ended_ms)
        for kind in (1, 2, 3):
            self._session.rows("ring", kind)
        return answers

    def _load(self, job: Job, line: int, policy: int) -> Added | PenstockError:
        if self._session.rows("is_known", job.id, job.id):
            return Added(job.id, existing=True)
        try:
            self._take_keys(job)
        except JobRefused as refused:
            return refused
        if job.state.is_final:
            self._put_ended(job, line, policy)
        else:
            self._put_waiting(job, line, policy)
        self._moves[line][job.state] += 1
        return Added(job.id)

    def _put_waiting(self, job: Job, line: int, policy: int) -> None:
        seq = self._session.value("draw_seq") if job.state is State.READY else None
        started, forgiven = job.counters.attempts > 0, job.error is None
        own = (seq, job.due_ms, job.cancel_requested, started, forgiven)
        self._session.do("load_waiting", *_shared(job, line, policy), *own)
        if seq is not None:
            self._session.do("put_ready", self._now_ms, job.id)

    def _put_ended(self, job: Job, line: int, policy: int) -> None:
        ended_ms = job.ended_ms or 0
        forget_ms = None if job.state is State.BURIED else ended_ms + job.policy.keep_ms
        own = (job.state, ended_ms, forget_ms, job.error is None, job.degraded, job.result)
        self._session.do("load_ended", *_shared(job, line, policy), *own)
        self._earliest[job.queue] = min(ended_ms, self._earliest.get(job.queue, ended_ms))

    def _take_keys(self, job: Job) -> None:
        """Take the keys of a job, all or none; an ended one leaves its window to another that holds the key."""
        session, key = self._session, job.details.idempotency_key
        unique = held_key(job, self._now_ms)
        if unique is not None:
            rows = session.rows("unique_holder", digest(unique.key), self._now_ms)
            holder = rows[0][0] if rows and rows[0][0] != job.id else None
            if holder is not None and not job.state.is_final:
                raise UniqueConflict(unique.key, holder)
            unique = unique if holder is None else None
        if key is not None:
            holder = session.value("hold_key", digest(key), job.id)
            if holder is not None:
                raise IdempotencyConflict(key, holder)
        if unique is not None:
            free_ms = window_ends_ms(job, unique) if unique.until == "window" else None
            session.do("hold_unique", digest(unique.key), unique.until, job.id, free_ms, self._now_ms)


def _line_key(job: Job) -> LineKey:
    return LineKey(job.queue, job.task, job.fair_key, job.counters.runs_alone, -job.priority)


def _shared(job: Job, line: int, policy: int) -> tuple[Any, ...]:
    """Give the columns that waiting and ended jobs have in common, in the order of both statements."""
    return (
        JobId(job.id),
        line,
        policy,
        job.crc,
        job.created_ms,
        job.expires_ms,
        job.details.idempotency_key is not None or job.details.unique is not None,
        details_out(job.details),
        job.envelope,
        job.claim_number,
        job.stage,
        counters_out(job.counters),
        job.claimed_ms,
        job.ran_us,
        job.process,
        None if job.progress is None else msgspec.json.encode(job.progress),
        [msgspec.json.encode(error) for error in job.history] or None,
    )
