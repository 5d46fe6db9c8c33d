"""What can be asked of the store without changing it; each answer is of one moment."""

from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.engine import Counts, Filter, Group, Page, QueueInfo, WorkerView
from penstock.engines.forms import counters_in, details_in, progress_in
from penstock.engines.matching import narrowed
from penstock.engines.postgres import wire
from penstock.engines.postgres.catalog import Catalog
from penstock.engines.postgres.store import Row, Store
from penstock.engines.views import views_of
from penstock.model.job import ErrorInfo, Job, JobId, ProcessId
from penstock.model.states import FINAL, State

_UNFINISHED = frozenset(State) - FINAL
_COUNTED = (
    State.SCHEDULED,
    State.READY,
    State.RUNNING,
    State.SUCCEEDED,
    State.CANCELLED,
    State.EXPIRED,
    State.BURIED,
)
_decode_error = msgspec.json.Decoder(ErrorInfo).decode

# Bytes as characters one by one, so that any of them can be searched, in ASCII's lower case only.
_FOLDED = "lower(convert_from({}, 'LATIN1') COLLATE \"C\")"


class Reading:
    """Reads jobs."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store, self._catalog = store, catalog
        self._hot, self._cold = (store.sql[name].decode() for name in ("hot", "cold"))
        self._schema = store.placed("penstock.")

    def get(self, ids: Sequence[JobId]) -> list[Job | None]:
        wanted = wire.texts(ids)
        query = f"{self._hot} WHERE j.id = ANY (%s) UNION ALL {self._cold} WHERE j.id = ANY (%s)"
        jobs = {job.id: job for job in self._jobs(self._store.query(query, wanted, wanted))}
        return [jobs.get(id) for id in ids]

    def find(self, which: Filter) -> Page:
        """Give the newest jobs that match; one more is read to know whether a page follows."""
        which = narrowed(which)
        parts: list[str] = []
        values: list[Any] = []
        states = frozenset(State) if which.states is None else which.states
        for source in (self._hot_source(states), self._cold_source(states)):
            if source is None:
                continue
            conditions, parameters = self._conditions(which)
            if which.degraded is not None:
                conditions.append("s.degraded IS NOT NULL" if which.degraded else "s.degraded IS NULL")
            if which.states is not None:
                conditions.append("s.state = ANY (%s)")
                parameters.append(wire.texts(sorted(states)))
            where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
            if which.group is not None:
                source, parameters = f"{source} AND j.grp = %s", [which.group, *parameters]
            parts.append(f"(SELECT s.* FROM ({source}) s {where} ORDER BY s.id DESC LIMIT %s)")
            values += [*parameters, which.limit + 1]
        if not parts:
            return Page((), None)
        query = f"SELECT * FROM ({' UNION ALL '.join(parts)}) u ORDER BY id DESC LIMIT %s"
        jobs = self._jobs(self._store.query(query, *values, which.limit + 1))
        page = tuple(jobs[: which.limit])
        return Page(page, page[-1].id if len(jobs) > which.limit else None)

    def _hot_source(self, states: frozenset[State]) -> str | None:
        wanted = states & _UNFINISHED
        if not wanted:
            return None
        if wanted == {State.RUNNING}:
            return f"{self._hot} WHERE j.id IN (SELECT h.id FROM {self._schema}claims h)"
        if wanted == {State.SCHEDULED}:
            return f"{self._hot} WHERE j.due_ms IS NOT NULL"
        return self._hot

    def _cold_source(self, states: frozenset[State]) -> str | None:
        wanted = states & FINAL
        if not wanted:
            return None
        return f"{self._cold} WHERE j.forget_ms IS NULL" if wanted == {State.BURIED} else self._cold

    def _conditions(self, which: Filter) -> tuple[list[str], list[Any]]:
        conditions: list[str] = []
        values: list[Any] = []

        def add(condition: str, *parameters: Any) -> None:
            conditions.append(condition)
            values.extend(parameters)

        if which.ids is not None:
            add("s.id = ANY (%s)", wire.texts(which.ids))
        if which.before is not None:
            add("s.id < %s", which.before)
        lines = f"s.line IN (SELECT l.line FROM {self._schema}lines l WHERE"
        if which.queue is not None:
            add(f"{lines} l.queue = %s)", which.queue)
        if which.task is not None:
            add(f"{lines} l.task = %s)", which.task)
        if which.tag is not None:
            tag = msgspec.json.encode(which.tag).decode()
            add(
                "EXISTS (SELECT FROM json_array_elements(convert_from(s.details, 'UTF8')::json -> 'tags') t"
                " WHERE t.value::text = %s)",
                tag,
            )
        if which.text is not None:
            self._add_text(which.text, add)
        return conditions, values

    def _add_text(self, text: str, add: Any) -> None:
        needle = text.encode("utf-8", "surrogatepass").replace(b"\0", b"")
        error = _FOLDED.format("s.history[cardinality(s.history)]")
        found = f"position({_FOLDED.format('%s::bytea')} in "
        envelope = _FOLDED.format("CASE WHEN position('\\x00'::bytea in s.envelope) = 0 THEN s.envelope ELSE '' END")
        add(
            f'({found} lower(s.id COLLATE "C")) > 0 OR {found} {envelope}) > 0'
            f" OR NOT s.forgiven AND {found} {error}) > 0)",
            needle,
            needle,
            needle,
        )

    def _jobs(self, rows: Sequence[Row]) -> list[Job]:
        lines = self._catalog.line_keys({row[2] for row in rows})
        policies = self._catalog.policy_values({row[3] for row in rows})
        jobs = []
        for row in rows:
            (id, state, line, policy, crc, created_ms, due_ms, expires_ms, details, claims, stage, cancel, counters,
             claimed_ms, ran_us, process, progress, history, forgiven, envelope, ended_ms, result,
             degraded) = row  # fmt: skip
            errors = tuple(_decode_error(error) for error in history or ())
            jobs.append(
                Job(
                    id=id,
                    state=State(state),
                    task=lines[line].task,
                    queue=lines[line].queue,
                    envelope=envelope,
                    crc=crc,
                    priority=-lines[line].rank,
                    fair_key=lines[line].fair_key,
                    policy=policies[policy],
                    details=details_in(details),
                    counters=counters_in(counters),
                    claim_number=claims,
                    stage=stage,
                    cancel_requested=cancel,
                    created_ms=created_ms,
                    due_ms=due_ms,
                    expires_ms=expires_ms,
                    claimed_ms=claimed_ms,
                    ended_ms=ended_ms,
                    ran_us=ran_us,
                    error=errors[-1] if errors and not forgiven else None,
                    history=errors,
                    progress=progress_in(progress),
                    result=result,
                    degraded=degraded,
                    process=ProcessId(process) if process is not None else None,
                )
            )
        return jobs


def read_counts(store: Store) -> list[Counts]:
    """Give the counts that are not zero, by queue and task."""
    rows = [
        (queue, task, {state: count for state, count in zip(_COUNTED, counts, strict=True) if count})
        for queue, task, *counts in store.rows("counts")
    ]
    return [Counts(queue, task, states) for queue, task, states in rows if states]


def read_groups(store: Store) -> list[Group]:
    """Give the groups of buried jobs, by id."""
    return [Group(*row) for row in store.rows("groups")]


def read_queues(store: Store, now_ms: int) -> list[QueueInfo]:
    """Give every queue that holds jobs or has a switch set, by name."""
    return [
        QueueInfo(
            name=name,
            paused=paused,
            max_jobs=max_jobs,
            unfinished=unfinished,
            rate=rate,
            oldest_ms=None if since_ms is None else max(0, now_ms - since_ms),
        )
        for name, paused, max_jobs, rate, unfinished, since_ms in store.rows("queues")
    ]


def read_workers(store: Store, steady_ms: int, boot: str) -> list[WorkerView]:
    """Give every worker whose lease is not void, by id."""
    return views_of(store.rows("workers"), steady_ms, boot)
