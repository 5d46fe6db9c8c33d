"""What may be said of a task when it is registered, and of a job when it is enqueued."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict

from msgspec import Struct

from penstock.checks import (
    BackoffOption,
    ExceptionOption,
    UniqueOption,
    check_backoff,
    check_count,
    check_dependencies,
    check_exceptions,
    check_headers,
    check_key,
    check_memory,
    check_moment,
    check_priority,
    check_queue,
    check_tags,
    check_timeout,
    check_unique,
)
from penstock.fallbacks import FallbackOption, Known, read_fallbacks
from penstock.model.durations import Duration, milliseconds
from penstock.model.errors import TaskInvalid, Unsupported
from penstock.model.retry import DEFAULT_POLICY, Policy

__all__ = [
    "PLAIN",
    "CommandOptions",
    "JobTerms",
    "OptionUnsupported",
    "TaskOptions",
    "Terms",
    "Traits",
    "read_options",
    "read_terms",
    "refuse_unknown",
]

_LATER = ("rate", "concurrency", "order_by")

#: What other job queues call it.
_ELSEWHERE = {"retries": "max_attempts", "max_retries": "max_attempts", "countdown": "delay", "eta": "run_at"}


class OptionUnsupported(Unsupported):
    """An option of a later version was given; `capability` holds its name."""

    def __init__(self, option: str) -> None:
        self.capability = option
        Exception.__init__(self, f"This version of penstock has no {option}= yet; leave it out.")


class CommandOptions(TypedDict, total=False):
    """The options of `Penstock.command`, as type checkers see them; `Penstock.task` says what each means."""

    queue: str
    priority: int
    max_attempts: int
    max_crashes: int
    timeout: Duration | None
    backoff: BackoffOption
    retry_on: ExceptionOption
    give_up_on: ExceptionOption
    fallback: FallbackOption
    depends_on: str | Sequence[str]
    keep: Duration
    unique: UniqueOption
    tags: Sequence[str]


class TaskOptions(CommandOptions, total=False):
    """The options of `Penstock.task`, as type checkers see them."""

    name: str | None
    runner: Literal["thread", "loop", "process"] | None
    max_memory: int | str | None


class JobTerms(TypedDict, total=False):
    """The terms of `Task.using` and `Penstock.using`, as type checkers see them."""

    queue: str | None
    priority: int | None
    delay: Duration | None
    run_at: datetime | None
    expires: Duration | datetime | None
    unique: UniqueOption
    idempotency_key: str | None
    order_key: str | None
    tags: Sequence[str]
    connection: Any
    headers: Mapping[str, str] | None


class Traits(Struct, frozen=True, kw_only=True):
    """What the options of a task say of its jobs, checked.

    Attributes:
        unique: None, True, a template, a function of the arguments, or a `Unique`.
        depends_on: names of the dependencies whose open breakers keep its jobs waiting.
        max_memory: bytes.
    """

    queue: str = "default"
    priority: int = 0
    policy: Policy = DEFAULT_POLICY
    unique: Any = None
    tags: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    max_memory: int | None = None


class Terms(Struct, frozen=True, kw_only=True):
    """On what terms a job is enqueued, besides its task and arguments; checked.

    Attributes:
        queue, priority: None leaves them to the task.
        delay_ms: how long it waits first.
        run_at_ms, expires_ms: ms since the epoch.
        expires_in_ms: how long it may wait for its start.
        connection: a database connection in whose transaction the job is written.
    """

    queue: str | None = None
    priority: int | None = None
    delay_ms: int = 0
    run_at_ms: int | None = None
    expires_ms: int | None = None
    expires_in_ms: int | None = None
    unique: Any = None
    idempotency_key: str | None = None
    order_key: str | None = None
    tags: tuple[str, ...] = ()
    headers: Mapping[str, str] | None = None
    connection: Any = None


PLAIN = Terms()


def read_options(options: CommandOptions, known: Mapping[str, Known], max_memory: int | str | None = None) -> Traits:
    """Check what was said of a task or command.

    Args:
        known: the tasks that are registered so far, by name.

    Raises:
        TaskInvalid: an option cannot be used.
        DurationInvalid: a timeout, backoff or retention is no duration.
    """
    return Traits(
        queue=check_queue(options.get("queue", "default")),
        priority=check_priority(options.get("priority", 0)),
        policy=_policy(options, known),
        unique=check_unique(options.get("unique")),
        tags=check_tags(options.get("tags", ())),
        depends_on=check_dependencies(options.get("depends_on", ())),
        max_memory=None if max_memory is None else check_memory(max_memory),
    )


def _policy(options: CommandOptions, known: Mapping[str, Known]) -> Policy:
    policy = Policy(
        max_attempts=check_count("max_attempts", options.get("max_attempts", 5), 1),
        max_crashes=check_count("max_crashes", options.get("max_crashes", 3), 0),
        timeout_ms=check_timeout(options.get("timeout", "1h")),
        backoff=check_backoff(options.get("backoff")),
        retry_on=check_exceptions("retry_on", options.get("retry_on")),
        give_up_on=check_exceptions("give_up_on", options.get("give_up_on")) or (),
        fallbacks=read_fallbacks(options.get("fallback"), known),
        keep_ms=milliseconds(options.get("keep", "24h")),
    )
    return DEFAULT_POLICY if policy == DEFAULT_POLICY else policy


def read_terms(terms: JobTerms) -> Terms:
    """Check what was said of a job.

    Raises:
        TaskInvalid: a term is not known or cannot be used.
        DurationInvalid: a delay or deadline is no duration.
    """
    refuse_unknown(terms, JobTerms.__annotations__, "A job")
    queue, priority = terms.get("queue"), terms.get("priority")
    delay, run_at, expires = terms.get("delay"), terms.get("run_at"), terms.get("expires")
    if delay is not None and run_at is not None:
        raise TaskInvalid(f"A job starts after delay={delay!r} or at run_at={run_at!r}; give one of them, not both.")
    deadline = isinstance(expires, datetime)
    return Terms(
        queue=None if queue is None else check_queue(queue),
        priority=None if priority is None else check_priority(priority),
        delay_ms=0 if delay is None else milliseconds(delay),
        run_at_ms=None if run_at is None else check_moment("run_at", run_at),
        expires_ms=check_moment("expires", expires) if deadline else None,
        expires_in_ms=None if deadline or expires is None else milliseconds(expires),
        unique=check_unique(terms.get("unique")),
        idempotency_key=check_key("idempotency_key", terms.get("idempotency_key")),
        order_key=check_key("order_key", terms.get("order_key")),
        tags=check_tags(terms.get("tags", ())),
        headers=check_headers(terms.get("headers")),
        connection=terms.get("connection"),
    )


def refuse_unknown(given: Iterable[str], known: Iterable[str], whose: str) -> None:
    """Refuse options that are no options, with the one that was meant, and those of later versions by name."""
    listed = sorted(known)
    for option in given:
        if option in listed:
            continue
        if option in _LATER:
            raise OptionUnsupported(option)
        raise TaskInvalid(f"{whose} has no option {option!r}.{_meant(option, listed)} Known: {', '.join(listed)}.")


def _meant(name: str, known: Sequence[str]) -> str:
    import difflib

    near = [_ELSEWHERE[name]] if _ELSEWHERE.get(name) in known else difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
