"""What can be asked of the store without changing it. The read connection sees the latest commit."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from penstock.engine import Counts, Filter, Group, Page, QueueInfo, WorkerView
from penstock.engines.forms import counters_in, details_in, history_in, progress_in
from penstock.engines.matching import narrowed
from penstock.engines.sqlite.queries import SQL
from penstock.engines.sqlite.step import COUNTED, Catalog, numbers, texts
from penstock.engines.views import views_of
from penstock.model.job import Job, JobId, ProcessId
from penstock.model.states import FINAL, State

_HOT = SQL["hot_columns"]
_COLD = SQL["cold_columns"]
_UNFINISHED = frozenset(State) - FINAL
_BURIED = frozenset({State.BURIED})


class Reading:
    """Reads jobs within one snapshot."""

    def __init__(self, db: sqlite3.Connection, catalog: Catalog) -> None:
        self._db, self._catalog = db, catalog

    def get(self, ids: Sequence[JobId]) -> list[Job | None]:
        wanted = (texts(ids),)
        hot = self._db.execute(f"SELECT {_HOT} FROM jobs j WHERE id IN (SELECT value FROM json_each(?))", wanted)
        jobs = {job.id: job for job in self._hot_jobs(hot.fetchall())}
        if len(jobs) < len(ids):
            cold = self._db.execute(f"SELECT {_COLD} FROM ended j WHERE id IN (SELECT value FROM json_each(?))", wanted)
            jobs.update((job.id, job) for job in map(self._cold_job, cold.fetchall()))
        return [jobs.get(id) for id in ids]

    def find(self, which: Filter) -> Page:
        """Give the newest jobs that match; one more is read to know whether a page follows."""
        which = narrowed(which)
        conditions, parameters = self._conditions(which)
        jobs: list[Job] = []
        if (which.states is None or which.states & _UNFINISHED) and which.degraded is not True:
            jobs += self._find_hot(which, conditions, parameters)
        if which.states is None or which.states & FINAL:
            jobs += self._find_cold(which, conditions, parameters)
        jobs.sort(key=lambda job: job.id, reverse=True)
        page = tuple(jobs[: which.limit])
        return Page(page, page[-1].id if len(jobs) > which.limit else None)

    def _find_hot(self, which: Filter, conditions: list[str], parameters: list[object]) -> list[Job]:
        source = "jobs j"
        states = _UNFINISHED if which.states is None else which.states & _UNFINISHED
        ready = "EXISTS (SELECT 1 FROM ready r WHERE r.lane = j.lane AND r.rank = j.rank AND r.seq = j.seq)"
        standing = {
            State.SCHEDULED: "j.due_ms IS NOT NULL",
            State.READY: f"(j.due_ms IS NULL AND {ready})",
            State.RUNNING: f"(j.due_ms IS NULL AND NOT {ready})",
        }
        if states == {State.RUNNING}:
            source = "(SELECT DISTINCT id AS held FROM claims) CROSS JOIN jobs j ON j.id = held"
        elif states == {State.SCHEDULED}:
            source = "jobs j INDEXED BY jobs_due"
        wanted = [clause for state, clause in standing.items() if state in states]
        clauses = [*conditions, f"({' OR '.join(wanted)})" if wanted else "0"]
        query = f"SELECT {_HOT} FROM {source} WHERE {' AND '.join(clauses)} ORDER BY j.id DESC LIMIT ?"
        return self._hot_jobs(self._db.execute(query, (*parameters, which.limit + 1)).fetchall())

    def _find_cold(self, which: Filter, conditions: list[str], parameters: list[object]) -> list[Job]:
        clauses, values = list(conditions), list(parameters)
        if which.states == _BURIED:
            clauses.append("j.forget_ms IS NULL")
        elif which.states is not None:
            clauses.append("j.state IN (SELECT value FROM json_each(?))")
            values.append(texts(which.states))
        if which.degraded is not None:
            clauses.append("j.degraded IS NOT NULL" if which.degraded else "j.degraded IS NULL")
        source = "ended j INDEXED BY ended_buried" if which.states == _BURIED else "ended j"
        if which.group is not None and which.states == _BURIED:
            source = "ended j INDEXED BY ended_groups"
            clauses.append("j.grp = ?")
            values.append(which.group)
        where = " AND ".join(clauses) or "1"
        query = f"SELECT {_COLD} FROM {source} WHERE {where} ORDER BY j.id DESC LIMIT ?"
        return [self._cold_job(row) for row in self._db.execute(query, (*values, which.limit + 1)).fetchall()]

    def _conditions(self, which: Filter) -> tuple[list[str], list[object]]:
        clauses: list[str] = []
        values: list[object] = []
        if which.ids is not None:
            clauses.append("j.id IN (SELECT value FROM json_each(?))")
            values.append(texts(which.ids))
        if which.before is not None:
            clauses.append("j.id < ?")
            values.append(which.before)
        if which.queue is not None or which.task is not None:
            lanes = self._db.execute(SQL["lanes_where"], {"queue": which.queue, "task": which.task}).fetchall()
            clauses.append("j.lane IN (SELECT value FROM json_each(?))")
            values.append(numbers(row[0] for row in lanes))
        if which.tag is not None:
            clauses.append("EXISTS (SELECT 1 FROM json_each(j.details, '$.tags') t WHERE t.value = ?)")
            values.append(which.tag)
        if which.text is not None:
            clauses.append(
                "(instr(lower(j.id), lower(?)) OR instr(lower(CAST(j.envelope AS TEXT)), lower(?))"
                " OR NOT j.forgiven AND instr(lower(json_extract(CAST(j.history AS TEXT), '$[#-1]')), lower(?)))"
            )
            values += [which.text] * 3
        return clauses, values

    def _hot_jobs(self, rows: list[tuple[Any, ...]]) -> list[Job]:
        running = texts(row[0] for row in rows if row[7] is None and not row[21])
        claims = {row[0]: row[1:] for row in self._db.execute(SQL["running"], (running,)).fetchall()}
        return [self._hot_job(row, claims.get(row[0])) for row in rows]

    def _hot_job(self, row: tuple[Any, ...], claim: tuple[int, int, str] | None) -> Job:
        key = self._catalog.lane_key(self._db, row[1])
        history = history_in(row[18])
        number, claimed_ms, process = claim or (row[10], row[14], row[16])
        state = State.SCHEDULED if row[7] is not None else State.READY if row[21] else State.RUNNING
        return Job(
            id=row[0],
            state=state,
            task=key.task,
            queue=key.queue,
            envelope=row[20],
            crc=row[5],
            priority=-row[2],
            fair_key=key.fair_key,
            policy=self._catalog.policy_value(self._db, row[4]),
            details=details_in(row[9]),
            counters=counters_in(row[13]),
            claim_number=number,
            stage=row[11],
            cancel_requested=bool(row[12]),
            created_ms=row[6],
            due_ms=row[7],
            expires_ms=row[8],
            claimed_ms=claimed_ms,
            ran_us=row[15],
            error=history[-1] if history and not row[19] else None,
            history=history,
            progress=progress_in(row[17]),
            process=ProcessId(process) if process else None,
        )

    def _cold_job(self, row: tuple[Any, ...]) -> Job:
        key = self._catalog.lane_key(self._db, row[2])
        history = history_in(row[17])
        return Job(
            id=row[0],
            state=State(row[1]),
            task=key.task,
            queue=key.queue,
            envelope=row[19],
            crc=row[5],
            priority=-row[3],
            fair_key=key.fair_key,
            policy=self._catalog.policy_value(self._db, row[4]),
            details=details_in(row[9]),
            counters=counters_in(row[12]),
            claim_number=row[10],
            stage=row[11],
            created_ms=row[6],
            ended_ms=row[7],
            expires_ms=row[8],
            claimed_ms=row[13],
            ran_us=row[14],
            error=history[-1] if history and not row[18] else None,
            history=history,
            progress=progress_in(row[16]),
            result=row[20],
            degraded=row[21],
            process=row[15],
        )


def read_counts(db: sqlite3.Connection) -> list[Counts]:
    found: dict[tuple[str, str], dict[State, int]] = {}
    for queue, task, what, count in db.execute(SQL["counts"]).fetchall():
        found.setdefault((queue, task), {})[COUNTED[what]] = count
    return [Counts(queue, task, states) for (queue, task), states in found.items()]


def read_groups(db: sqlite3.Connection) -> list[Group]:
    return [Group(*row) for row in db.execute(SQL["groups"]).fetchall()]


def read_queues(db: sqlite3.Connection, now_ms: int) -> list[QueueInfo]:
    return [
        QueueInfo(
            name=name,
            paused=bool(paused),
            max_jobs=max_jobs,
            unfinished=int(unfinished),
            rate=rate,
            oldest_ms=_age(db, name, now_ms),
        )
        for name, paused, max_jobs, rate, unfinished in db.execute(SQL["queues"]).fetchall()
    ]


def _age(db: sqlite3.Connection, queue: str, now_ms: int) -> int | None:
    since_ms = db.execute(SQL["oldest_ready"], (queue,)).fetchone()[0]
    return None if since_ms is None else max(0, now_ms - since_ms)


def read_workers(db: sqlite3.Connection, steady_ms: int, boot: str) -> list[WorkerView]:
    return views_of(db.execute(SQL["workers"]).fetchall(), steady_ms, boot)
