"""What may be said of a task when it is registered, and of a job when it is enqueued."""

import builtins
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeGuard, TypeVar

import msgspec
from msgspec import Struct

from penstock.model.durations import LONGEST_S, Duration, milliseconds, seconds
from penstock.model.errors import TaskInvalid, Unsupported
from penstock.model.job import HIGHEST_PRIORITY, LOWEST_PRIORITY, QUEUE_NAME, QUEUE_NAME_IN_WORDS, Unique
from penstock.model.retry import DEFAULT_POLICY, Backoff, Exponential, Fixed, Linear, Policy, Table

__all__ = [
    "PLAIN",
    "BackoffOption",
    "ExceptionOption",
    "OptionUnsupported",
    "Terms",
    "UniqueOption",
    "is_text",
    "read_policy",
    "read_terms",
    "refuse_later_options",
]

BackoffOption = Backoff | Duration | Sequence[Duration] | None
ExceptionOption = type[BaseException] | str | Iterable[type[BaseException] | str] | None
UniqueOption = bool | str | Unique | Callable[..., str] | None

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LATER = ("fallback", "rate", "concurrency", "order_by")
_MOST_TRIES = 1_000_000_000

#: What other job queues call it.
_ELSEWHERE = {"retries": "max_attempts", "max_retries": "max_attempts"}

V = TypeVar("V", bound=Struct)


class OptionUnsupported(Unsupported):
    """An option of a later version was given; `capability` holds its name."""

    def __init__(self, option: str) -> None:
        self.capability = option
        Exception.__init__(self, f"This version of penstock has no {option}= yet; leave it out.")


class Terms(Struct, frozen=True, kw_only=True):
    """On what terms a job is enqueued, besides its task and arguments.

    Attributes:
        queue, priority: None leaves them to the task.
        delay_ms: how long it waits first.
        run_at_ms, expires_ms: ms since the epoch.
        expires_in_ms: how long it may wait for its start.
        connection: a database connection in whose transaction the job is added.
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


def read_terms(
    *,
    queue: str | None = None,
    priority: int | None = None,
    delay: Duration | None = None,
    run_at: datetime | None = None,
    expires: Duration | datetime | None = None,
    unique: UniqueOption = None,
    idempotency_key: str | None = None,
    order_key: str | None = None,
    tags: Sequence[str] = (),
    connection: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Terms:
    """Check what was said of a job.

    Raises:
        TaskInvalid: an option cannot be used.
        DurationInvalid: a delay or deadline is no duration.
    """
    if delay is not None and run_at is not None:
        raise TaskInvalid("Give delay= or run_at=, not both.")
    deadline = isinstance(expires, datetime)
    return Terms(
        queue=None if queue is None else check_queue(queue),
        priority=None if priority is None else check_priority(priority),
        delay_ms=0 if delay is None else milliseconds(delay),
        run_at_ms=None if run_at is None else _moment_ms("run_at", run_at),
        expires_ms=_moment_ms("expires", expires) if deadline else None,
        expires_in_ms=None if deadline or expires is None else milliseconds(expires),
        unique=check_unique(unique),
        idempotency_key=_key("idempotency_key", idempotency_key),
        order_key=_key("order_key", order_key),
        tags=check_tags(tags),
        connection=connection,
        headers=_headers(headers),
    )


def read_policy(
    *,
    max_attempts: int,
    max_crashes: int,
    timeout: Duration | None,
    backoff: BackoffOption,
    retry_on: ExceptionOption,
    give_up_on: ExceptionOption,
    keep: Duration,
) -> Policy:
    """Check what was said of a task's failures and time.

    Raises:
        TaskInvalid: an option cannot be used.
        DurationInvalid: a timeout, backoff or retention is no duration.
    """
    policy = Policy(
        max_attempts=check_count("max_attempts", max_attempts, 1),
        max_crashes=check_count("max_crashes", max_crashes, 0),
        timeout_ms=None if timeout is None else _timeout(timeout),
        backoff=_backoff(backoff),
        retry_on=None if retry_on is None else _exceptions("retry_on", retry_on),
        give_up_on=() if give_up_on is None else _exceptions("give_up_on", give_up_on),
        keep_ms=milliseconds(keep),
    )
    return DEFAULT_POLICY if policy == DEFAULT_POLICY else policy


def refuse_later_options(given: Iterable[str], known: Iterable[str], whose: str = "A task") -> None:
    """Refuse options that are no options, with the one that was meant, and those of later versions by name."""
    for option in given:
        if option in _LATER:
            raise OptionUnsupported(option)
        raise TaskInvalid(f"{whose} has no option {option!r}. {_meant(option, known)}")


def _meant(name: str, known: Iterable[str]) -> str:
    import difflib

    listed = sorted(known)
    near = [_ELSEWHERE[name]] if _ELSEWHERE.get(name) in listed else difflib.get_close_matches(name, listed, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known: {', '.join(listed)}."


def check_name(name: object) -> str:
    if is_text(name) and "\0" not in name:
        return name
    hint = "pass the function itself to app.task first" if callable(name) else "give text that is not empty"
    raise TaskInvalid(f"{name!r} is no task's name; {hint}, as 'shop.send_receipt', in valid Unicode and without NUL.")


def check_text(option: str, text: object) -> str:
    if text == "" or is_text(text):
        return str(text)
    raise TaskInvalid(f"{option}={text!r} is no text; give text in valid Unicode.")


def check_count(option: str, value: object, least: int, most: int = _MOST_TRIES) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise TaskInvalid(f"{option}={value!r} is not a whole number of at least {least} and at most {most:,}.")
    return value


def check_queue(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(QUEUE_NAME, name):
        raise TaskInvalid(f"{name!r} is no queue name; use {QUEUE_NAME_IN_WORDS}")
    return name


def check_priority(priority: object) -> int:
    if isinstance(priority, int) and not isinstance(priority, bool) and LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        return int(priority)
    raise TaskInvalid(f"priority={priority!r} is not a whole number from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}.")


def check_tags(tags: Sequence[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise TaskInvalid(f"tags={tags!r} is one text; give a list such as [{tags!r}].")
    if not isinstance(tags, Iterable):
        raise TaskInvalid(f"tags={tags!r} is no list; give texts, as in ['night', 'eu'].")
    found: tuple[object, ...] = tuple(tags)
    for tag in found:
        if not is_text(tag):
            raise TaskInvalid(f"{tag!r} is no tag; tags are texts that are not empty, in valid Unicode.")
    return tuple(tags)


def check_unique(unique: object) -> UniqueOption:
    if unique is None or unique is False:
        return None
    if isinstance(unique, Unique):
        return _check_rule(unique)
    if unique is True or callable(unique) or is_text(unique):
        return unique
    raise TaskInvalid(
        f"unique={unique!r} makes no key. Give True for all arguments, a template such as '{{order_id}}', "
        "a function of the arguments, or a Unique value."
    )


def _check_rule(unique: Unique) -> Unique:
    rule = _as_stored("unique", unique)
    if rule.until == "window" and not 0 < rule.window_ms <= LONGEST_S * 1000:
        raise TaskInvalid(
            f"unique={unique!r} has no window; give its length in milliseconds, as window_ms=300_000 for 5 minutes."
        )
    return rule


def _as_stored(option: str, value: V) -> V:
    """Give a value as the store gives it back: what it could not read there would stop every worker."""
    try:
        return msgspec.convert(msgspec.to_builtins(value), type(value))
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise TaskInvalid(f"{option}={value!r} cannot be stored: {error}. Give what its annotations say.") from None


def _timeout(value: Duration) -> int:
    timeout_ms = milliseconds(value)
    if timeout_ms == 0:
        raise TaskInvalid("timeout=0 would end every attempt at once; give None to lift the bound.")
    return timeout_ms


def _backoff(value: Any) -> Backoff:
    if value is None or value == "exponential":
        return DEFAULT_POLICY.backoff
    if isinstance(value, Exponential | Fixed | Linear | Table):
        return _check_waits(_as_stored("backoff", value))
    if isinstance(value, int | float | str | timedelta):
        return Fixed(seconds(value))
    if isinstance(value, Sequence) and value:
        return Table(tuple(seconds(entry) for entry in value))
    raise TaskInvalid(
        f"backoff={value!r} says not how long to wait. Give a duration, 'exponential', a list of durations, "
        "or Exponential(...), Fixed(...), Linear(...), Table(...)."
    )


def _check_waits(backoff: Backoff) -> Backoff:
    """Refuse what JSON cannot hold, and waits that no clock could be set to."""
    for name in backoff.__struct_fields__:
        value = getattr(backoff, name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not (math.isfinite(number) and 0 <= number <= LONGEST_S):
                raise TaskInvalid(f"backoff={backoff!r} holds {number!r}; give numbers from 0 to 100 years in seconds.")
    return backoff


def _exceptions(option: str, given: ExceptionOption) -> tuple[str, ...]:
    entries: Iterable[Any] = [given] if isinstance(given, str | type) else given or ()
    try:
        return tuple(_exception(option, entry) for entry in entries)
    except TypeError:
        raise TaskInvalid(f"{option}={given!r} is no list of exceptions; give classes or their names.") from None


def _exception(option: str, entry: Any) -> str:
    if isinstance(entry, type) and issubclass(entry, BaseException):
        return f"{entry.__module__}.{entry.__qualname__}"
    if is_text(entry):
        return _builtin(option, entry)
    raise TaskInvalid(f"{option} holds {entry!r}; give exception classes or their names.")


def _builtin(option: str, name: str) -> str:
    """Give a builtin exception's full name; other names are left alone unless they look like one misspelt."""
    if hasattr(builtins, name):
        return f"builtins.{name}"
    if "." not in name:
        import difflib

        known = [known for known, found in vars(builtins).items() if isinstance(found, type)]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if near:
            raise TaskInvalid(
                f"{option} holds {name!r}, which is no exception of Python. Did you mean {near[0]!r}? "
                "Give exceptions of your own as classes, or by module and name."
            )
    return name


def _moment_ms(option: str, moment: Any) -> int:
    if not isinstance(moment, datetime):
        raise TaskInvalid(f"{option}={moment!r} is no moment; give a datetime with a time zone.")
    if moment.tzinfo is None:
        raise TaskInvalid(
            f"{option}={moment!r} has no time zone; give one, as in datetime(2030, 1, 1, tzinfo=timezone.utc)."
        )
    return round(moment.timestamp() * 1000)


def _key(option: str, key: Any) -> str | None:
    if key is None or is_text(key):
        return key
    raise TaskInvalid(f"{option}={key!r} is no key; keys are texts that are not empty, in valid Unicode.")


def is_text(value: object) -> TypeGuard[str]:
    """Say whether it can be stored: a lone surrogate has no form in UTF-8."""
    return isinstance(value, str) and value != "" and not _SURROGATE.search(value)


def _headers(headers: Mapping[Any, Any] | None) -> Mapping[str, str] | None:
    if headers is not None and not isinstance(headers, Mapping):
        raise TaskInvalid(f"headers={headers!r} is no mapping; give texts by name, as in {{'trace': 'x7'}}.")
    for name, value in (headers or {}).items():
        if not is_text(name) or not (value == "" or is_text(value)):
            raise TaskInvalid(f"Header {name!r}={value!r} is not text; headers are texts by name, in valid Unicode.")
    return dict(headers) if headers else None
