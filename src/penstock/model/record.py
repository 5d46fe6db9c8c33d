"""What a process did of late, task by task, and what can be read from it."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

__all__ = ["Record", "TaskRecord", "add_up", "dearer_than_work", "fails_what_others_do"]

#: So many of a task's jobs must have failed here, and as many have been done by other workers, to say anything of it.
LEAST = 20
#: The part of its jobs that a worker fails when it is unfit for them, and that others may fail all the same.
MUCH, LITTLE = 0.8, 0.2
#: Of fewer jobs nothing is said about what the queue costs.
LEAST_FOR_COST = 100


class TaskRecord(Struct, omit_defaults=True):
    """Ended attempts of one task.

    Attributes:
        done, failed: how many; those that were given back count in neither.
        ran_us: how long they ran in all, in microseconds.
        queue_us: how long the process that ran them was busy with fetching and delivering them.
    """

    done: int = 0
    failed: int = 0
    ran_us: int = 0
    queue_us: int = 0

    @property
    def ended(self) -> int:
        return self.done + self.failed

    def means_us(self) -> tuple[float, float]:
        """Give how long a job ran, and how long its process was busy with it besides, on average, in microseconds."""
        return self.ran_us / max(self.ended, 1), self.queue_us / max(self.ended, 1)


class Record(Struct, frozen=True):
    """What one process of a worker did in the last minutes, until `at_ms` since the epoch."""

    worker: str
    host: str
    at_ms: int
    tasks: Mapping[str, TaskRecord]


def add_up(records: Iterable[Mapping[str, TaskRecord]]) -> dict[str, TaskRecord]:
    """Add several processes' work together."""
    total: dict[str, TaskRecord] = {}
    for tasks in records:
        for name, one in tasks.items():
            sum_ = total.setdefault(name, TaskRecord())
            sum_.done += one.done
            sum_.failed += one.failed
            sum_.ran_us += one.ran_us
            sum_.queue_us += one.queue_us
    return total


def fails_what_others_do(worker: str, records: Iterable[Record]) -> str | None:
    """Say which task a worker fails although other workers do it well; None if there is none."""
    every = list(records)
    own = add_up(record.tasks for record in every if record.worker == worker)
    others = add_up(record.tasks for record in every if record.worker != worker)
    for task, here in sorted(own.items()):
        there = others.get(task, TaskRecord())
        fails_here = here.failed >= LEAST and here.failed >= MUCH * here.ended
        if fails_here and there.done >= LEAST and there.failed <= LITTLE * there.ended:
            return (
                f"it failed {here.failed:,} of {here.ended:,} jobs of {task} in the last minutes, "
                f"of which other workers did {there.done:,} of {there.ended:,}"
            )
    return None


def dearer_than_work(tasks: Mapping[str, TaskRecord]) -> dict[str, TaskRecord]:
    """Give the tasks whose jobs cost the worker more time around their code than in it, the worst first."""
    found = {name: one for name, one in tasks.items() if one.ended >= LEAST_FOR_COST and one.queue_us > one.ran_us}
    return dict(sorted(found.items(), key=lambda item: item[1].ran_us - item[1].queue_us))
