"""Adding jobs: known ids and keys, uniqueness and capacity, decided in the step that stores them."""

from collections.abc import Sequence
from typing import Any

from penstock.engine import Added, AddRequest
from penstock.engines.arriving import due_ms, expires_ms, retry_after_s
from penstock.engines.forms import details_in, details_out
from penstock.engines.sqlite.ending import end_waiting, find_waiting
from penstock.engines.sqlite.queries import SQL
from penstock.engines.sqlite.step import LaneKey, Step, texts
from penstock.model.errors import IdempotencyConflict, JobRefused, LeaseLost, PenstockError, QueueFull, UniqueConflict
from penstock.model.job import NO_DETAILS, ErrorInfo, Fence, JobId, NewJob, Unique, origin_of
from penstock.model.states import State


def add_jobs(step: Step, requests: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
    """Store each request whole or not at all, and give each its own answer."""
    adding = Adding(step, requests)
    answers = [adding.request(request) for request in requests]
    adding.flush()
    return answers


class Adding:
    """The jobs of several requests on their way into one transaction.

    Plain jobs are gathered and written together. A request with keys is decided against the tables themselves, under a
    savepoint of its own.
    """

    def __init__(self, step: Step, requests: Sequence[AddRequest]) -> None:
        self._step = step
        self._known = self._find_known(requests)
        self._jobs: list[tuple[object, ...]] = []
        self._ready: list[tuple[int, int, int, str, int]] = []
        self._bounded: dict[str, bool] = {}

    def request(self, request: AddRequest) -> list[Added] | PenstockError:
        if request.parent is not None and not self._parent_lives(*request.parent):
            return LeaseLost(f"of job {request.parent[0]}")
        if _is_plain(request.jobs):
            return self._plain(request.jobs)
        return self._under_savepoint(request.jobs)

    def _plain(self, jobs: Sequence[NewJob]) -> list[Added] | PenstockError:
        try:
            known = {job.id: self._known_answer(job) for job in jobs if job.id in self._known}
            if self._step.has_bounds:
                self._check_room([job for job in jobs if job.id not in known])
        except JobRefused as refusal:
            return refusal
        return [known.get(job.id) or self._store(job) for job in jobs]

    def flush(self) -> None:
        """Write the gathered jobs."""
        if self._jobs:
            self._step.db.executemany(SQL["add_job"], self._jobs)
        if self._ready:
            self._step.db.executemany(SQL["add_ready"], self._ready)
        self._jobs, self._ready = [], []

    def follow_up(self, job: NewJob) -> None:
        """Store a job outside every bound; one that is known, or whose key is held, is passed over."""
        self._under_savepoint((job,), bounded=False)

    # -- known jobs ---------------------------------------------------------------------------------------------------

    def _find_known(self, requests: Sequence[AddRequest]) -> dict[JobId, tuple[str, bytes]]:
        ids = [job.id for request in requests for job in request.jobs]
        if len(ids) == 1:
            rows = self._step.db.execute(SQL["known_id"], {"id": ids[0]})
        else:
            rows = self._step.db.execute(SQL["known_ids"], {"ids": texts(ids)})
        return {row[0]: self._content(row) for row in rows.fetchall()}

    def _content(self, row: tuple[Any, ...]) -> tuple[str, bytes]:
        """Give what a job that is added again must have in common with the one that is known."""
        _, lane, envelope, stage, details = row
        task = self._step.lane_key(lane).task
        return origin_of(details_in(details), task) if stage else task, envelope

    def _known_answer(self, job: NewJob) -> Added | None:
        known = self._known.get(job.id)
        if known is None:
            return None
        if known != (job.task, job.envelope):
            raise IdempotencyConflict(job.id, job.id)
        return Added(job.id, existing=True)

    def _parent_lives(self, id: JobId, fence: Fence) -> bool:
        return self._step.db.execute(SQL["live_claim"], (fence.token, fence.number, id)).fetchone() is not None

    # -- capacity -----------------------------------------------------------------------------------------------------

    def _check_room(self, jobs: Sequence[NewJob], *, stored: bool = False) -> None:
        """Refuse what would take a queue over its bound; `stored` says the jobs are counted in this step already."""
        if not self._step.has_bounds:
            return
        queues = dict.fromkeys(job.queue for job in jobs)
        for queue in queues:
            if self._bounded.get(queue) is False:
                continue
            row = self._step.db.execute(SQL["bounded_queue"], (queue,)).fetchone()
            self._bounded[queue] = row is not None
            if row is not None:
                adding = 0 if stored else sum(job.queue == queue for job in jobs)
                self._check_queue(queue, row[0], row[1], adding)

    def _check_queue(self, queue: str, limit: int, rate: float, adding: int) -> None:
        unfinished = int(self._step.db.execute(SQL["unfinished"], (queue,)).fetchone()[0])
        over = unfinished + self._step.counted(queue) + adding - limit
        if over > 0:
            raise QueueFull(queue, limit, retry_after_s(over, rate))

    # -- storing ------------------------------------------------------------------------------------------------------

    def _store(self, job: NewJob) -> Added:
        step = self._step
        due = due_ms(job, step.now_ms)
        lane = step.lane(LaneKey(job.queue, job.task, job.fair_key, alone=False))
        seq = step.draw_seq() if due is None else 0
        self._jobs.append(
            (
                job.id,
                lane,
                -job.priority,
                seq,
                step.policy(job.policy),
                job.crc,
                step.now_ms,
                due,
                expires_ms(job, step.now_ms),
                details_out(job.details),
                job.envelope,
            )
        )
        if due is None:
            self._ready.append((lane, -job.priority, seq, job.id, step.now_ms))
            step.count(lane, State.READY, 1)
            step.work = True
        else:
            step.count(lane, State.SCHEDULED, 1)
            step.due = True
        self._known[job.id] = (job.task, job.envelope)
        return Added(job.id)

    # -- keys ---------------------------------------------------------------------------------------------------------

    def _under_savepoint(self, jobs: Sequence[NewJob], *, bounded: bool = True) -> list[Added] | PenstockError:
        """Decide job by job in the tables; a refusal takes the whole request back."""
        self.flush()
        step, known = self._step, dict(self._known)
        before = step.remember()
        step.db.execute("SAVEPOINT request")
        try:
            answers = [self._keyed(job) for job in jobs]
            if bounded:
                stored = {answer.id for answer in answers if not answer.existing}
                self._check_room([job for job in jobs if job.id in stored], stored=True)
        except JobRefused as refusal:
            step.db.execute("ROLLBACK TO request")
            step.restore(before)
            self._known, self._jobs, self._ready = known, [], []
            return refusal
        finally:
            step.db.execute("RELEASE request")
        return answers

    def _keyed(self, job: NewJob) -> Added:
        answer = self._known_answer(job) or self._key_answer(job)
        if answer is not None:
            return answer
        unique = job.details.unique
        if unique is not None:
            answer = self._unique_answer(job, unique)
            if answer is not None:
                return answer
        self._hold_keys(job)
        answer = self._store(job)
        self.flush()
        return answer

    def _key_answer(self, job: NewJob) -> Added | None:
        key = job.details.idempotency_key
        if key is None:
            return None
        row = self._step.db.execute(SQL["key_holder"], (key,)).fetchone()
        known = row and self._step.db.execute(SQL["known_id"], {"id": row[0]}).fetchone()
        if not known:
            return None
        if self._content(known) != (job.task, job.envelope):
            raise IdempotencyConflict(key, known[0])
        return Added(JobId(known[0]), existing=True)

    def _unique_answer(self, job: NewJob, unique: Unique) -> Added | None:
        row = self._step.db.execute(SQL["unique_holder"], (unique.key, self._step.now_ms)).fetchone()
        if row is None:
            return None
        if unique.clash == "refuse":
            raise UniqueConflict(unique.key, row[0])
        if unique.clash == "replace" and self._replaced(row[0], job.id):
            return None
        return Added(JobId(row[0]), existing=True)

    def _replaced(self, holder: str, successor: str) -> bool:
        """Cancel a holder that still waits; a running one, or an ended one within its window, is left alone."""
        waiting = find_waiting(self._step, holder)
        if waiting is None:
            return False
        error = ErrorInfo("cancelled", message=f"replaced by {successor}")
        end_waiting(self._step, [waiting], State.CANCELLED, error)
        return True

    def _hold_keys(self, job: NewJob) -> None:
        unique, key = job.details.unique, job.details.idempotency_key
        if unique is not None:
            free_ms = self._step.now_ms + unique.window_ms if unique.until == "window" else None
            self._step.db.execute(SQL["hold_unique"], (unique.key, job.id, free_ms))
        if key is not None:
            self._step.db.execute(SQL["add_key"], (key, job.id))


def _is_plain(jobs: Sequence[NewJob]) -> bool:
    """Whether no job of a request can clash with another: no keys, no id twice."""
    for job in jobs:
        details = job.details
        if details is not NO_DETAILS and (details.unique is not None or details.idempotency_key is not None):
            return False
    return len(jobs) == 1 or len({job.id for job in jobs}) == len(jobs)
