"""What a person does about buried jobs: see which failed alike, try one, and retry many without a rush."""

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from penstock.engine import MOST_AT_ONCE, Engine, Filter, Group
from penstock.model.job import ErrorInfo, Job, JobId

__all__ = ["JobGroup", "describe", "read_groups", "read_ids", "spread_out", "user_and_host"]

#: Samples are whole jobs, whose arguments may be long.
_SAMPLES_AT_ONCE = 100
#: At how many moments at least the jobs of a long line become ready; it is one call of the store for each.
_MOMENTS = 1000


class JobGroup(Struct, frozen=True, kw_only=True):
    """Buried jobs of one task in one queue that failed alike: by the same exception, raised in the same function.

    Attributes:
        error: that of the sample.
        count: how many jobs are in it now.
        first_ms, last_ms: when the first and the last of them were buried, ms since the epoch.
        sample: the id of one of them.
    """

    id: str
    queue: str
    task: str
    error: ErrorInfo
    count: int
    first_ms: int
    last_ms: int
    sample: JobId


def read_groups(engine: Engine, queue: str | None = None, task: str | None = None) -> list[JobGroup]:
    """Read the groups of buried jobs, the one whose last job was buried last first; of one queue or task if named."""
    found = [
        group
        for group in describe(engine, engine.groups())
        if queue in (None, group.queue) and task in (None, group.task)
    ]
    return sorted(found, key=lambda group: (-group.last_ms, group.id))


def describe(engine: Engine, groups: Sequence[Group]) -> list[JobGroup]:
    """Say of each group what its sample tells; one whose sample is gone meanwhile is left out."""
    described: list[JobGroup] = []
    for start in range(0, len(groups), _SAMPLES_AT_ONCE):
        some = groups[start : start + _SAMPLES_AT_ONCE]
        for group, job in zip(some, engine.get([group.sample for group in some]), strict=True):
            if job is not None and job.error is not None and job.group == group.id:
                described.append(_described(group, job, job.error))
    return described


def _described(group: Group, job: Job, error: ErrorInfo) -> JobGroup:
    return JobGroup(
        id=group.id,
        queue=job.queue,
        task=job.task,
        error=error,
        count=group.count,
        first_ms=group.first_ms,
        last_ms=group.last_ms,
        sample=group.sample,
    )


def read_ids(engine: Engine, which: Filter) -> list[JobId]:
    """Give the ids of all jobs that match, oldest first."""
    ids: list[JobId] = []
    before = which.before
    while True:
        page = engine.find(replace(which, before=before, limit=MOST_AT_ONCE))
        ids += [job.id for job in page.jobs]
        before = page.next
        if before is None:
            return ids[::-1]


def spread_out(ids: Sequence[JobId], delay_ms: int, span_ms: int) -> Iterator[tuple[Sequence[JobId], int]]:
    """Divide jobs evenly over a span of time that begins after a delay; gives some of them with the delay of these.

    At most 1,000 go together, and there are at most 1,000 moments unless there are over a million jobs.

    >>> list(spread_out(["a", "b", "c"], 0, 3000))
    [(['a'], 0), (['b'], 1000), (['c'], 2000)]
    """
    count = len(ids)
    least = -(-count // MOST_AT_ONCE)
    moments = max(least, min(count, _MOMENTS) if span_ms else least)
    for number in range(moments):
        some = ids[number * count // moments : (number + 1) * count // moments]
        yield some, delay_ms + span_ms * number // moments


def user_and_host() -> str:
    """Name who does something by hand, as `ada@desk`."""
    import getpass
    import os
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
