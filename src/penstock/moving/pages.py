"""Jobs by the page: out of a store, oldest first, in memory that does not grow with their number, and into one."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from msgspec.structs import replace

from penstock.engine import MOST_AT_ONCE, Added, Engine, Filter
from penstock.model.errors import JobRefused, PenstockError, Unsupported
from penstock.model.job import Job, JobId

__all__ = ["load_each", "oldest_first"]


def oldest_first(engine: Engine, which: Filter) -> Iterator[list[Job]]:
    """Give the jobs that match in pages of at most 1,000, in rising order of id.

    Each job that matches throughout is given once, as it was when its page was read. A store gives the newest first;
    so its pages are leafed through once to note where each begins, and read again from the last to the first. What is
    changed, deleted or added meanwhile does not shift them.
    """
    for upper, lower in reversed(list(pairwise(_edges(engine, which)))):
        found = _between(engine, which, upper, lower)
        for start in range(0, len(found), MOST_AT_ONCE):
            yield found[start : start + MOST_AT_ONCE]


def _edges(engine: Engine, which: Filter) -> list[JobId | None]:
    """Give the ids at which pages begin, newest first, None at both ends."""
    edges: list[JobId | None] = [None]
    while True:
        page = engine.find(replace(which, before=edges[-1], limit=MOST_AT_ONCE))
        edges.append(page.next)
        if page.next is None:
            return edges


def _between(engine: Engine, which: Filter, upper: JobId | None, lower: JobId | None) -> list[Job]:
    """Give the jobs below `upper`, down to and with `lower`, in rising order."""
    found: list[Job] = []
    while True:
        page = engine.find(replace(which, before=upper, limit=MOST_AT_ONCE))
        found += [job for job in page.jobs if lower is None or job.id >= lower]
        upper = page.next
        if upper is None or (lower is not None and upper <= lower):
            return found[::-1]


def load_each(engine: Engine, jobs: Sequence[Job]) -> Sequence[Added | PenstockError]:
    """Load jobs together; if one of them makes the store refuse them all, one by one, so that it is refused alone."""
    try:
        return engine.load(jobs)
    except (ValueError, Unsupported) as fault:
        if len(jobs) == 1:
            return [JobRefused(str(fault))]
        return [answer for job in jobs for answer in load_each(engine, [job])]
