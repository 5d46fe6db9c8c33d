"""Refuse what a caller cannot mean: each value is named, with the way out."""

import builtins
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeGuard, TypeVar, get_args

import msgspec
from msgspec import Struct

from penstock.handle import JobHandle
from penstock.model.durations import LONGEST_S, Duration, milliseconds, seconds
from penstock.model.errors import JobNotFound, TaskInvalid
from penstock.model.failures import CLASSES, is_dependency, is_failure_class
from penstock.model.job import HIGHEST_PRIORITY, LOWEST_PRIORITY, QUEUE_NAME, QUEUE_NAME_IN_WORDS, Job, JobId, Unique
from penstock.model.retry import DEFAULT_BACKOFF, Backoff, Exponential, Fixed, Linear, Table
from penstock.model.states import State
from penstock.settings import read_size

__all__ = [
    "AnyJob",
    "AnyJobs",
    "BackoffOption",
    "ExceptionOption",
    "UniqueOption",
    "check_args",
    "check_backoff",
    "check_count",
    "check_exceptions",
    "check_headers",
    "check_id",
    "check_ids",
    "check_key",
    "check_kwargs",
    "check_memory",
    "check_moment",
    "check_name",
    "check_priority",
    "check_queue",
    "check_rule",
    "check_states",
    "check_tags",
    "check_text",
    "check_timeout",
    "check_unique",
    "is_text",
]

BackoffOption = Backoff | Duration | Sequence[Duration] | None
ExceptionOption = type[BaseException] | str | Iterable[type[BaseException] | str] | None
UniqueOption = bool | str | Unique | Callable[..., str] | None

#: What names a job, and what names several.
AnyJob = str | JobHandle[Any] | Job
AnyJobs = AnyJob | Iterable[AnyJob]

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_MOST_TRIES = 1_000_000_000

V = TypeVar("V", bound=Struct)


# -- jobs and their arguments -----------------------------------------------------------------------------------------


def check_id(given: AnyJob) -> JobId:
    """Give the id of a job that is named by it, by its handle, or by itself.

    Raises:
        JobNotFound: no store could hold such an id.
    """
    if isinstance(given, JobHandle | Job):
        return given.id
    if not isinstance(given, str):
        raise TaskInvalid(f"{given!r} is no id of a job; give its id as text, its handle, or the job.")
    if given and not is_text(given):
        raise JobNotFound(given)
    return JobId(given)


def check_ids(given: AnyJobs) -> list[JobId]:
    several: Any = [given] if isinstance(given, str | JobHandle | Job) else given
    if isinstance(several, bytes | bytearray) or not isinstance(several, Iterable):
        raise TaskInvalid(f"{given!r} names no jobs; give an id, a handle or a job, or a list of them.")
    return [check_id(one) for one in several]


def check_states(given: str | Iterable[str]) -> frozenset[State]:
    try:
        return frozenset(map(State, [given] if isinstance(given, str) else given))
    except (TypeError, ValueError):
        raise TaskInvalid(f"state={given!r} is no state, nor several; give any of {', '.join(State)}.") from None


def check_args(args: object) -> list[Any]:
    if not isinstance(args, list | tuple):
        raise TaskInvalid(f"args={args!r} is no list; give all positional arguments, as in [7, 'eu'].")
    return list(args)


def check_kwargs(kwargs: object) -> dict[str, Any]:
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise TaskInvalid(f"kwargs={kwargs!r} does not give arguments by name; write them as {{'currency': 'EUR'}}.")
    return dict(kwargs)


# -- text and numbers -------------------------------------------------------------------------------------------------


def is_text(value: object) -> TypeGuard[str]:
    """Say whether it can be stored: a lone surrogate has no form in UTF-8."""
    return isinstance(value, str) and value != "" and not _SURROGATE.search(value)


def check_text(option: str, text: object) -> str:
    if text == "" or is_text(text):
        return str(text)
    raise TaskInvalid(f"{option}={text!r} is no text; give text in valid Unicode.")


def check_count(option: str, value: object, least: int, most: int = _MOST_TRIES) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise TaskInvalid(f"{option}={value!r} is no such count; give a whole number from {least} to {most:,}.")
    return value


def check_name(name: object) -> str:
    if is_text(name) and "\0" not in name:
        return name
    hint = "pass the function itself to app.task first" if callable(name) else "give text that is not empty"
    raise TaskInvalid(f"{name!r} is no task's name; {hint}, as 'shop.send_receipt', in valid Unicode and without NUL.")


def check_queue(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(QUEUE_NAME, name):
        raise TaskInvalid(f"{name!r} is no queue name; use {QUEUE_NAME_IN_WORDS}")
    return name


def check_priority(priority: object) -> int:
    if isinstance(priority, int) and not isinstance(priority, bool) and LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        return int(priority)
    raise TaskInvalid(
        f"priority={priority!r} is no priority; give a whole number from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}."
    )


def check_tags(tags: Sequence[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise TaskInvalid(f"tags={tags!r} is one text; give a list such as [{tags!r}].")
    if not isinstance(tags, Iterable):
        raise TaskInvalid(f"tags={tags!r} is no list; give texts, as in ['night', 'eu'].")
    found: tuple[object, ...] = tuple(tags)
    for tag in found:
        if not is_text(tag):
            raise TaskInvalid(f"tags hold {tag!r}, which is no tag; give texts that are not empty, in valid Unicode.")
    return tuple(tags)


def check_dependency(name: object) -> str:
    if is_text(name) and is_dependency(name):
        return name
    raise TaskInvalid(
        f"{name!r} is no name of a dependency; use 1 to 100 characters, as 'smtp' for what is classified as "
        "'dependency:smtp'."
    )


def check_dependencies(names: object) -> tuple[str, ...]:
    if isinstance(names, str):
        return (check_dependency(names),)
    if not isinstance(names, Iterable):
        raise TaskInvalid(f"depends_on={names!r} is no name and no list of names, as in ['smtp'].")
    return tuple(dict.fromkeys(check_dependency(name) for name in names))


def check_key(option: str, key: Any) -> str | None:
    if key is None or is_text(key):
        return key
    raise TaskInvalid(f"{option}={key!r} is no key; give text that is not empty, in valid Unicode.")


def check_headers(headers: Mapping[Any, Any] | None) -> Mapping[str, str] | None:
    if headers is not None and not isinstance(headers, Mapping):
        raise TaskInvalid(f"headers={headers!r} is no mapping; give texts by name, as in {{'trace': 'x7'}}.")
    for name, value in (headers or {}).items():
        if not is_text(name) or not (value == "" or is_text(value)):
            raise TaskInvalid(f"Header {name!r}={value!r} is not text; give texts by name, in valid Unicode.")
    return dict(headers) if headers else None


def check_memory(size: int | str) -> int:
    try:
        return read_size(size)
    except ValueError as error:
        raise TaskInvalid(f"max_memory={size!r} {error}") from None


# -- times ------------------------------------------------------------------------------------------------------------


def check_moment(option: str, moment: Any) -> int:
    """Give a moment in ms since the epoch."""
    if not isinstance(moment, datetime):
        raise TaskInvalid(f"{option}={moment!r} is no moment; give a datetime with a time zone.")
    if moment.tzinfo is None:
        raise TaskInvalid(
            f"{option}={moment!r} has no time zone; give one, as in datetime(2030, 1, 1, tzinfo=timezone.utc)."
        )
    return round(moment.timestamp() * 1000)


def check_timeout(value: Duration | None) -> int | None:
    timeout_ms = None if value is None else milliseconds(value)
    if timeout_ms == 0:
        raise TaskInvalid(f"timeout={value!r} would end every attempt at once; give None to lift the bound.")
    return timeout_ms


def check_backoff(value: Any) -> Backoff:
    if value is None or value == "exponential":
        return DEFAULT_BACKOFF
    if isinstance(value, Exponential | Fixed | Linear | Table):
        return _check_waits(_as_stored("backoff", value))
    if isinstance(value, int | float | str | timedelta):
        return Fixed(seconds(value))
    if isinstance(value, Sequence) and value:
        return Table(tuple(seconds(entry) for entry in value))
    raise TaskInvalid(
        f"backoff={value!r} says not how long to wait; give a duration, 'exponential', a list of durations, "
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


# -- rules ------------------------------------------------------------------------------------------------------------


def check_unique(unique: object) -> UniqueOption:
    if unique is None or unique is False:
        return None
    if isinstance(unique, Unique):
        return _check_rule(unique)
    if unique is True or callable(unique) or is_text(unique):
        return unique
    raise TaskInvalid(
        f"unique={unique!r} makes no key; give True for all arguments, a template such as '{{order_id}}', "
        "a function of the arguments, or a Unique value."
    )


def _check_rule(unique: Unique) -> Unique:
    for name in ("until", "clash"):
        choices = get_args(Unique.__annotations__[name])
        if (value := getattr(unique, name)) not in choices:
            raise TaskInvalid(f"unique={unique!r} has {name}={value!r}; give one of {', '.join(map(repr, choices))}.")
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


def check_exceptions(option: str, given: ExceptionOption) -> tuple[str, ...] | None:
    """Give the qualified names of exceptions, which classes and texts may name."""
    if given is None:
        return None
    entries: Iterable[Any] = [given] if isinstance(given, str | type) else given
    if not isinstance(entries, Iterable):
        raise TaskInvalid(f"{option}={given!r} is no list of exceptions; give classes or their names.")
    return tuple(_check_exception(option, entry) for entry in entries)


def check_rule(kind: object, failure: object) -> None:
    """Refuse what is no exception class, and what is neither a class of failure nor a function that gives one."""
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise TaskInvalid(f"{kind!r} is no exception class, so no failure can be told by it.")
    if not callable(failure) and not (isinstance(failure, str) and is_failure_class(failure)):
        raise TaskInvalid(
            f"{failure!r} is no class of failure; give one of {', '.join(CLASSES)}, dependency:NAME, or a function."
        )


def _check_exception(option: str, entry: Any) -> str:
    if isinstance(entry, type) and issubclass(entry, BaseException):
        return f"{entry.__module__}.{entry.__qualname__}"
    if is_text(entry):
        return _full_name(option, entry)
    raise TaskInvalid(f"{option} holds {entry!r}, which is no exception; give exception classes or their names.")


def _full_name(option: str, name: str) -> str:
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
