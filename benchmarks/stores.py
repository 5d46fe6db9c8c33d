"""Stores in the state that a measurement begins with: filled, with a history, copied."""

import shutil
from collections.abc import Generator, Iterator
from itertools import count as numbers
from typing import Any

from msgspec.structs import replace

from benchmarks.places import Place, file_of
from benchmarks.tasks import app
from penstock import Task
from penstock.engine import MOST_AT_ONCE, AddRequest, Engine, Want, WorkerInfo
from penstock.engines.open import open_engine
from penstock.model.job import Claim, NewJob, ProcessId
from penstock.model.outcome import Ending, Outcome
from penstock.model.settle import settle
from penstock.model.states import State
from penstock.task import new_id

__all__ = ["Store", "complete", "exchanges", "jobs_of"]

_PROCESS = ProcessId("benchmark")
_DONE = Outcome(ending=Ending.SUCCEEDED, result=b"7", ran_us=1)


class Store:
    """One store of penstock's, looked at beside its workers."""

    def __init__(self, place: Place, name: str, *, keep: int | None = None, like: "Store | None" = None) -> None:
        """Make a store; `like` another, so that each round begins with the same jobs."""
        self._place, self._filled = place, list[tuple[Task[..., Any], int]]()
        self.url = place.make(name)
        is_copied = like is not None and _copy_file(like, self.url)
        self.url += "" if keep is None else f"?keep_jobs={keep}"
        self.engine: Engine = open_engine(self.url)
        if like is not None and not is_copied:
            for task, count in like._filled:
                self.fill(task, count)

    def fill(self, task: Task[..., Any], count: int) -> None:
        """Add jobs of a task; they differ by their ids alone."""
        self._filled.append((task, count))
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

    def remove(self) -> None:
        self.engine.close()
        self._place.remove(self.url)

    def use(self) -> None:
        """Let the application of the measured tasks enqueue here."""
        app.redirect(self.url)


def _copy_file(store: Store, url: str) -> bool:
    """Copy the file that a store is, which closes it; False if it is none."""
    file, copied = file_of(store.url), file_of(url)
    if file is None or copied is None:
        return False
    store.engine.close()
    shutil.copyfile(file, copied)
    return True


def jobs_of(task: Task[..., Any], count: int) -> Iterator[tuple[NewJob, ...]]:
    """Make jobs in portions that one request takes."""
    model = task.new_job((7,), {})
    for start in range(0, count, MOST_AT_ONCE):
        portion = min(MOST_AT_ONCE, count - start)
        yield tuple(replace(model, id=new_id()) for _ in range(portion))


def complete(engine: Engine, task: Task[..., Any], count: int, batch: int = MOST_AT_ONCE) -> Iterator[int]:
    """Claim and end jobs in this thread, with nothing in between; gives how many have ended after each exchange."""
    done = given = 0
    for claimed in exchanges(engine, task, batch):
        done, given = given, given + claimed
        yield done
        if done >= count:
            return
        if not claimed:
            raise RuntimeError(f"The store gave out {given} of {count} jobs.")


def exchanges(
    engine: Engine, task: Task[..., Any], batch: int, *, process: ProcessId = _PROCESS
) -> Generator[int, None, None]:
    """End what the last exchange gave out and claim the next, for ever; gives how many each gave out."""
    engine.enrol(WorkerInfo(id=process), [process])
    want = Want(tasks={task.name: "thread"}, free={"thread": batch}, limit=batch)
    claims: tuple[Claim, ...] = ()
    for beat in numbers(1):
        changes = [settle(claim, _DONE, 0.0) for claim in claims]
        claims = engine.exchange(process, beat, changes, want).claims
        yield len(claims)
