"""What can be asked of the store without changing it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from penstock.engine import Counts, Filter, Group, Page, QueueInfo, WorkerInfo, WorkerView
from penstock.engines.matching import matches, narrowed
from penstock.engines.redis.packing import NUMBERED, NUMBERS, Argument, fence_in, read_jobs
from penstock.engines.redis.wire import Reply
from penstock.model.job import Job, JobId, ProcessId
from penstock.model.states import WAITING, State

__all__ = ["counts", "fence_in", "find", "groups", "queues", "workers"]

#: How many ids one step looks at: about 2 ms of the server's time.
_STEP = 1000
#: By how much a step is longer than the one before, of which too few jobs were asked for.
_GROWTH = 4
#: So many ids are sorted here rather than looked for among all.
_FEW = 20_000

Run = Callable[[str, Sequence[Argument]], Reply]
_UNFINISHED = WAITING | {State.RUNNING}


def find(which: Filter, run: Run, translated: Callable[[], AbstractContextManager[None]]) -> Page:
    """Walk the ids downwards in bounded steps; every job that is there all the while is looked at once."""
    which = narrowed(which)
    found: list[Job] = []
    if which.states is not None and not which.states:
        return Page((), None)
    ids = which.ids if which.ids is not None else _few(which, run)
    for told in _steps(which, run) if ids is None else _named_steps(ids, which, run):
        with translated():
            jobs = [seen.job for seen in read_jobs(told) if seen is not None]
            found += [job for job in jobs if matches(job, which)]
        if len(found) > which.limit:
            break
    page = tuple(found[: which.limit])
    return Page(page, page[-1].id if len(found) > which.limit else None)


def _few(which: Filter, run: Run) -> list[JobId] | None:
    """Give the ids of the jobs in the states that are asked for, if they are few; None if it is better to walk."""
    if which.states is None or State.READY in which.states:
        return None
    told = run("standing", ["".join(str(NUMBERS[state]) for state in which.states), _FEW, which.group or ""])
    return None if told is None else [JobId(id.decode()) for id in told[0]]


def _steps(which: Filter, run: Run) -> Iterator[Reply]:
    states = "" if which.states is None else "".join(str(NUMBERS[state]) for state in which.states)
    before = "" if which.before is None else which.before
    for most in _sizes(which.limit + 1):
        told = run("find", [before, _STEP, most, which.queue or "", which.task or "", states])
        yield told
        before = told[4].decode()
        if not before:
            return


def _named_steps(named: Iterable[JobId], which: Filter, run: Run) -> Iterator[Reply]:
    ids = sorted({id for id in named if which.before is None or id < which.before}, reverse=True)
    sizes, at = _sizes(which.limit + 1), 0
    while at < len(ids):
        size = next(sizes)
        yield run("get", ids[at : at + size])
        at += size


def _sizes(least: int) -> Iterator[int]:
    """Begin with what a page holds, so that no more is read than it needs, and grow where few jobs are asked for."""
    size = least
    while True:
        yield size
        size = max(least, min(size * _GROWTH, _STEP))


# -- counts and queues ------------------------------------------------------------------------------------------------


def _pairs(flat: Sequence[Any]) -> dict[Any, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _by_lane(told: Sequence[Any]) -> dict[tuple[str, str], dict[State, int]]:
    names = {int(lane): name.decode().partition("\0") for lane, name in _pairs(told[2]).items()}
    found: dict[tuple[str, str], dict[State, int]] = {}
    for field, count in _pairs(told[1]).items():
        lane, state = divmod(int(field), 10)
        if int(count):
            queue, _, task = names[lane]
            found.setdefault((queue, task), {})[NUMBERED[state]] = int(count)
    return found


def counts(told: Sequence[Any]) -> list[Counts]:
    return [Counts(queue, task, states) for (queue, task), states in sorted(_by_lane(told).items(), key=_name)]


def _name(item: tuple[tuple[str, str], Any]) -> tuple[str, str]:
    return item[0]


def groups(told: Sequence[Any]) -> list[Group]:
    found = [
        Group(id.decode(), count, int(first_ms), int(last_ms), JobId(sample.decode()))
        for id, count, first_ms, last_ms, sample in told
    ]
    return sorted(found, key=lambda group: group.id)


def queues(told: Sequence[Any]) -> list[QueueInfo]:
    now_ms, paused = told[0], {name.decode() for name in told[3]}
    bounds, rates, oldest = _pairs(told[4]), _pairs(told[5]), _pairs(told[6])
    unfinished: dict[str, int] = {}
    for (queue, _), states in _by_lane(told).items():
        more = sum(count for state, count in states.items() if state in _UNFINISHED)
        unfinished[queue] = unfinished.get(queue, 0) + more
    names = sorted({*unfinished, *paused, *(name.decode() for name in bounds)})
    return [
        QueueInfo(
            name=name,
            paused=name in paused,
            max_jobs=int(bounds[key]) if (key := name.encode()) in bounds else None,
            unfinished=unfinished.get(name, 0),
            rate=float(rates[key].rpartition(b" ")[2]) if key in rates else 0.0,
            oldest_ms=max(now_ms - int(oldest[key]), 0) if key in oldest else None,
        )
        for name in names
    ]


def workers(told: Sequence[Any]) -> list[WorkerView]:
    by_worker: dict[str, list[Any]] = {}
    for row in told:
        by_worker.setdefault(row[1].decode(), []).append(row)
    views = []
    for _, rows in sorted(by_worker.items()):
        info, enrolled_ms, _ = msgspec.msgpack.decode(rows[0][2])
        views.append(
            WorkerView(
                info=msgspec.json.decode(info, type=WorkerInfo),
                processes=tuple(sorted(ProcessId(row[0].decode()) for row in rows)),
                running=sum(row[3] for row in rows),
                drain=rows[0][5] == 1,
                lease_left_ms=max(int(row[4]) for row in rows),
                enrolled_ms=enrolled_ms,
            )
        )
    return views
