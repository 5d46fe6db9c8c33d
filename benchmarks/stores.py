"""Stores in the state that a measurement begins with: filled, with a history, copied."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks.tasks import app
from penstock import Task
from penstock.engine import MOST_AT_ONCE, AddRequest, Engine, Want, WorkerInfo
from penstock.engines.open import open_engine
from penstock.model.job import Claim, NewJob, ProcessId
from penstock.model.outcome import Ending, Outcome
from penstock.model.settle import settle
from penstock.model.states import State
from penstock.task import new_id

__all__ = ["Store", "complete", "jobs_of"]

_PROCESS = ProcessId("benchmark")
_DONE = Outcome(ending=Ending.SUCCEEDED, result=b"7", ran_us=1)


class Store:
    """One penstock file, looked at beside its workers."""

    def __init__(self, file: Path, *, keep: int | None = None) -> None:
        self.file = file
        self.url = f"sqlite:///{file}" + ("" if keep is None else f"?keep_jobs={keep}")
        self.engine: Engine = open_engine(self.url)

    def fill(self, task: Task[..., Any], count: int) -> None:
        """Add jobs of a task; they differ by their ids alone."""
        for jobs in jobs_of(task, count):
            self.engine.add([AddRequest(jobs)])

    def complete(self, task: Task[..., Any], count: int) -> None:
        """Add jobs and end them as a worker would, so that the store has a history."""
        self.fill(task, count)
        for _ in complete(self.engine, task, count):
            continue

    def count(self, *states: State) -> tuple[int, ...]:
        """Count jobs by state in one look, by what the engine keeps at write time."""
        counts = [one.states for one in self.engine.counts()]
        return tuple(sum(one.get(state, 0) for one in counts) for state in states)

    def completed(self) -> int:
        return self.count(State.SUCCEEDED)[0]

    def copy(self, file: Path) -> "Store":
        """Copy the file, so that each round begins with the same jobs."""
        self.engine.close()
        shutil.copyfile(self.file, file)
        return Store(file)

    def remove(self) -> None:
        self.engine.close()
        self.file.unlink(missing_ok=True)
        shutil.rmtree(self.file.with_name(f"{self.file.name}-penstock"), ignore_errors=True)

    def use(self) -> None:
        """Let the application of the measured tasks enqueue here."""
        app.redirect(self.url)


def jobs_of(task: Task[..., Any], count: int) -> Iterator[tuple[NewJob, ...]]:
    """Make jobs in portions that one request takes."""
    model = task.new_job((7,), {})
    for start in range(0, count, MOST_AT_ONCE):
        portion = min(MOST_AT_ONCE, count - start)
        yield tuple(replace(model, id=new_id()) for _ in range(portion))


def complete(engine: Engine, task: Task[..., Any], count: int, batch: int = MOST_AT_ONCE) -> Iterator[int]:
    """Claim and end jobs in this thread, with nothing in between; gives how many have ended after each exchange."""
    engine.enrol(WorkerInfo(id="benchmark"), [_PROCESS])
    want = Want(tasks={task.name: "thread"}, free={"thread": batch}, limit=batch)
    claims: tuple[Claim, ...] = ()
    beat = ended = 0
    while ended < count:
        beat += 1
        changes = [settle(claim, _DONE, 0.0) for claim in claims]
        claims = engine.exchange(_PROCESS, beat, changes, want).claims
        ended += len(changes)
        yield ended
        if not claims and ended < count:
            raise RuntimeError(f"The store gave out {ended} of {count} jobs.")
