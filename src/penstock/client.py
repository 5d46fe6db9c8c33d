"""Penstock: register tasks, enqueue, read and control. Every face stands on it."""

import os
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from msgspec import Raw
from msgspec.structs import replace

from penstock.context import running, shielded
from penstock.engine import (
    MOST_AT_ONCE,
    Added,
    AddRequest,
    Alteration,
    Altered,
    Bury,
    Cancel,
    Delete,
    Edit,
    Engine,
    Filter,
    Kick,
    QueueInfo,
    Reschedule,
    WorkerView,
)
from penstock.engines.open import open_engine, without_password
from penstock.handle import JobHandle, Watch
from penstock.intake import Intake
from penstock.model.codec import Envelope, amend_envelope, decode_envelope, encode_value
from penstock.model.durations import Duration
from penstock.model.errors import JobNotFound, SettingsInvalid, TaskInvalid
from penstock.model.job import Job, JobId, NewJob
from penstock.model.states import State
from penstock.options import (
    PLAIN,
    BackoffOption,
    ExceptionOption,
    Terms,
    UniqueOption,
    check_count,
    check_name,
    check_priority,
    check_queue,
    check_tags,
    check_text,
    check_unique,
    is_text,
    read_policy,
    read_terms,
    refuse_later_options,
)
from penstock.settings import Settings, find_file, load, read_size
from penstock.shield import Shielded
from penstock.signature import Signature, anything, enc_hook
from penstock.task import AsyncTask, Calls, Remote, Task, name_of

__all__ = ["Penstock", "Queue"]

P = ParamSpec("P")
R = TypeVar("R")

Ids = str | JobHandle[Any] | Job | Iterable[str | JobHandle[Any] | Job]

_REMOTES_KEPT = 1000
_RUNNERS = ("thread", "loop", "process")


class Penstock:
    """An application's tasks, and the store that holds their jobs.

    Nothing is read or opened before it is needed. Thread-safe; a forked child opens the store anew.

    Args:
        url: where the store is; None takes $PENSTOCK_URL, `url` of the settings file, or sqlite:///penstock.db.
        engine: an open engine to use instead of a URL.
        options: any other setting by name, as `max_payload="4M"`; see `penstock config`.

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
        _refuse_url(engine)
        self.tasks: dict[str, Task[Any, Any]] = {}
        self._options: dict[str, object] = {"url": url, **options}
        self._settings: Settings | None = None
        self._given_engine = None if engine is None else Shielded(engine)
        self._registering = threading.Lock()
        self._begin()
        _begin_again_after_fork(self)

    def _begin(self) -> None:
        self._opening = threading.RLock()
        self._engine: Engine | None = self._given_engine
        self._intake = Intake(lambda: self.engine)
        self._watch = Watch(lambda: self.engine)
        self._remotes: dict[str, Remote] = {}

    # -- the store ----------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """What was said here, in the environment, and in the settings file; read once."""
        found = self._settings
        if found is None:
            with shielded(), self._opening:
                found = self._settings or load(self._options, os.environ, find_file())
                self._settings = found
        return found

    @property
    def max_payload(self) -> int:
        """The most bytes that an envelope or a result may have."""
        return (self._settings or self.settings).max_payload

    @property
    def engine(self) -> Engine:
        """The store, opened when it is first needed."""
        found = self._engine
        if found is None:
            with shielded(), self._opening:
                if self._engine is None:
                    self._engine = Shielded(open_engine(self.settings.url))
                found = self._engine
        return found

    @property
    def watch(self) -> Watch:
        """What waits for the jobs of this application's coroutines."""
        return self._watch

    def redirect(self, url: str) -> None:
        """Use another store from now on; what a worker does that was given a URL of its own."""
        self.close()
        with self._opening:
            self._options["url"] = url
            self._settings = self._engine = self._given_engine = None

    def close(self) -> None:
        """Let go of the store; the next call opens it again."""
        self._intake.close()
        with self._opening:
            engine, self._engine = self._engine, self._given_engine
        if engine is not None:
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Penstock with {len(self.tasks)} tasks>"

    # -- register -----------------------------------------------------------------------------------------------------

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        queue: str = "default",
        priority: int = 0,
        runner: str | None = None,
        max_attempts: int = 5,
        max_crashes: int = 3,
        timeout: Duration | None = "1h",
        backoff: BackoffOption = None,
        retry_on: ExceptionOption = None,
        give_up_on: ExceptionOption = None,
        keep: Duration = "24h",
        unique: UniqueOption = None,
        tags: Sequence[str] = (),
        max_memory: int | str | None = None,
    ) -> "Registration": ...
    def task(  # type: ignore[misc]  # mypy does not see that options without a function fit the third signature
        self, function: Callable[..., Any] | None = None, /, **options: Any
    ) -> Any:
        """Register a function as a task; it can still be called.

        Args:
            name: under which its jobs are stored; its module and qualified name if not given.
            queue: where its jobs go.
            priority: -100 to 100, higher runs first.
            runner: `thread`, `loop` (coroutines) or `process` (a child process of its own); the kind of function
                decides if not given.
            max_attempts: failures in all, the first run included, before the job is buried.
            max_crashes: crashes before it is buried; 0 with `max_attempts=1` is at most once.
            timeout: longest run of one attempt; None lifts it.
            backoff: how long to wait after a failure: a duration, "exponential" (default), a list of durations for each
                failure, or `Exponential`, `Fixed`, `Linear`, `Table`.
            retry_on: exceptions (classes or names) that are retried; None retries all.
            give_up_on: exceptions that bury the job at once; stronger than `retry_on`.
            keep: how long an ended job and its result are kept.
            unique: at most one live job for each key; see `Task.using`.
            tags: words to find its jobs by.
            max_memory: bytes a child of the runner `process` may use, as "512M".

        Raises:
            TaskInvalid: the function or an option cannot be used.
            Unsupported: the option belongs to a later version.
        """
        registration = Registration(self, options)
        return registration if function is None else registration(function)

    def command(self, name: str, command: Sequence[Any], /, **options: Any) -> Task[..., Any]:
        """Register an executable as a task: JSON in on its stdin, JSON out on its stdout.

        It takes any arguments that are JSON. The options are those of `task`, without `runner`.

        >>> app = Penstock("memory://")
        >>> resize = app.command("resize", ["./resize.sh", "--fast"], timeout="5m")
        >>> resize.enqueue("cat.png", width=100).task
        'resize'
        """
        task: Task[..., Any] = Registration(self, {**options, "name": name}, _words(name, command))(anything)
        return task

    def register(self, task: Task[Any, Any]) -> None:
        """Make a task known by its name.

        Raises:
            TaskInvalid: another function has this name.
        """
        with self._registering:
            known = self.tasks.get(task.name)
            if known is not None and not _is_same(known, task):
                raise TaskInvalid(
                    f"Two functions are registered as task {task.name!r}: {_place(known)} and {_place(task)}. "
                    "Give one of them another name=."
                )
            self.tasks[task.name] = task

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

    def using(self, **terms: Any) -> "NamedCalls":
        """Set the terms of jobs that are enqueued by name; see `Task.using`."""
        known = read_terms.__kwdefaults__ or {}
        refuse_later_options((name for name in terms if name not in known), known, "A job")
        return NamedCalls(self, read_terms(**terms))

    def store(self, jobs: Sequence[NewJob], connection: Any = None) -> list[Added]:
        """Store jobs; each 1,000 whole or not at all. Within a job, they are stored in its name.

        Raises:
            LeaseLost: the job in whose name they are stored was handed on.
        """
        added: list[Added] = []
        for request in self._requests(jobs):
            if connection is None:
                added += self._intake.add(request)
            else:
                added += _opened(self.engine.add_within(connection, [request])[0])
        return added

    async def astore(self, jobs: Sequence[NewJob], connection: Any = None) -> list[Added]:
        """Do `store` without blocking the event loop. A connection stays in its thread and may block."""
        if connection is not None:
            return self.store(jobs, connection)
        added: list[Added] = []
        for request in self._requests(jobs):
            added += await self._intake.aadd(request)
        return added

    # -- read ---------------------------------------------------------------------------------------------------------

    def job(self, id: str | JobHandle[Any] | Job) -> JobHandle[Any]:
        """Give a handle of a job by its id.

        Raises:
            JobNotFound: it was never accepted, was deleted, or ended longer ago than it is kept.
        """
        job = self._get(_id(id))
        return JobHandle(self, job.id, job.task)

    def find(
        self,
        *,
        queue: str | None = None,
        state: str | Iterable[str] | None = None,
        task: str | Remote | None = None,
        tag: str | None = None,
        text: str | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Read the newest jobs that match all that is given.

        Args:
            state: one state or several.
            task: a task or its name.
            text: found in the id, task, arguments or last error.
            limit: most jobs to read; any number.
        """
        check_count("limit", limit, 0, sys.maxsize)
        which = Filter(
            queue=None if queue is None else check_text("queue", queue),
            states=None if state is None else _states(state),
            task=task.name if isinstance(task, Remote) else None if task is None else check_text("task", task),
            tag=None if tag is None else check_text("tag", tag),
            text=None if text is None else check_text("text", text),
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

    def workers(self) -> list[WorkerView]:
        """List the workers that are alive."""
        return self.engine.workers()

    def queue(self, name: str) -> "Queue":
        """Give a queue's switches."""
        return Queue(self, check_queue(name))

    # -- control ------------------------------------------------------------------------------------------------------

    def cancel(self, ids: Ids) -> list[Altered]:
        """End waiting jobs as cancelled, and ask running ones to stop."""
        return self._alter(ids, Cancel())

    def kick(self, ids: Ids) -> list[Altered]:
        """Make buried, cancelled, expired or scheduled jobs ready now, with fresh counters."""
        return self._alter(ids, Kick())

    def bury(self, ids: Ids, *, reason: str = "buried by hand") -> list[Altered]:
        """Take waiting jobs out of circulation; the reason becomes their error."""
        return self._alter(ids, Bury(check_text("reason", reason)))

    def delete(self, ids: Ids) -> list[Altered]:
        """Forget jobs that are not running, with their results and logs."""
        return self._alter(ids, Delete())

    def reschedule(self, ids: Ids, *, delay: Duration | None = None, run_at: datetime | None = None) -> list[Altered]:
        """Let ready or scheduled jobs wait until a moment, or for a duration from now."""
        if delay is None and run_at is None:
            raise TaskInvalid("reschedule() was given no time; give delay= or run_at=. `kick` makes jobs ready now.")
        terms = read_terms(delay=delay, run_at=run_at)
        return self._alter(ids, Reschedule(terms.run_at_ms, terms.delay_ms))

    def edit(
        self,
        id: str | JobHandle[Any] | Job,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        priority: int | None = None,
    ) -> Altered:
        """Change a waiting or buried job; a buried one becomes ready. What is left out stays as it is.

        Raises:
            ArgumentsInvalid: the job's task is registered here and does not take the new arguments.
            JobNotFound: no such job.
        """
        job = self._get(_id(id))
        envelope, crc = (None, None) if args is None and kwargs is None else self._amended(job, args, kwargs)
        edit = Edit(
            envelope=envelope,
            crc=crc,
            queue=None if queue is None else check_queue(queue),
            priority=None if priority is None else check_priority(priority),
        )
        return self.engine.alter([job.id], edit)[0]

    def decode_result(self, task: str, data: bytes) -> Any:
        """Read a result as the task's annotation says, if it is registered here, else as plain JSON."""
        return self._remote(task).decode_result(data)

    def _get(self, id: str) -> Job:
        job = self.engine.get([JobId(id)])[0]
        if job is None:
            raise JobNotFound(id)
        return job

    def _alter(self, ids: Ids, alteration: Alteration) -> list[Altered]:
        wanted = _ids(ids)
        altered: list[Altered] = []
        for start in range(0, len(wanted), MOST_AT_ONCE):
            altered += self.engine.alter(wanted[start : start + MOST_AT_ONCE], alteration)
        return altered

    def _amended(self, job: Job, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> tuple[bytes, int]:
        """Check the new arguments together with those that stay."""
        stored, limit = decode_envelope(job.envelope, job.crc), self.max_payload
        what = f"the new arguments of job {job.id}"
        written, named = bytes(stored.args), bytes(stored.kwargs)
        if args is not None:
            written = encode_value(_listed(args), what, limit=limit, enc_hook=enc_hook)
        if kwargs is not None:
            named = encode_value(_named(kwargs), what, limit=limit, enc_hook=enc_hook)
        self._remote(job.task).decode(Envelope(stored.v, job.task, Raw(written), Raw(named)))
        return amend_envelope(job.envelope, args=written, kwargs=named, limit=limit)

    def _requests(self, jobs: Sequence[NewJob]) -> Iterable[AddRequest]:
        context = running()
        parent = None
        if context is not None and context.home is self:
            parent = (context.claim.id, context.claim.fence)
        for start in range(0, len(jobs), MOST_AT_ONCE):
            yield AddRequest(tuple(jobs[start : start + MOST_AT_ONCE]), parent)

    def _calls(self, task: str | Remote, terms: Terms) -> Calls[..., Any]:
        return Calls(self._remote(task.name if isinstance(task, Remote) else task), terms)

    def _remote(self, name: Any) -> Remote:
        found = (self.tasks.get(name) or self._remotes.get(name)) if isinstance(name, str) else None
        if found is None:
            found = Remote(self, check_name(name), Signature(name, anything))
            if len(self._remotes) < _REMOTES_KEPT:
                self._remotes[name] = found
        return found


class Registration:
    """Makes tasks of functions; what `@app.task(...)` with options stands for."""

    def __init__(self, app: Penstock, options: dict[str, Any], command: tuple[str, ...] | None = None) -> None:
        self._app = app
        self._command = command
        self._read(**options)

    def _read(
        self,
        *,
        name: Any = None,
        queue: str = "default",
        priority: int = 0,
        runner: str | None = None,
        max_attempts: int = 5,
        max_crashes: int = 3,
        timeout: Duration | None = "1h",
        backoff: BackoffOption = None,
        retry_on: ExceptionOption = None,
        give_up_on: ExceptionOption = None,
        keep: Duration = "24h",
        unique: UniqueOption = None,
        tags: Sequence[str] = (),
        max_memory: int | str | None = None,
        **later: object,
    ) -> None:
        refuse_later_options(later, Registration._read.__kwdefaults__ or {})
        if runner is not None and (runner not in _RUNNERS or self._command):
            raise TaskInvalid(f"runner={runner!r} is not one of {', '.join(_RUNNERS)}; a command has its own runner.")
        self._name, self._runner = None if name is None else check_name(name), runner
        self._settings: dict[str, Any] = {
            "queue": check_queue(queue),
            "priority": check_priority(priority),
            "unique": check_unique(unique),
            "tags": check_tags(tags),
            "max_memory": None if max_memory is None else _memory(max_memory),
            "policy": read_policy(
                max_attempts=max_attempts,
                max_crashes=max_crashes,
                timeout=timeout,
                backoff=backoff,
                retry_on=retry_on,
                give_up_on=give_up_on,
                keep=keep,
            ),
        }

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        if isinstance(function, Remote):
            raise TaskInvalid(f"{function!r} is a task already; register the function it was made of.")
        if not callable(function):
            raise TaskInvalid(
                f"{function!r} cannot be called, so it makes no task. Options go by name: task(queue=...)."
            )
        coroutine = _is_coroutine_function(function)
        kind: type[Task[..., Any]] = AsyncTask if coroutine else Task
        name = self._name or name_of(function)
        runner = "command" if self._command else _fitting_runner(name, self._runner, coroutine)
        task = kind(self._app, name, function, runner=runner, command=self._command, **self._settings)
        self._app.register(task)
        return task


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


class Queue:
    """The switches of one queue; made by `Penstock.queue`."""

    def __init__(self, app: Penstock, name: str) -> None:
        self._app, self.name = app, name

    def pause(self) -> QueueInfo:
        """Let no more of its jobs start; new ones are still accepted."""
        return self._app.engine.alter_queue(self.name, paused=True)

    def resume(self) -> QueueInfo:
        """Let its jobs start again."""
        return self._app.engine.alter_queue(self.name, paused=False)

    def limit(self, *, max_jobs: int | None) -> QueueInfo:
        """Bound its unfinished jobs: beyond, enqueueing raises `QueueFull`. None lifts the bound."""
        if max_jobs is None:
            return self._app.engine.alter_queue(self.name, unlimited=True)
        if type(max_jobs) is not int or not 0 <= max_jobs <= sys.maxsize:
            raise TaskInvalid(
                f"max_jobs={max_jobs!r} is not a whole number of at least 0, in 64 bits; None lifts the bound."
            )
        return self._app.engine.alter_queue(self.name, max_jobs=max_jobs)

    def info(self) -> QueueInfo:
        """Read its switches and how it moves."""
        known = {queue.name: queue for queue in self._app.engine.queues()}
        return known.get(self.name) or QueueInfo(name=self.name)

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"


def _id(given: str | JobHandle[Any] | Job) -> str:
    if isinstance(given, JobHandle | Job):
        return given.id
    if not isinstance(given, str):
        raise TaskInvalid(f"{given!r} is no id of a job; give its id as text, its handle, or the job.")
    if given and not is_text(given):
        raise JobNotFound(given)  # no store could hold it
    return given


def _ids(given: Any) -> list[JobId]:
    several = [given] if isinstance(given, str | JobHandle | Job) else given
    if isinstance(several, bytes | bytearray) or not isinstance(several, Iterable):
        raise TaskInvalid(f"{given!r} names no jobs; give an id, a handle or a job, or a list of them.")
    return [JobId(_id(one)) for one in several]


def _refuse_url(engine: object) -> None:
    if isinstance(engine, str):
        shown = without_password(engine)
        raise SettingsInvalid([f"engine = {shown!r} (argument) is no open engine; give a URL as Penstock({shown!r})."])


def _words(name: str, command: Any) -> tuple[str, ...]:
    words = tuple(command) if isinstance(command, Sequence) and not isinstance(command, str) else ()
    if words and all(is_text(word) for word in words):
        return words
    raise TaskInvalid(
        f"The command of task {name!r} is {command!r}; give a list of texts, as in ['./resize.sh', '--fast']."
    )


def _states(given: str | Iterable[str]) -> frozenset[State]:
    try:
        return frozenset(map(State, [given] if isinstance(given, str) else given))
    except (TypeError, ValueError):
        raise TaskInvalid(f"state={given!r} is no state, nor several; there are {', '.join(State)}.") from None


def _listed(args: object) -> list[Any]:
    if not isinstance(args, list | tuple):
        raise TaskInvalid(f"args={args!r} is no list; give all positional arguments, as in [7, 'eu'].")
    return list(args)


def _named(kwargs: object) -> dict[str, Any]:
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise TaskInvalid(f"kwargs={kwargs!r} does not give arguments by name, as {{'currency': 'EUR'}} would.")
    return dict(kwargs)


def _opened(answer: list[Added] | Exception) -> list[Added]:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _is_coroutine_function(function: Callable[..., Any]) -> bool:
    import inspect

    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _fitting_runner(name: str, runner: str | None, coroutine: bool) -> str:
    if runner is None:
        return "loop" if coroutine else "thread"
    if coroutine and runner == "thread":
        raise TaskInvalid(f"Task {name!r} is a coroutine function, which runner='thread' cannot run; use 'loop'.")
    if not coroutine and runner == "loop":
        raise TaskInvalid(f"Task {name!r} is a plain function, which would block runner='loop'; use 'thread'.")
    return runner


def _memory(size: int | str) -> int:
    try:
        return read_size(size)
    except ValueError as error:
        raise TaskInvalid(f"max_memory={size!r} {error}") from None


def _is_same(known: Task[Any, Any], new: Task[Any, Any]) -> bool:
    """Say whether a module was only imported again: the same definition, perhaps at another line."""
    return known.command == new.command and _definition(known) == _definition(new)


def _definition(task: Task[Any, Any]) -> tuple[str, str]:
    code = getattr(task.function, "__code__", None)
    return (code.co_filename if code else "", getattr(task.function, "__qualname__", repr(task.function)))


def _place(task: Task[Any, Any]) -> str:
    if task.command:
        return f"command {' '.join(task.command)}"
    file, qualname = _definition(task)
    return f"{qualname} in {file or 'an unknown file'}"


def _begin_again_after_fork(app: Penstock) -> None:
    """A connection, a lock or a thread of the parent is of no use in a forked child, and may do harm there."""
    reference = weakref.ref(app)
    inherited: list[Any] = []

    def begin_again() -> None:
        owner = reference()
        if owner is not None:
            # Kept, so that nothing closes the parent's connections from here.
            inherited.append((owner._engine, owner._intake, owner._watch))
            owner._registering = threading.Lock()
            owner._begin()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=begin_again)
