"""Short ways to drive a file and to look at it from outside."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from penstock.engine import AddRequest, Filter, WorkerInfo
from penstock.engines.sqlite import SqliteEngine
from penstock.model.errors import PenstockError
from penstock.model.job import Job, JobId, NewJob, ProcessId
from penstock.model.states import State
from penstock.testing.conformance.trial import change, new_job, want

P1 = ProcessId("p1")


def opened(path: str | Path, *, timeout_s: float = 5.0, durability: str = "normal") -> SqliteEngine:
    return SqliteEngine(path, durability=durability, timeout_s=timeout_s)


def enrol(engine: SqliteEngine, process: str = "p1", lease_ms: int = 60_000) -> ProcessId:
    engine.enrol(WorkerInfo(id=f"worker of {process}", lease_ms=lease_ms), [ProcessId(process)])
    return ProcessId(process)


def add(engine: SqliteEngine, *jobs: NewJob) -> None:
    """Store jobs in one request, or raise why not."""
    [answer] = engine.add([AddRequest(jobs)])
    if isinstance(answer, PenstockError):
        raise answer


def add_one(engine: SqliteEngine, id: str | None = None, **fields: Any) -> JobId:
    job = new_job(id, **fields)
    add(engine, job)
    return job.id


def run_all(engine: SqliteEngine, process: ProcessId = P1, beat: int = 1, limit: int = 1000) -> int:
    """Claim and finish in rounds until nothing is ready; answers the number of finished jobs."""
    finished, changes = 0, ()
    while True:
        answer = engine.exchange(process, beat, changes, want(limit=limit))
        beat += 1
        finished += len(changes) - len(answer.late)
        changes = tuple(change(claim) for claim in answer.claims)
        if not changes:
            return finished


def is_stored(engine: SqliteEngine, id: str) -> bool:
    return engine.get([JobId(id)])[0] is not None


def stored_ids(engine: SqliteEngine) -> set[str]:
    return {job.id for job in all_jobs(engine)}


def all_jobs(engine: SqliteEngine) -> Iterator[Job]:
    """Read page by page; jobs that are added meanwhile do not disturb the order."""
    before = None
    while True:
        page = engine.find(Filter(limit=1000, before=before))
        yield from page.jobs
        before = page.next
        if before is None:
            return


def assert_sound(path: str | Path) -> None:
    """Check the file with SQLite's own means, then that every counter equals a recount."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert (
            db.execute("SELECT count(*) FROM ready r LEFT JOIN jobs j ON j.id = r.id WHERE j.id IS NULL").fetchone()[0]
            == 0
        )
        orphans = "SELECT count(*) FROM ready r LEFT JOIN jobs j ON j.id = r.id WHERE j.id IS NULL"
        assert db.execute(orphans).fetchone()[0] == 0
    engine = opened(path)
    counted: Counter[tuple[str, State]] = Counter()
    for row in engine.counts():
        for state, count in row.states.items():
            counted[row.queue, state] += count
    assert counted == Counter((job.queue, job.state) for job in all_jobs(engine))
    engine.close()
