"""Which jobs a worker leaves lying, and why: said at its start, rarely while it works, and at the end of a burst."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from penstock.engine import Counts, QueueInfo, WorkerView
from penstock.model.states import State
from penstock.serving import unserved

#: How often jobs without a worker are looked for. They are told at the second look in a row that finds them, because
#: workers that start together do not know of each other at once.
LOOK_EVERY_S = 30.0
#: After how long the same is told again.
REMIND_AFTER_S = 3600.0
#: How many tasks or queues one line names.
MOST_NAMED = 5


def start_warnings(
    app: str, tasks: Mapping[str, str], queues: Collection[str] | None, known: Collection[str]
) -> Iterator[str]:
    """Say what makes a worker useless from the start.

    Args:
        tasks: those that it knows, each with its queue.
        queues: those that it serves; None for all.
        known: those that the store has seen.
    """
    if not tasks:
        module = app.rpartition(":")[0]
        yield f"{app} has no tasks, so this worker finds nothing to do; let {module} import the modules with tasks"
    candidates = {*tasks.values(), *known}
    for name in queues or ():
        if name not in candidates:
            import difflib

            near = difflib.get_close_matches(name, candidates, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"known are {_named(sorted(candidates))}"
            yield f"queue {name!r} (-Q) is the queue of no task, and the store does not know it: {meant}"


def left_out(tasks: Mapping[str, str], queues: Collection[str] | None) -> str | None:
    """Say which tasks have queues that this worker does not serve."""
    out = sorted(f"{task} ({queue})" for task, queue in tasks.items() if queues is not None and queue not in queues)
    if not out:
        return None
    return f"-Q leaves out the queues of {len(out)} of {len(tasks)} tasks, which need another worker: {_named(out)}"


class Lookout:
    """Looks for jobs whose tasks no live worker knows. Used by one thread.

    Args:
        queues: those that are looked at; None for all.
    """

    def __init__(self, queues: Collection[str] | None) -> None:
        self._queues = queues
        self._due = 0.0
        self._seen: set[tuple[str, str]] = set()
        self._told: dict[tuple[str, str], float] = {}

    def is_due(self, now: float) -> bool:
        return now >= self._due

    def look(self, workers: Sequence[WorkerView], counts: Sequence[Counts], now: float) -> list[str]:
        """Give a line for each task whose jobs were found here and at the look before, at most once an hour."""
        self._due = now + LOOK_EVERY_S
        found = {
            (one.queue, one.task): one.states[State.READY]
            for one in unserved(workers, counts)
            if self._queues is None or one.queue in self._queues
        }
        self._told = {key: at for key, at in self._told.items() if key in found and now - at < REMIND_AFTER_S}
        news = [key for key in found if key in self._seen and key not in self._told]
        self._told.update(dict.fromkeys(news, now))
        self._seen = set(found)
        return list(_without_worker(news, found))


def _without_worker(news: Sequence[tuple[str, str]], found: Mapping[tuple[str, str], int]) -> Iterator[str]:
    for queue, task in news[:MOST_NAMED]:
        yield (
            f"{_jobs(found[queue, task], 'ready ')} of {task} in queue {queue}: no live worker knows this task, so "
            f"they wait; start a worker of the application that has it, or see `penstock jobs list --task {task}`"
        )
    if more := news[MOST_NAMED:]:
        total = sum(found[key] for key in more)
        yield f"{_jobs(total, 'ready ')} of {len(more)} more tasks that no live worker knows; `penstock doctor` shows"


def is_done(
    counts: Sequence[Counts], infos: Sequence[QueueInfo], tasks: Collection[str], queues: Collection[str] | None
) -> bool:
    """Say whether none of a worker's jobs is ready or running; what waits in a paused queue does not count."""
    paused = {info.name for info in infos if info.paused}
    return not any(
        one.states.get(State.RUNNING) or (one.queue not in paused and one.states.get(State.READY))
        for one in counts
        if one.task in tasks and (queues is None or one.queue in queues)
    )


def what_is_left(
    counts: Sequence[Counts], infos: Sequence[QueueInfo], tasks: Collection[str], queues: Collection[str] | None
) -> str:
    """Say at the end of a burst how many jobs stay in the worker's queues, of which tasks, and why."""
    paused = {info.name for info in infos if info.paused}
    left: Counter[tuple[str, str]] = Counter()
    for one in counts:
        if queues is None or one.queue in queues:
            for state, count in one.states.items():
                if reason := _why_left(one, state, one.task in tasks, paused):
                    left[one.task, reason] += count
    if not left:
        return "nothing left to do"
    told = [f"{_jobs(count)} of {task} ({reason})" for (task, reason), count in left.most_common()]
    return f"nothing left to do now; left are {_named(told)}"


def _why_left(one: Counts, state: State, known: bool, paused: Collection[str]) -> str | None:
    if state is State.READY:
        if not known:
            return "this worker does not know the task"
        return f"queue {one.queue} is paused" if one.queue in paused else None
    if state is State.SCHEDULED:
        return "scheduled for later"
    return "waiting for other jobs" if state is State.BLOCKED else None


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return (", ".join(names[:MOST_NAMED]) or "none") + more


def _jobs(count: int, kind: str = "") -> str:
    return f"{count:,} {kind}{'job' if count == 1 else 'jobs'}"
