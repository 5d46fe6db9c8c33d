"""The errors penstock raises, and the signals by which a task steers its own job.

PenstockError
├── SettingsInvalid              an option, variable or file entry cannot be used
├── DurationInvalid              a text or number is no duration
├── TextInvalid                  a text that no store can keep
├── TaskInvalid                  a function cannot be registered as a task
├── TaskUnknown                  no task of that name is registered here
├── PayloadInvalid               a value cannot travel
│   ├── ArgumentsInvalid         arguments do not fit the task's signature
│   ├── PayloadTooLarge          an envelope is over the size limit
│   └── EnvelopeCorrupt          stored bytes are not what was accepted
├── EnvelopeTooNew               written by a newer major version
├── JobNotFound                  no job of that id
├── JobFailed                    a result was asked of a job that ended without one
├── ResultTimeout                the job did not end in the time given
├── JobRefused                   the store did not accept a job
│   ├── QueueFull                its queue is full; come back after `retry_after`
│   ├── UniqueConflict           another live job holds its unique key
│   └── IdempotencyConflict      its key or id was used before for another job
├── ConnectionInvalid            no job can be added in the transaction of this connection
├── LeaseLost                    a process acts under a lease that is void or unknown
└── EngineError
    ├── EngineUnavailable        the store cannot take this call now; try again
    │   ├── EngineBusy           locked or overloaded beyond the deadline
    │   ├── EngineDown           cannot be reached, or failed in the middle
    │   ├── EngineFull           no room on its disk or in its memory
    │   └── EngineReadOnly       it can be read but not written
    ├── EngineUnknown            no engine answers to this URL
    ├── StoreInvalid             the file or database is not a penstock store
    ├── StoreCorrupt             the store is damaged
    ├── SchemaMismatch           written by another version of penstock
    └── Unsupported              this engine does not offer what was asked
"""

from collections.abc import Callable, Sequence
from typing import Any

_LONGEST_SHOWN = 100
_MOST_LISTED = 20


class PenstockError(Exception):
    """Base of every error that penstock raises."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        # Exception's own way calls the class with the message, which no constructor below takes; other processes'
        # pools hang on an error that they cannot rebuild.
        return _rebuild, (type(self), *self.args), self.__dict__


def _rebuild(kind: type[PenstockError], *args: object) -> PenstockError:
    return kind.__new__(kind, *args)


class SettingsInvalid(PenstockError):
    """One or more settings cannot be used; `faults` lists all of them."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class DurationInvalid(PenstockError):
    """A value cannot be read as a duration; `value` holds it."""

    def __init__(self, value: object, why: str) -> None:
        self.value = value
        super().__init__(
            f"{_shown(value)} is not a duration: {why}. "
            "Give seconds, a timedelta, or text such as '90s', '5m', '1h30m', '2d'."
        )


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        return "A number of thousands of digits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


class TextInvalid(PenstockError, ValueError):
    """A text holds a lone surrogate, for which UTF-8 has no form; `value` holds it."""

    def __init__(self, what: str, value: str) -> None:
        self.value = value
        super().__init__(
            f"{_shown(value)} is no {what}: it holds a lone surrogate, as bytes that are not UTF-8 leave. "
            "Give text in valid Unicode."
        )


class TaskInvalid(PenstockError):
    """A function, command or option cannot make a task."""


class TaskUnknown(PenstockError):
    """No task of this name is registered; `task` holds the name."""

    def __init__(self, task: str, known: Sequence[str] = ()) -> None:
        self.task = task
        super().__init__(f"Task {task!r} is not registered here.{_near(task, known)}{_listed(known)}")


def _near(task: str, known: Sequence[str]) -> str:
    """Suggest the task that was meant: like the one given, or of the same name in a module."""
    import difflib

    same = sorted(name for name in known if name.rpartition(".")[2] == task)
    like = same or difflib.get_close_matches(task, known, n=1, cutoff=0.75)
    return f" Did you mean {like[0]!r}?" if like else ""


def _listed(known: Sequence[str]) -> str:
    if not known:
        return ""
    more = f" and {len(known) - _MOST_LISTED} more" if len(known) > _MOST_LISTED else ""
    return f" Registered here: {', '.join(sorted(known)[:_MOST_LISTED])}{more}."


class PayloadInvalid(PenstockError):
    """A value cannot travel as JSON; `path` says where it stands."""

    def __init__(self, message: str, path: str = "") -> None:
        self.path = path
        super().__init__(message)


class ArgumentsInvalid(PayloadInvalid):
    """Arguments do not fit the signature of their task; `task` holds its name."""

    def __init__(self, task: str, message: str, path: str = "") -> None:
        self.task = task
        super().__init__(f"Task {task!r} does not take these arguments: {message}", path)


class PayloadTooLarge(PayloadInvalid):
    """An envelope or result is over the limit; `size` and `limit` are bytes."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        self.size, self.limit = size, limit
        super().__init__(
            f"{what} came to {size:,} bytes as JSON, over the limit of {limit:,}. "
            "Store large data elsewhere and pass its name, or raise `max_payload`."
        )


class EnvelopeCorrupt(PayloadInvalid):
    """Stored bytes fail their checksum or are no envelope."""


class EnvelopeTooNew(PenstockError):
    """An envelope was written by a newer major version; `version` holds it."""

    def __init__(self, version: int, known: int) -> None:
        self.version = version
        super().__init__(
            f"This job's envelope has version {version}; this penstock reads up to {known}. Upgrade penstock here."
        )


class JobNotFound(PenstockError):
    """No job has this id, or it was pruned; `id` holds it."""

    def __init__(self, id: str) -> None:
        self.id = id
        super().__init__(
            f"No job has the id {id!r}. It was never accepted here, was deleted, or ended longer ago than it is kept; "
            "a task's keep= says how long that is."
        )


class JobFailed(PenstockError):
    """A job ended without a result.

    Attributes:
        id: the job.
        state: how it ended: `buried`, `cancelled` or `expired`.
        error: name and message of its last error, None if it never failed.
        traceback: text of the last traceback, empty if there is none.
    """

    def __init__(self, id: str, state: str, error: str | None, traceback: str = "") -> None:
        self.id, self.state, self.error, self.traceback = id, state, error, traceback
        reason = f": {error}" if error else ""
        super().__init__(f"Job {id} ended {state}{reason}. See it with `penstock jobs show {id}`.")


class ResultTimeout(PenstockError):
    """A job did not end in time; `id`, `state` and `timeout` (seconds) say which."""

    def __init__(self, id: str, state: str, timeout: float, hint: str = "") -> None:
        self.id, self.state, self.timeout = id, state, timeout
        way_out = hint or f"Wait longer, or see how far it is with `penstock jobs show {id}`."
        super().__init__(f"Job {id} is {state} after {timeout:g} s. {way_out}")


class JobRefused(PenstockError):
    """The store did not accept a job; nothing of its request was stored."""


class QueueFull(JobRefused):
    """A queue holds as many unfinished jobs as its limit allows.

    Attributes:
        queue: its name.
        limit: how many jobs it takes.
        retry_after: seconds after which room is likely, from the measured drain rate.
    """

    def __init__(self, queue: str, limit: int, retry_after: float) -> None:
        self.queue, self.limit, self.retry_after = queue, limit, retry_after
        raised = f"raise the limit with `penstock queues limit {queue} N`."
        if limit == 0:
            super().__init__(f"Queue {queue!r} takes no jobs, as its limit is 0; {raised}")
        else:
            wait = f"Try again in {retry_after:.3g} s"
            super().__init__(f"Queue {queue!r} is full ({limit:,} jobs). {wait}, add workers, or {raised}")


class UniqueConflict(JobRefused):
    """Another live job holds the unique key; `key` and `holder` (its id) say which."""

    def __init__(self, key: str, holder: str) -> None:
        self.key, self.holder = key, holder
        super().__init__(
            f"Job {holder} holds the unique key {key!r}. Follow that job, cancel it, or use another key; "
            "Unique(..., clash='keep') gives you that job instead of this error."
        )


class IdempotencyConflict(JobRefused):
    """A key or id was used before for a job with other content; `holder` is that job."""

    def __init__(self, key: str, holder: str) -> None:
        self.key, self.holder = key, holder
        super().__init__(
            f"The idempotency key {key!r} belongs to job {holder}, which has other content. Use another key."
        )


class ConnectionInvalid(PenstockError):
    """What was given as connection= cannot carry a job; nothing was stored, and its transaction is as it was."""


class LeaseLost(PenstockError):
    """A process acts under a lease that is void or unknown; `process` holds its id."""

    def __init__(self, process: str) -> None:
        self.process = process
        super().__init__(
            f"The lease of process {process} is void: what it held has been handed on, and nothing was stored. "
            "End the work; another process does it again."
        )


class EngineError(PenstockError):
    """Base of all that goes wrong between penstock and its store."""


class EngineUnavailable(EngineError):
    """The store cannot take this call now; nothing is lost, try again."""


class EngineBusy(EngineUnavailable):
    """The store stayed locked or overloaded beyond the deadline of the call."""


class EngineDown(EngineUnavailable):
    """The store cannot be reached, or failed during the call."""


class EngineFull(EngineUnavailable):
    """The store has no room left on its disk or in its memory."""


class EngineReadOnly(EngineUnavailable):
    """The store can be read but not written."""


class EngineUnknown(EngineError):
    """No engine answers to this URL; `url` holds it without its password."""

    def __init__(self, url: str, message: str) -> None:
        self.url = url
        super().__init__(message)


class StoreInvalid(EngineError):
    """The file or database exists but is not a penstock store."""


class StoreCorrupt(EngineError):
    """The store is damaged; nothing is repaired silently."""


class SchemaMismatch(EngineError):
    """The store was written by another version; `found` and `known` are schema numbers."""

    def __init__(self, found: int, known: int, message: str) -> None:
        self.found, self.known = found, known
        super().__init__(message)


class Unsupported(EngineError):
    """The engine does not offer `capability`."""

    def __init__(self, engine: str, capability: str) -> None:
        self.capability = capability
        way_out = _INSTEAD.get(capability, "do without, or use another engine")
        super().__init__(f"The {engine} engine does not support {capability}; {way_out}.")


_INSTEAD = {"transactions": "leave connection= out, or name your database as the setting `outbox`"}


class Steering(BaseException):
    """Base of what a task raises to steer its own job; not an error, so not an Exception."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason)


class Retry(Steering):
    """Run this job again later; counts as a failed attempt.

    Args:
        reason: kept as the error of the attempt.
        after: seconds, timedelta or text; None uses the task's own backoff.
    """

    def __init__(self, reason: str = "", *, after: object = None) -> None:
        self.after = after
        super().__init__(reason)


class Snooze(Steering):
    """Run this job again after a duration, free of charge."""

    def __init__(self, after: object, reason: str = "") -> None:
        self.after = after
        super().__init__(reason)


class Bury(Steering):
    """Take this job out of circulation for a person to look at."""


class Cancel(Steering):
    """End this job as cancelled."""


class WorkerUnfit(Steering):
    """This worker cannot do its work: give the job back free of charge and stop claiming."""
