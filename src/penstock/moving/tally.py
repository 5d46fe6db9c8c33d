"""What a move found and what became of it, by queue."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.model.job import Job, JobId

__all__ = ["Line", "Refusal", "Tally"]

#: How many jobs that were left are named; the others are counted.
NAMED = 20


class Refusal(NamedTuple):
    """A job that was left where it was, and why."""

    id: JobId
    queue: str
    why: str


@dataclass(slots=True)
class Line:
    """One queue: `found` is counted when a job is read, the others when it is known what became of it.

    Attributes:
        there: the target knew them already, so they were only taken out of the source.
    """

    found: int = 0
    moved: int = 0
    there: int = 0
    left: int = 0

    @property
    def adds_up(self) -> bool:
        return self.found == self.moved + self.there + self.left


@dataclass(slots=True)
class Tally:
    """Counts by queue, and the first jobs that were left.

    Attributes:
        running: jobs that still run in the source, by queue.
        held: queues of the source that stay paused because of the move.
    """

    queues: defaultdict[str, Line] = field(default_factory=lambda: defaultdict(Line))
    refusals: list[Refusal] = field(default_factory=list)
    running: Counter[str] = field(default_factory=Counter)
    held: tuple[str, ...] = ()

    def find(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.queues[job.queue].found += 1

    def move(self, job: Job) -> None:
        self.queues[job.queue].moved += 1

    def know(self, job: Job) -> None:
        self.queues[job.queue].there += 1

    def leave(self, job: Job, why: str) -> None:
        self.queues[job.queue].left += 1
        if len(self.refusals) < NAMED:
            self.refusals.append(Refusal(job.id, job.queue, why))

    def go_on(self, lap: "Tally") -> None:
        """Add a later lap, which found again what the laps before had left."""
        for line in self.queues.values():
            line.found, line.left = line.found - line.left, 0
        self.refusals = []
        self.add(lap)

    def add(self, other: "Tally") -> None:
        """Add what was found elsewhere."""
        for name, more in other.queues.items():
            line = self.queues[name]
            line.found, line.left = line.found + more.found, line.left + more.left
            line.moved, line.there = line.moved + more.moved, line.there + more.there
        self.refusals = (self.refusals + other.refusals)[:NAMED]

    def total(self) -> Line:
        """Give the sums over all queues."""
        lines = self.queues.values()
        return Line(
            sum(line.found for line in lines),
            sum(line.moved for line in lines),
            sum(line.there for line in lines),
            sum(line.left for line in lines),
        )
