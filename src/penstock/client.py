"""Penstock: register tasks, enqueue, read and control. Every face stands on it."""

import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from msgspec import Raw
from msgspec.structs import replace

from penstock.access import Access
from penstock.alerts import DEFAULT_EVERY, Alert, read_alert
from penstock.checks import (
    AnyJob,
    AnyJobs,
    check_args,
    check_count,
    check_dependency,
    check_id,
    check_ids,
    check_kwargs,
    check_name,
    check_priority,
    check_queue,
    check_rule,
    check_states,
    check_text,
)
from penstock.dependencies import Dependency, read_breakers
from penstock.dependencies import read_terms as read_breaker_terms
from penstock.engine import (
    MOST_AT_ONCE,
    Alteration,
    Altered,
    Bury,
    Cancel,
    Delete,
    Edit,
    Engine,
    Filter,
    Kick,
    Reschedule,
    Upgrade,
    WorkerView,
)
from penstock.fitness import DEFAULT_TIMEOUT, Check, read_check
from penstock.handle import JobHandle
from penstock.model.breaker import Breaker
from penstock.model.breaker import Terms as BreakerTerms
from penstock.model.codec import Envelope, amend_envelope, decode_envelope, encode_value
from penstock.model.durations import Duration, milliseconds
from penstock.model.errors import JobNotFound, JobRefused, TaskInvalid
from penstock.model.failures import Classes, Rule
from penstock.model.job import Job, JobId
from penstock.once import ONCE
from penstock.options import PLAIN, CommandOptions, JobTerms, TaskOptions, Terms, read_terms
from penstock.queues import Queue
from penstock.records import end_quarantine, put_in_quarantine
from penstock.registration import Registration, is_same, place_of, register_command
from penstock.remedies import JobGroup, read_groups, read_ids, spread_out, user_and_host
from penstock.signature import enc_hook
from penstock.task import AsyncTask, Calls, Remote, Task

__all__ = ["NamedCalls", "Penstock"]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[[], object])

_REMOTES_KEPT = 1000


class Penstock(Access):
    """An application's tasks, and the store that holds their jobs.

    What is given is checked at once; nothing else is read, and nothing opened, before it is needed. Thread-safe; a
    forked child opens the store anew.

    Args:
        url: where the store is; None takes $PENSTOCK_URL, `url` of the settings file, or sqlite:///penstock.db.
        engine: an open engine to use instead of a URL.
        options: any other setting by name, as `max_payload="4M"`; see `penstock config`.

    Raises:
        SettingsInvalid: the URL or an option cannot be used.

    >>> app = Penstock("memory://")
    >>> @app.task(queue="mail", name="shop.send_receipt")
    ... def send_receipt(order_id: int) -> str:
    ...     return f"sent {order_id}"
    >>> send_receipt(7)
    'sent 7'
    >>> job = send_receipt.enqueue(7)
    >>> job.state()
    <State.READY: 'ready'>
    >>> app.tasks["shop.send_receipt"] is send_receipt
    True
    """

    def __init__(self, url: str | None = None, *, engine: Engine | None = None, **options: object) -> None:
        super().__init__(engine, {"url": url, **options})
        self.tasks: dict[str, Task[Any, Any]] = {}
        self.failures = Classes()
        self.health_checks: dict[str, Check] = {}
        self.breaker_terms: dict[str, BreakerTerms] = {}
        self._remotes: dict[str, Remote] = {}
        self._alerts: dict[str, Alert] = {}

    def __repr__(self) -> str:
        return f"<Penstock with {len(self.tasks)} tasks>"

    # -- register -----------------------------------------------------------------------------------------------------

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(self, **options: Unpack[TaskOptions]) -> Registration: ...
    def task(  # type: ignore[misc]  # mypy does not see that options without a function fit the third signature
        self, function: Callable[..., Any] | None = None, /, **options: Unpack[TaskOptions]
    ) -> Any:
        """Register a function as a task; it can still be called.

        A worker imports the module and registers it anew, so that it must be registered when the module is imported.
        Lambdas, nested functions, partials and methods of an object need a name; a method's object is then the one that
        the worker's own import makes. Classes and generator functions make no tasks.

        Args:
            name: under which its jobs are stored; its module and qualified name if not given.
            queue: where its jobs go; "default" if not given.
            priority: -100 to 100, higher runs first; 0 if not given.
            runner: `thread`, `loop` (coroutines) or `process` (a child process of its own); the kind of function
                decides if not given.
            max_attempts: failures in all, the first run included, before the job is buried; 5 if not given.
            max_crashes: crashes before it is buried, 3 if not given; 0 with `max_attempts=1` is at most once: started
                once and never again, also when it raises `Retry` or `Snooze`.
            timeout: longest run of one attempt, "1h" if not given; None lifts it.
            backoff: how long to wait after a failure: a duration, "exponential" (default), a list of durations for each
                failure, or `Exponential`, `Fixed`, `Linear`, `Table`.
            retry_on: exceptions (classes or names) that are retried; None retries all.
            give_up_on: exceptions that bury the job at once; stronger than `retry_on`.
            fallback: another task, or a list of them, that takes the same job over when it has failed for good; see
                `Fallback`. It is called with the same arguments, and its result is marked with its name.
            depends_on: names of services that it needs; while the circuit breaker of one is open its jobs wait, free
                of charge. See `dependency`.
            keep: how long an ended job and its result are kept; "24h" if not given.
            unique: at most one live job for each key; see `Task.using`.
            tags: words to find its jobs by.
            max_memory: bytes a child of the runner `process` may use, as "512M".

        Raises:
            TaskInvalid: the function or an option cannot be used.
            Unsupported: the option belongs to a later version.
        """
        registration = Registration(self, options)
        return registration if function is None else registration(function)

    def command(self, name: str, command: Sequence[Any], /, **options: Unpack[CommandOptions]) -> Task[..., Any]:
        """Register an executable as a task: JSON in on its stdin, JSON out on its stdout.

        It takes any arguments that are JSON. The options are those of `task`, without `name`, `runner` and
        `max_memory`.

        >>> app = Penstock("memory://")
        >>> resize = app.command("resize", ["./resize.sh", "--fast"], timeout="5m")
        >>> resize.enqueue("cat.png", width=100).task
        'resize'
        """
        return register_command(self, name, command, options)

    def alert(
        self,
        url: str,
        /,
        *,
        queue: str | None = None,
        task: str | Remote | None = None,
        every: Duration = DEFAULT_EVERY,
        name: str | None = None,
    ) -> None:
        """Let the workers tell somebody of buried jobs: by mail, chat, webhook, whatever apprise knows.

        One message tells of all jobs that failed alike, with the command that retries them. Jobs that a person buried
        are not told of. The setting `alerts` does the same without code.

        Args:
            url: as apprise knows it, as `mailto://user:password@example.org`; it is never logged or shown.
            queue: only of jobs in this queue.
            task: only of jobs of this task.
            every: how long further jobs that fail alike wait for the next message.
            name: how it is named in lists and logs; made of the kind of the URL if not given.

        Raises:
            TaskInvalid: it cannot be an alert.
        """
        alert = read_alert(url, queue, task.name if isinstance(task, Remote) else task, every, name)
        self._alerts[alert.id] = alert

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """Who is told of buried jobs, by `alert` and by the settings."""
        return tuple({**self._alerts, **{alert.id: alert for alert in self.settings.alerts}}.values())

    def register(self, task: Task[Any, Any]) -> None:
        """Make a task known by its name.

        Raises:
            TaskInvalid: another function has this name.
        """
        known = self.tasks.setdefault(task.name, task)
        if not is_same(known, task):
            raise TaskInvalid(
                f"Two functions are registered as task {task.name!r}: {place_of(known)} and {place_of(task)}. "
                "Give one of them another name=."
            )
        self.tasks[task.name] = task

    def classify(self, kind: type[BaseException], failure: Rule) -> None:
        """Say whose fault it is when a task raises such an exception, or one of a subclass.

        Args:
            failure: a class of failure: `job`, `host`, `network` or `dependency:NAME`; or a function that is given the
                exception and gives one, or None to leave it to what is known of its bases.

        Raises:
            TaskInvalid: it is no exception class, or no class of failure.

        >>> app = Penstock("memory://")
        >>> app.classify(ConnectionError, "dependency:smtp")
        """
        check_rule(kind, failure)
        self.failures.rules[kind] = failure

    @overload
    def health_check(self, function: F, /) -> F: ...
    @overload
    def health_check(self, *, name: str | None = None, timeout: Duration = ...) -> Callable[[F], F]: ...
    def health_check(  # type: ignore[misc]  # as with `task`
        self, function: Any = None, /, *, name: str | None = None, timeout: Duration = DEFAULT_TIMEOUT
    ) -> Any:
        """Register a function that fails on a machine where jobs had better not run.

        A worker asks it in each of its processes before it claims the first job, and every `health_period` after. It
        fails when it raises, gives False or a text that says why, or has not answered within its timeout. A worker
        whose check fails claims no more and says why; then it ends with status 4, or waits until all checks pass
        again, as `when_unfit` says.

        Args:
            name: under which it is told of; its own name if not given.
            timeout: how long it may take, "10s" if not given.

        Raises:
            TaskInvalid: it needs arguments, is a coroutine function, or another one has its name.

        >>> app = Penstock("memory://")
        >>> @app.health_check
        ... def scratch_is_writable() -> None:
        ...     open("/dev/null", "w").close()
        """
        if function is None:
            return lambda found: self.health_check(found, name=name, timeout=timeout)  # type: ignore[call-overload]
        named, check = read_check(function, name, timeout)
        known = self.health_checks.setdefault(named, check)
        if getattr(known.function, "__code__", None) != getattr(function, "__code__", None):
            raise TaskInvalid(
                f"Two functions are registered as health check {named!r}; give one of them another name=."
            )
        return function

    def dependency(
        self,
        name: str,
        *,
        after: int | None = None,
        pause: Duration | None = None,
        longest_pause: Duration | None = None,
    ) -> Dependency:
        """Give a service that tasks depend on, and say when its circuit breaker opens.

        When `after` jobs in a row, in one process, have failed of it (class of failure `dependency:NAME`, see
        `classify`), all workers let the jobs of the tasks that need it wait, free of charge. After a pause one job
        tries again; when it does not fail of the dependency, all go on.

        Args:
            after: how many failures open the breaker. What is not given stays as it was said before, or 5.
            pause: how long until the first job tries again, "10s"; each failure doubles it.
            longest_pause: up to this, "5m".

        Raises:
            TaskInvalid: the name or a value cannot be used.

        >>> app = Penstock("memory://")
        >>> smtp = app.dependency("smtp", after=3, pause="5s")
        >>> smtp.open("maintenance until noon")
        >>> app.breakers()["smtp"].reason
        'maintenance until noon'
        >>> smtp.close()
        True
        """
        known = self.breaker_terms.get(check_dependency(name), BreakerTerms())
        self.breaker_terms[name] = read_breaker_terms(known, after, pause, longest_pause)
        return Dependency(name, lambda: self.engine)

    # -- enqueue ------------------------------------------------------------------------------------------------------

    def enqueue(self, task: str | Remote, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Enqueue a task by its name, also one of another program.

        Arguments of a task that is registered here are checked against its signature.

        >>> Penstock("memory://").enqueue("billing.charge", 7, currency="EUR").task
        'billing.charge'
        """
        return self._calls(task, PLAIN).enqueue(*args, **kwargs)

    async def aenqueue(self, task: str | Remote, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Do `enqueue` without blocking the event loop."""
        return await self._calls(task, PLAIN).aenqueue(*args, **kwargs)

    def using(self, **terms: Unpack[JobTerms]) -> "NamedCalls":
        """Set the terms of jobs that are enqueued by name; see `Task.using`."""
        return NamedCalls(self, read_terms(terms))

    # -- read ---------------------------------------------------------------------------------------------------------

    def job(self, id: AnyJob) -> JobHandle[Any]:
        """Give a handle of a job by its id.

        Raises:
            JobNotFound: it was never accepted, was deleted, or ended longer ago than it is kept.
        """
        job = self._get(check_id(id))
        return JobHandle(self, job.id, job.task)

    def find(
        self,
        *,
        queue: str | None = None,
        state: str | Iterable[str] | None = None,
        task: str | Remote | None = None,
        tag: str | None = None,
        degraded: bool | None = None,
        text: str | None = None,
        group: str | JobGroup | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Read the newest jobs that match all that is given.

        Args:
            state: one state or several.
            task: a task or its name.
            degraded: whether a fallback gave the result.
            text: found in the id, task, arguments or last error.
            group: a group of buried jobs, or its id; see `groups`.
            limit: most jobs to read; any number.
        """
        check_count("limit", limit, 0, sys.maxsize)
        which = Filter(
            queue=None if queue is None else check_text("queue", queue),
            states=None if state is None else check_states(state),
            task=task.name if isinstance(task, Remote) else None if task is None else check_text("task", task),
            tag=None if tag is None else check_text("tag", tag),
            degraded=degraded,
            text=None if text is None else check_text("text", text),
            group=group.id if isinstance(group, JobGroup) else None if group is None else check_text("group", group),
        )
        found: list[Job] = []
        before: JobId | None = None
        while len(found) < limit:
            size = min(limit - len(found), MOST_AT_ONCE)
            page = self.engine.find(replace(which, before=before, limit=size))
            found += page.jobs
            before = page.next
            if before is None:
                break
        return found

    def counts(self) -> dict[str, Counter[str]]:
        """Count the jobs of each queue by state; states without jobs count 0.

        >>> app = Penstock("memory://")
        >>> _ = app.using(queue="mail").enqueue("shop.send", 7)
        >>> app.counts()["mail"]["ready"]
        1
        """
        found: dict[str, Counter[str]] = {}
        for one in self.engine.counts():
            counted = found.setdefault(one.queue, Counter())
            for state, number in one.states.items():
                counted[state] += number
        return found

    def groups(self, *, queue: str | None = None, task: str | Remote | None = None) -> list[JobGroup]:
        """Read which buried jobs failed alike; the group whose last job was buried last comes first.

        >>> app = Penstock("memory://")
        >>> app.bury(app.enqueue("shop.send", 7), reason="wrong customer")[0].after
        <State.BURIED: 'buried'>
        >>> [(group.task, group.count, group.error.message) for group in app.groups()]
        [('shop.send', 1, 'wrong customer')]
        """
        name = task.name if isinstance(task, Remote) else task
        return read_groups(self.engine, queue, name)

    def workers(self) -> list[WorkerView]:
        """List the workers that are alive."""
        return self.engine.workers()

    def breakers(self) -> dict[str, Breaker]:
        """Give the open circuit breakers by the name of their dependency."""
        return read_breakers(self.engine)

    def queue(self, name: str) -> Queue:
        """Give a queue's switches."""
        return Queue(self, check_queue(name))

    # -- control ------------------------------------------------------------------------------------------------------

    def cancel(self, ids: AnyJobs) -> list[Altered]:
        """End waiting jobs as cancelled, and ask running ones to stop."""
        return self._alter(ids, Cancel())

    def kick(
        self, jobs: AnyJobs | JobGroup, *, delay: Duration | None = None, spread: Duration | None = None
    ) -> list[Altered]:
        """Make buried, cancelled, expired or scheduled jobs ready, with fresh counters.

        Args:
            jobs: jobs, or a group of buried ones.
            delay: how long they wait first; they are ready at once if not given.
            spread: over how long they become ready, evenly and in the order in which they are given (those of a group
                from the oldest on), so that what they need is not overrun; all at once if not given.
        """
        ids = read_ids(self.engine, Filter(group=jobs.id)) if isinstance(jobs, JobGroup) else check_ids(jobs)
        delay_ms, span_ms = (0 if given is None else milliseconds(given) for given in (delay, spread))
        altered: list[Altered] = []
        for some, after_ms in spread_out(ids, delay_ms, span_ms):
            altered += self.engine.alter(some, Kick(delay_ms=after_ms))
        return altered

    def trial(self, job: AnyJob | JobGroup, *, timeout: Duration | None = None) -> Job:
        """Kick one job for a single attempt, wait until it has ended, and give it as it is then.

        Of a group, one job is tried. If it fails it is buried again at once, without the retries that its task has.

        Args:
            timeout: how long to wait; None waits as long as it takes.

        Raises:
            JobNotFound: no such job.
            JobRefused: the job cannot be kicked; says why.
            ResultTimeout: it did not end in time; it still may.
        """
        id = job.sample if isinstance(job, JobGroup) else check_id(job)
        altered = self.engine.alter([id], Kick(trial=True))[0]
        if altered.before is None:
            raise JobNotFound(id)
        if altered.refused is not None:
            raise JobRefused(f"Job {id} was not tried: {altered.refused}. See it with `penstock jobs show {id}`.")
        self.job(id).wait(timeout)
        return self._get(id)

    def upgrade(self, ids: AnyJobs) -> list[Altered]:
        """Run the task of jobs that a fallback took over once more, from its first attempt.

        Jobs that succeeded by a fallback, or were buried with one, become ready for the task that they were enqueued
        for, in its queue; a result that the fallback gave is dropped. Other jobs are left alone.
        """
        return self._alter(ids, Upgrade())

    def bury(self, ids: AnyJobs, *, reason: str = "buried by hand") -> list[Altered]:
        """Take waiting jobs out of circulation; the reason becomes their error."""
        return self._alter(ids, Bury(check_text("reason", reason)))

    def delete(self, ids: AnyJobs) -> list[Altered]:
        """Forget jobs that are not running, with their results and logs."""
        return self._alter(ids, Delete())

    def reschedule(
        self, ids: AnyJobs, *, delay: Duration | None = None, run_at: datetime | None = None
    ) -> list[Altered]:
        """Let ready or scheduled jobs wait until a moment, or for a duration from now."""
        if delay is None and run_at is None:
            raise TaskInvalid("reschedule() was given no time; give delay= or run_at=. `kick` makes jobs ready now.")
        terms = read_terms({"delay": delay, "run_at": run_at})
        return self._alter(ids, Reschedule(terms.run_at_ms, terms.delay_ms))

    def edit(
        self,
        id: AnyJob,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        priority: int | None = None,
        by: str | None = None,
    ) -> Altered:
        """Change a waiting or buried job; a buried one becomes ready. What is left out stays as it is.

        What it was before is kept, of the last 20 edits, in `Job.details.edits`.

        Args:
            by: who does it; this process's user and host if not given.

        Raises:
            ArgumentsInvalid: the job's task is registered here and does not take the new arguments.
            JobNotFound: no such job.
        """
        job = self._get(check_id(id))
        envelope, crc = (None, None) if args is None and kwargs is None else self._amended(job, args, kwargs)
        edit = Edit(
            envelope=envelope,
            crc=crc,
            queue=None if queue is None else check_queue(queue),
            priority=None if priority is None else check_priority(priority),
            by=check_text("by", by) if by else user_and_host(),
        )
        return self.engine.alter([job.id], edit)[0]

    def settle_once(self, key: str, *, done: bool, value: Any = None) -> bool:
        """Say of a side effect that a job began (`current_job().once`) whether it happened, when nobody else knows.

        Args:
            value: what it gave, if it happened; given to the jobs that ask for it.

        Returns:
            Whether the key was known.
        """
        what = f"the value of {key!r}"
        data = encode_value(value, what, limit=self.max_payload, enc_hook=enc_hook) if done else None
        return self.engine.record(None, None, ONCE, check_text("key", key), data)

    def quarantine(self, name: str, *, reason: str = "put there by hand") -> None:
        """Take a worker (by its id), or every worker on a host (by its name), out of service until `readmit`.

        It finishes what it runs and claims no more; then it ends with status 4, or waits, as `when_unfit` says. It
        hears of it within its `health_period`. A worker that does not answer any more is for `evict`.
        """
        put_in_quarantine(self.engine, check_text("name", name), check_text("reason", reason))

    def readmit(self, name: str) -> bool:
        """End the quarantine of a worker or a host; says whether there was one."""
        return end_quarantine(self.engine, check_text("name", name))

    def evict(self, worker: str, *, reason: str = "evicted by hand") -> bool:
        """Take a worker's jobs from it now, whether it can be reached or not; says whether it had a lease.

        Its jobs are lost to it: other workers have them at their next round, and what it still delivers is refused. It
        is in quarantine from then on, should it be alive.
        """
        self.quarantine(worker, reason=reason)
        return bool(self.engine.evict([worker]))

    def decode_result(self, task: str, data: bytes) -> Any:
        """Read a result as the task's annotation says, if it is registered here, else as plain JSON."""
        return self._remote(task).decode_result(data)

    def _get(self, id: JobId) -> Job:
        job = self.engine.get([id])[0]
        if job is None:
            raise JobNotFound(id)
        return job

    def _alter(self, ids: AnyJobs, alteration: Alteration) -> list[Altered]:
        wanted = check_ids(ids)
        altered: list[Altered] = []
        for start in range(0, len(wanted), MOST_AT_ONCE):
            altered += self.engine.alter(wanted[start : start + MOST_AT_ONCE], alteration)
        return altered

    def _amended(self, job: Job, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> tuple[bytes, int]:
        """Check the new arguments together with those that stay."""
        stored, limit = decode_envelope(job.envelope, job.crc), self.max_payload
        written, named = bytes(stored.args), bytes(stored.kwargs)
        if args is not None:
            what = f"the new value of args= for job {job.id}"
            written = encode_value(check_args(args), what, limit=limit, enc_hook=enc_hook)
        if kwargs is not None:
            what = f"the new value of kwargs= for job {job.id}"
            named = encode_value(check_kwargs(kwargs), what, limit=limit, enc_hook=enc_hook)
        self._remote(job.task).decode(Envelope(stored.v, job.task, Raw(written), Raw(named)))
        return amend_envelope(job.envelope, args=written, kwargs=named, limit=limit)

    def _calls(self, task: str | Remote, terms: Terms) -> Calls[..., Any]:
        return Calls(self._remote(task.name if isinstance(task, Remote) else task), terms)

    def _remote(self, name: Any) -> Remote:
        found = (self.tasks.get(name) or self._remotes.get(name)) if isinstance(name, str) else None
        if found is None:
            found = Remote(self, check_name(name))
            if len(self._remotes) < _REMOTES_KEPT:
                self._remotes[name] = found
        return found


class NamedCalls:
    """Tasks by name on certain terms; made by `Penstock.using`."""

    def __init__(self, app: Penstock, terms: Terms) -> None:
        self._app, self._terms = app, terms

    def enqueue(self, task: str | Remote, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Enqueue a task by its name on these terms."""
        return self._app._calls(task, self._terms).enqueue(*args, **kwargs)

    async def aenqueue(self, task: str | Remote, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Do `enqueue` without blocking the event loop."""
        return await self._app._calls(task, self._terms).aenqueue(*args, **kwargs)
