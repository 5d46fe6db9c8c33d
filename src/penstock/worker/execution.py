"""One attempt of one job, as a pipe of steps that the runners share: decode, call, encode, and what its end means."""

import logging
import reprlib
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from penstock.context import JobContext, ProgressInvalid, enter, leave, shielded
from penstock.model.codec import Envelope, decode_envelope
from penstock.model.durations import milliseconds, spell
from penstock.model.errors import (
    Bury,
    Cancel,
    DurationInvalid,
    EnvelopeCorrupt,
    EnvelopeTooNew,
    Retry,
    Snooze,
    Steering,
    WorkerUnfit,
)
from penstock.model.failures import NO_RULES, Classes, classify
from penstock.model.job import UNREADABLE_COUNTERS, Claim, ErrorInfo, Progress
from penstock.model.outcome import Ending, Outcome
from penstock.once import OutcomeInvalid
from penstock.worker.frames import own_frame

log = logging.getLogger("penstock.worker")

LONGEST_TRACEBACK = 16 * 1024
LONGEST_MESSAGE = 4 * 1024
LONGEST_SHOWN = 200
TOO_NEW_SNOOZE_MS = 30_000
DEEPEST_TRACEBACK = 100

#: Looked up once for all jobs: in Python 3.11 reading a member of an enum costs as much as making a value.
_SUCCEEDED = Ending.SUCCEEDED

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
#: What a task is called with, and the context it is called in.
Prepared = tuple[JobContext, tuple[Any, ...], dict[str, Any]]


class Runnable(Protocol):
    """What execution needs of a task."""

    @property
    def name(self) -> str: ...
    @property
    def function(self) -> Callable[..., Any]: ...
    @property
    def runner(self) -> str: ...
    @property
    def command(self) -> tuple[str, ...] | None: ...
    @property
    def max_memory(self) -> int | None: ...
    def decode(self, envelope: Envelope) -> Arguments: ...
    def encode_result(self, value: Any) -> bytes: ...


class Interrupt(BaseException):
    """Raised inside a running job from outside; no Exception, so that `except Exception` does not swallow it."""


class JobTimeout(Interrupt):
    """The job has run for as long as its `timeout` allows."""


class JobStopped(Interrupt):
    """The worker must end now; the job goes back to run elsewhere."""


class NoteSink(Protocol):
    """Where progress and log text of running jobs go."""

    def put(self, claim: Claim, progress: Progress | None, log: str) -> None: ...


class Attempt:
    """A claim while it runs here; its `JobContext` stands on it.

    Attributes:
        failures: whose fault the exceptions of its task are.
        deadline_ns: steady time of its soft limit, 0 for none.
        interrupt: what was raised in it from outside, None if nothing was.
    """

    __slots__ = ("began_ns", "cancelled", "claim", "deadline_ns", "failures", "interrupt", "notes")

    def __init__(self, claim: Claim, notes: NoteSink, failures: Classes = NO_RULES) -> None:
        self.claim, self.notes, self.failures = claim, notes, failures
        self.cancelled = False
        self.interrupt: type[Interrupt] | None = None
        self.began_ns = time.monotonic_ns()
        timeout_ms = claim.terms.timeout_ms
        self.deadline_ns = 0 if timeout_ms is None else self.began_ns + timeout_ms * 1_000_000

    def note(self, progress: Progress | None, log: str) -> None:
        """Pass on what the job says; an interrupt in the middle would leave a lock held or half a message sent."""
        with shielded():
            self.notes.put(self.claim, progress, log)

    def is_cancelled(self) -> bool:
        return self.cancelled

    @property
    def ran_us(self) -> int:
        return (time.monotonic_ns() - self.began_ns) // 1000


def run(attempt: Attempt, task: Runnable, home: object) -> Outcome:
    """Run a plain function to its end; whatever happens, the answer is an outcome.

    Only an interrupt that lands outside the task's own code can leave it as an exception.
    """
    prepared = prepare(attempt, task, home)
    if isinstance(prepared, Outcome):
        return prepared
    context, args, kwargs = prepared
    try:
        before = enter(context)
        try:
            value = task.function(*args, **kwargs)
        finally:
            leave(before)
        return succeed(attempt, task, value)
    except BaseException as error:  # noqa: BLE001 - SystemExit and the like end the job, not the worker
        return explain(attempt, error)


def prepare(attempt: Attempt, task: Runnable, home: object) -> Prepared | Outcome:
    """Read what the client packed; an outcome if that cannot be given to the task."""
    claim = attempt.claim
    try:
        envelope = decode_envelope(claim.envelope, claim.crc)
        args, kwargs = task.decode(envelope)
    except Exception as error:  # noqa: BLE001 - converting arguments may run the application's own code
        return refuse(attempt, error)
    deadline = attempt.deadline_ns / 1e9 if attempt.deadline_ns else None
    return JobContext(claim, attempt, envelope.headers, deadline, home), args, kwargs


def succeed(attempt: Attempt, task: Runnable, value: object) -> Outcome:
    """Make an outcome of what the task returned.

    A value that cannot be kept buries the job: its work is done, and doing it again would give such a value again.
    """
    try:
        result = task.encode_result(value)
    except Exception as error:  # noqa: BLE001 - writing a value may run the application's own code
        return bury_unkept(attempt, task, error, shown(value))
    return Outcome(ending=_SUCCEEDED, result=result, cancel_requested=attempt.cancelled, ran_us=attempt.ran_us)


def bury_unkept(attempt: Attempt, task: Runnable, error: Exception, gave: str) -> Outcome:
    """Make an outcome of a job that has done its work but gave what cannot be kept as its result.

    Args:
        gave: what it gave, shown.
    """
    why = message_of(error).rstrip(".")
    message = (
        f"Task {task.name!r} ran to its end and gave {gave}, which cannot be kept: {why}. "
        "The job is not run again, because its work is done; mend what the task gives."
    )
    outcome = explain(attempt, error)
    told = None if outcome.error is None else replace(outcome.error, message=bounded(message, LONGEST_MESSAGE))
    return replace(outcome, ending=Ending.FAILED, error=told, verdict="bury")


#: A claim that is given back before its code began.
RETURNED = Outcome(ending=Ending.RELEASED, started=False)
#: How long a worker that a job passes by leaves it to others, before any of them may claim it.
PASSING_MS = 200


def passed_on(luck: float) -> Outcome:
    """Give the outcome of a claim that is not for this worker, so that another comes upon it.

    Args:
        luck: a random number from 0 to 1.
    """
    return Outcome(ending=Ending.RELEASED, started=False, after_ms=round(PASSING_MS * (0.5 + luck)))


def cancelled_unstarted(claim: Claim) -> Outcome:
    """Give the outcome of a claim that was asked to stop before it began."""
    error = ErrorInfo(kind="cancelled", message="cancelled before it started", attempt=claim.attempt)
    return Outcome(ending=Ending.CANCELLED, started=False, cancel_requested=True, error=error)


def unreadable(claim: Claim) -> Outcome:
    """Give the outcome of a claim of which not all can be read: what is missing might forbid to start it."""
    if claim.counters is UNREADABLE_COUNTERS:
        what, remedy = "counts of attempts", "`penstock jobs kick` begins them anew"
    else:
        what, remedy = "details, as tags and keys,", "`penstock jobs edit` writes them anew"
    message = f"the stored {what} cannot be read, so it was not run; {remedy}"
    error = ErrorInfo(kind="failed", message=message, attempt=claim.attempt)
    return Outcome(ending=Ending.FAILED, started=False, verdict="bury", error=error)


def found_unfit(outcome: Outcome) -> str | None:
    """Give the reason for which a job called this worker unfit, None if it did not."""
    error = outcome.error
    if outcome.ending is not Ending.RELEASED or error is None or error.failure != "host":
        return None
    return error.message or "no reason given"


class Fate(Struct, frozen=True):
    """What an exception means for the job that it ended."""

    ending: Ending
    kind: str = "failed"
    verdict: Any = None
    after_ms: int | None = None
    started: bool = True
    failure: str = ""


#: So many workers in turn may be called unfit by one job; the next time it is the job's fault.
MOST_UNFIT = 3


def explain(attempt: Attempt, error: BaseException) -> Outcome:
    """Make an outcome of whatever left the task, however hostile."""
    fate = _fate(error)
    if isinstance(fate, Fate) and fate.ending is Ending.FAILED and fate.verdict is None:
        fate = _blamed(attempt, error, fate)
    if isinstance(fate, DurationInvalid):
        error, fate = fate, Fate(Ending.FAILED, verdict="bury")
    return Outcome(
        ending=fate.ending,
        error=_error_info(attempt.claim, error, fate) if _tells(fate, error) else None,
        names=lineage(type(error)) if fate.ending in (Ending.FAILED, Ending.TIMED_OUT) else (),
        verdict=fate.verdict,
        after_ms=fate.after_ms,
        started=fate.started,
        cancel_requested=attempt.cancelled,
        ran_us=attempt.ran_us,
    )


def _fate(error: BaseException) -> Fate | DurationInvalid:
    try:
        match error:
            case Retry():
                after_ms = None if error.after is None else milliseconds(error.after)
                return Fate(Ending.FAILED, verdict="retry", after_ms=after_ms)
            case Snooze():
                return Fate(Ending.SNOOZED, "snoozed", after_ms=milliseconds(error.after))
    except DurationInvalid as invalid:
        return invalid
    match error:
        case Bury() | ProgressInvalid() | OutcomeInvalid():
            return Fate(Ending.FAILED, verdict="bury")
        case Cancel():
            return Fate(Ending.CANCELLED, "cancelled")
        case WorkerUnfit():
            return Fate(Ending.RELEASED, "released", failure="host")
        case JobStopped():
            return Fate(Ending.RELEASED, "released")
        case JobTimeout():
            return Fate(Ending.TIMED_OUT, "timed out")
        case EnvelopeTooNew():
            return Fate(Ending.SNOOZED, "snoozed", after_ms=TOO_NEW_SNOOZE_MS, started=False)
        case _:
            return Fate(Ending.FAILED)


def _blamed(attempt: Attempt, error: BaseException, fate: Fate) -> Fate:
    """Say whose fault a failure is. What is the host's costs the job nothing, unless it has blamed many already."""
    try:
        failure = attempt.failures.of(error)
    except Exception:  # the application's own rule
        log.exception("the rule that says whose fault %s is has failed", name_of(type(error)))
        failure = classify(error)
    if failure == "host" and len(attempt.claim.details.avoid) < MOST_UNFIT:
        return Fate(Ending.RELEASED, "released", failure=failure)
    return replace(fate, failure="" if failure == "job" else failure)


def refuse(attempt: Attempt, error: Exception) -> Outcome:
    """Make an outcome of a claim whose arguments could not be read.

    Damaged bytes stay damaged. Arguments that do not fit may fit the task as the next worker knows it, while a new
    version of the application is rolled out.
    """
    outcome = explain(attempt, error)
    return replace(outcome, verdict="bury") if isinstance(error, EnvelopeCorrupt) else outcome


def _tells(fate: Fate, error: BaseException) -> bool:
    """Leave out the error of an attempt that put itself off or was given back without a word."""
    return (
        fate.failure == "host"
        or fate.ending not in (Ending.SNOOZED, Ending.RELEASED)
        or bool(getattr(error, "reason", ""))
    )


def _error_info(claim: Claim, error: BaseException, fate: Fate) -> ErrorInfo:
    if isinstance(error, JobTimeout):
        message = f"ran longer than its timeout of {spell((claim.terms.timeout_ms or 0) / 1000)}"
    else:
        message = message_of(error)
    quiet = isinstance(error, Steering)
    return ErrorInfo(
        kind=fate.kind,
        type=name_of(type(error)),
        message=message,
        traceback="" if quiet else traceback_of(error),
        attempt=claim.attempt,
        failure=fate.failure,
        where=own_frame(error.__traceback__),
    )


def name_of(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def lineage(kind: type[BaseException]) -> tuple[str, ...]:
    """Give the qualified names of an exception's class and its bases, for `retry_on` and `give_up_on`."""
    return tuple(name_of(base) for base in kind.__mro__ if issubclass(base, BaseException))


def message_of(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException as inner:  # noqa: BLE001 - whatever a hostile __str__ raises must not cost the outcome
        text = f"<its text cannot be read: {type(inner).__name__}>"
    return bounded(text, LONGEST_MESSAGE)


def traceback_of(error: BaseException) -> str:
    """Give the traceback from the task's own code on, as valid text of bounded length."""
    try:
        trace = _below_penstock(error.__traceback__)
        lines = traceback.TracebackException(
            type(error), error, trace, limit=-DEEPEST_TRACEBACK, compact=True, max_group_depth=5
        ).format()
        return bounded("".join(lines), LONGEST_TRACEBACK)
    except BaseException as inner:  # noqa: BLE001 - a hostile exception must not cost the outcome
        return f"The traceback of {type(error).__qualname__} cannot be written: {type(inner).__name__}."


def shown(value: object) -> str:
    """Show a value in few words, however large or hostile."""
    try:
        return bounded(reprlib.repr(value), LONGEST_SHOWN)
    except BaseException as inner:  # noqa: BLE001 - whatever a hostile __repr__ raises must not cost the outcome
        return f"a {type(value).__qualname__} that cannot be shown ({type(inner).__name__})"


def bounded(text: str, limit: int) -> str:
    """Keep head and tail of a long text, and make it valid Unicode."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= limit:
        return text
    half = (limit - 40) // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"


def _below_penstock(trace: TracebackType | None) -> TracebackType | None:
    """Skip the frames of the runner, unless the error came from nowhere else."""
    below = trace
    while below is not None and below.tb_frame.f_globals.get("__name__", "").startswith("penstock.worker"):
        below = below.tb_next
    return below if below is not None else trace
