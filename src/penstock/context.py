"""What a running job sees of itself, and what keeps interrupts out of its store calls."""

import math
import os
import reprlib
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, overload

from penstock.model.durations import Duration
from penstock.model.errors import Cancel, PayloadInvalid, PenstockError
from penstock.model.job import Claim, JobId, Progress

__all__ = [
    "Guard",
    "JobContext",
    "NotInJob",
    "ProgressInvalid",
    "Sink",
    "breathe",
    "current_job",
    "enter",
    "entered",
    "guard_this_thread",
    "is_guarded",
    "leave",
    "shielded",
]

if TYPE_CHECKING:
    from penstock.once import Ledger, Unknown

D = TypeVar("D")
R = TypeVar("R")

LONGEST_NOTE = 1000
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
#: Beyond it, floats and integers part ways, and so do readers of JSON.
_LARGEST_EXACT = 2**53


class NotInJob(PenstockError, LookupError):
    """`current_job` was asked for outside a running job."""

    def __init__(self) -> None:
        super().__init__(
            "No job is running here. Call current_job() inside a task that a worker runs, "
            "or current_job(default=None) where it may also be called directly."
        )


class ProgressInvalid(PayloadInvalid):
    """Progress was reported that is no number, or none that can be stored; it buries the job it comes from.

    Attributes:
        value: what was given for `path`, which is `done` or `total`.
    """

    def __init__(self, task: str, name: str, value: object) -> None:
        self.value = value
        try:
            shown = reprlib.repr(value)
        except ValueError:  # an integer of more digits than Python writes out
            shown = "a number of thousands of digits"
        super().__init__(
            f"Task {task!r} reports progress with {name}={shown}, which is no finite number; "
            "give finite numbers, and leave total out while it is unknown.",
            name,
        )


class Sink(Protocol):
    """Where a running job's words go; each runner gives its own. Both calls return at once and never raise."""

    def note(self, progress: Progress | None, log: str) -> None:
        """Take progress, or text to append to the log of this attempt."""
        ...

    def is_cancelled(self) -> bool:
        """Say whether the job was asked to stop."""
        ...


class JobContext:
    """One attempt of one job, as its own code sees it; safe to use from several threads.

    Attributes:
        claim: what the worker holds on the job.
        headers: the headers that were given when it was enqueued.
        deadline: when the attempt is interrupted, by `time.monotonic()`; None if its time is not bounded.
        home: the application that runs it; jobs that it enqueues there carry its fence.
    """

    __slots__ = ("_sink", "claim", "deadline", "headers", "home")

    def __init__(
        self,
        claim: Claim,
        sink: Sink,
        headers: Mapping[str, str] | None = None,
        deadline: float | None = None,
        home: object = None,
    ) -> None:
        self.claim = claim
        self.headers: Mapping[str, str] = _NO_HEADERS if headers is None else headers
        self.deadline = deadline
        self.home = home
        self._sink = sink

    @property
    def id(self) -> JobId:
        return self.claim.id

    @property
    def task(self) -> str:
        return self.claim.task

    @property
    def queue(self) -> str:
        return self.claim.queue

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.claim.attempt

    @property
    def tags(self) -> tuple[str, ...]:
        return self.claim.details.tags

    @property
    def enqueued_at(self) -> datetime:
        """When the job was accepted, by the store's clock, in UTC."""
        return datetime.fromtimestamp(self.claim.enqueued_ms / 1000, UTC)

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked this job to stop."""
        return self._sink.is_cancelled()

    def check_cancelled(self) -> None:
        """End this job here if somebody asked it to stop.

        Raises:
            Cancel: it was asked to; let it pass through.
        """
        if self._sink.is_cancelled():
            raise Cancel("stopped on request")

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Tell how far the job is; calls in quick succession are stored as one.

        Args:
            note: a few words, cut off after 1,000 characters.

        Raises:
            ProgressInvalid: `done` or `total` is not a finite number. If it leaves the task, the job is buried.
        """
        done = self._number("done", done)
        total = None if total is None else self._number("total", total)
        self._sink.note(Progress(done, total, _valid(str(note)[:LONGEST_NOTE])), "")

    async def aprogress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Do `progress` in a coroutine."""
        self.progress(done, total, note)

    def step(self, name: str, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
        """Call a function, unless an earlier attempt of this job did; then give what it gave there.

        What it gives is recorded before this returns, and given as its return annotation says, in this attempt as in
        later ones. Steps are kept as long as the job. An attempt that died after the function was called and before
        that was recorded leaves no trace: the next one calls it again.

        Args:
            name: tells the steps of a job apart.

        Raises:
            LeaseLost: the job was handed on; end it.
            OutcomeInvalid: what it gave cannot be kept. If it leaves the task, the job is buried.

        >>> from penstock import Penstock
        >>> from penstock.testing import run_jobs
        >>> app, calls = Penstock("memory://"), []
        >>> @app.task(name="shop.order", max_attempts=2, backoff=0)
        ... def order(number: int) -> str:
        ...     me = current_job()
        ...     me.step("charge", calls.append, number)
        ...     if me.attempt == 1:
        ...         raise ConnectionError("no mail today")
        ...     return f"charged {len(calls)} time"
        >>> job = order.enqueue(7)
        >>> run_jobs(app), job.result()
        (2, 'charged 1 time')
        """
        from penstock.once import do_step

        return do_step(self._ledger(), name, function, args, kwargs)

    async def astep(self, name: str, function: Callable[..., Awaitable[R]], /, *args: Any, **kwargs: Any) -> R:
        """Do `step` with a coroutine function."""
        from penstock.once import ado_step

        return await ado_step(self._ledger(), name, function, args, kwargs)

    def once(
        self,
        key: str,
        function: Callable[..., R],
        /,
        *args: Any,
        unknown: "Unknown" = "bury",
        keep: Duration = "30d",
        **kwargs: Any,
    ) -> R | None:
        """Call a function unless it was called for this key before, by whatever job; then give what it gave there.

        That it is about to be called is recorded before, what it gave after. An exception says that it did not happen,
        and takes that back, except for a `TimeoutError`. While another job is about to do it, this job snoozes. Where
        it was begun and nobody knows how it ended, because a process died in between, `unknown` decides.

        Args:
            key: names the side effect, as "mail:7:ada"; all tasks share the keys.
            unknown: `bury` the job for a person, `repeat` it, `skip` it and give None, or a function that looks and
                says whether it happened.
            keep: how long the key is remembered.

        Raises:
            LeaseLost: the job was handed on; end it.
            Bury: nobody knows whether it happened; let it pass through.
            Snooze: another job is about to do it; let it pass through.
            OutcomeInvalid: what it gave cannot be kept. If it leaves the task, the job is buried.
        """
        from penstock.once import do_once

        return do_once(self._ledger(), key, function, args, kwargs, unknown, keep)

    async def aonce(
        self,
        key: str,
        function: Callable[..., Awaitable[R]],
        /,
        *args: Any,
        unknown: "Unknown" = "bury",
        keep: Duration = "30d",
        **kwargs: Any,
    ) -> R | None:
        """Do `once` with a coroutine function."""
        from penstock.once import ado_once

        return await ado_once(self._ledger(), key, function, args, kwargs, unknown, keep)

    def _ledger(self) -> "Ledger":
        from penstock.once import Ledger

        return Ledger(cast("Any", self.home), self.claim)

    def log(self, text: str) -> None:
        """Append a line to the log of this attempt."""
        text = _valid(text)
        self._sink.note(None, text if text.endswith("\n") else f"{text}\n")

    def _number(self, name: str, value: Any) -> float:
        """Make a number that JSON carries to every reader, also of one that another library made."""
        try:
            number = value if type(value) is int and abs(value) <= _LARGEST_EXACT else float(value)
        except (TypeError, ValueError, OverflowError):
            raise ProgressInvalid(self.task, name, value) from None
        if not math.isfinite(number):
            raise ProgressInvalid(self.task, name, value)
        return number

    def __repr__(self) -> str:
        return f"<JobContext of {self.task} {self.id}, attempt {self.attempt}>"


def _valid(text: str) -> str:
    """Make valid Unicode of it: lone surrogates have no form in UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


_current: ContextVar[JobContext | None] = ContextVar("penstock_job", default=None)

#: Tells "no default given" from a default of None.
_MISSING = object()


@overload
def current_job() -> JobContext: ...
@overload
def current_job(default: D) -> JobContext | D: ...
def current_job(default: object = _MISSING) -> object:
    """Give the job that runs here.

    Args:
        default: given back outside a job.

    Raises:
        NotInJob: no job runs here and no default was given.

    >>> current_job(default=None) is None
    True
    """
    context = _current.get()
    if context is not None:
        return context
    if default is _MISSING:
        raise NotInJob
    return default


#: Gives the job that runs here, None outside one; enqueueing asks it for every job.
running = _current.get

#: Make a context the current job, and with what that gave make the one before it so again. Not a context manager,
#: because that would cost each job half a microsecond.
enter, leave = _current.set, _current.reset


@contextmanager
def entered(context: JobContext) -> Iterator[JobContext]:
    """Make a context the current job for a `with` block."""
    before = enter(context)
    try:
        yield context
    finally:
        leave(before)


class Guard:
    """Lets exceptions from outside into one thread only while it is in no store call.

    Inside one, they could leave a lock held or a transaction half told. At most one comes until the next `reset`; that
    bears out `enter`, which one may leave before it has counted back.

    Attributes:
        lock: held by whoever sets an exception in the thread, and by the thread while it goes in or out.
    """

    __slots__ = ("_depth", "_pending", "_raised", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_again)

    def reset(self) -> None:
        """Forget what was; for the thread itself, between two jobs."""
        self._depth = 0
        self._pending: type[BaseException] | None = None
        self._raised = False

    def admit(self, why: type[BaseException]) -> bool:
        """Say, under the lock, whether to set the exception now; if not, it is raised at the end of the call."""
        if self._depth:
            self._pending = why
        else:
            self._raised = True
        return self._raised

    def enter(self) -> None:
        with self.lock:
            self._depth += 1
        if self._raised:
            _land()

    def leave(self) -> None:
        with self.lock:
            self._depth -= 1
            open = self._depth == 0
        if open and self._pending is not None:
            self._raise()

    def breathe(self) -> None:
        if self._depth == 1 and self._pending is not None:
            self._raise()

    def _raise(self) -> None:
        why, self._pending = self._pending, None
        if why is not None:
            raise why

    def _begin_again(self) -> None:
        """Somebody may have held the lock when the process was forked."""
        self.lock = threading.Lock()
        self.reset()


def _land() -> None:
    """Let an exception that is set in this thread be raised here; Python looks for one at each turn of a loop."""
    for _ in range(2):
        pass


class _Thread(threading.local):
    guard: Guard | None = None


_this_thread = _Thread()


def guard_this_thread(guard: Guard) -> None:
    """Let store calls of this thread go through the guard from now on."""
    _this_thread.guard = guard


def is_guarded() -> bool:
    """Say whether this thread may be interrupted from outside."""
    return _this_thread.guard is not None


def breathe() -> None:
    """Let an interrupt that waits for the end of this call come now, where it does no harm."""
    guard = _this_thread.guard
    if guard is not None:
        guard.breathe()


class shielded:
    """Put off interrupts until the end of a `with` block; does nothing in threads that nobody interrupts. Nests."""

    __slots__ = ("_guard",)

    def __enter__(self) -> None:
        self._guard = guard = _this_thread.guard
        if guard is not None:
            guard.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._guard is not None:
            self._guard.leave()
