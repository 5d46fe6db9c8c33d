"""Run the jobs of an application without a worker, in the test that enqueued them."""

from collections.abc import Coroutine
from contextlib import closing
from typing import Any, Final

from penstock.client import Penstock
from penstock.context import entered
from penstock.engine import Engine, Note, Want, WorkerInfo
from penstock.model.errors import Steering
from penstock.model.job import Claim, ProcessId, Progress
from penstock.model.outcome import Outcome
from penstock.model.settle import settle
from penstock.task import new_id
from penstock.worker.execution import Attempt, explain, found_unfit, prepare, succeed
from penstock.worker.relay import carry

__all__ = ["run_jobs"]

#: The jitter of every backoff: the longest wait it allows, so that a test sees the same each time it runs.
_LUCK: Final = 1.0


def run_jobs(app: Penstock, *, limit: int = 1000) -> int:
    """Run the jobs that are ready or due, one after another in this thread, and give how many attempts that were.

    Arguments, results, retries, `current_job` and what a task raises to steer its job are as in a worker. Whatever the
    runner, the function is called here: nothing interrupts it at its timeout, and a crash ends the test. Jobs that come
    while it runs are run too; one that waits for a retry is run when its time has come, so turn the clock and call
    again; it waits the longest its backoff allows, without the luck of the jitter. Jobs of commands stay where they
    are. What waits in the outbox, if there is one, is fetched first. A job that finds its worker unfit ends the run.

    Args:
        limit: most attempts; keeps jobs that enqueue each other from going on for ever.

    >>> app = Penstock("memory://")
    >>> @app.task(name="shop.send", max_attempts=1)
    ... def send(order_id: int) -> float:
    ...     return 1 / order_id
    >>> good, bad = send.enqueue(4), send.enqueue(0)
    >>> run_jobs(app)
    2
    >>> good.result(), bad.state()
    (0.25, <State.BURIED: 'buried'>)
    """
    process = ProcessId(f"test-{new_id()}")
    tasks = {name: "thread" for name, task in app.tasks.items() if task.command is None}
    want = Want(tasks=tasks, free={"thread": 1, "process": 1}, limit=1)
    app.engine.enrol(WorkerInfo(id=process, tasks=tuple(tasks)), [process])
    for attempts in range(limit):
        _fetch(app)
        app.engine.tend(process)
        claims = app.engine.exchange(process, 2 * attempts + 1, (), want).claims
        if not claims:
            return attempts
        outcome = _run(app, claims[0])
        change = settle(claims[0], outcome, _LUCK)
        app.engine.exchange(process, 2 * attempts + 2, (change,), None)
        if found_unfit(outcome) is not None:
            return attempts + 1
    return limit


def _fetch(app: Penstock) -> None:
    """Carry what was enqueued in transactions of the user's database, as a worker does."""
    if app.outbox is not None:
        with closing(app.outbox) as outbox:
            while carry(outbox, app.engine):
                continue


def _run(app: Penstock, claim: Claim) -> Outcome:
    """Run one claim. KeyboardInterrupt and the like end the test, not the job."""
    attempt, task = Attempt(claim, _Notes(app.engine), app.failures), app.tasks[claim.task]
    prepared = prepare(attempt, task, app)
    if isinstance(prepared, Outcome):
        return prepared
    context, args, kwargs = prepared
    try:
        with entered(context):
            value = _ended(task(*args, **kwargs))
        return succeed(attempt, task, value)
    except (Exception, Steering) as error:  # noqa: BLE001 - whatever the task raises is how its job ended
        return explain(attempt, error)


def _ended(value: Any) -> Any:
    if isinstance(value, Coroutine):
        import asyncio

        return asyncio.run(value)
    return value


class _Notes:
    """Stores progress and log text of jobs at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, claim: Claim, progress: Progress | None, log: str) -> None:
        self._engine.note([Note(claim.id, claim.fence, progress, log, claim.attempt)])
