"""What an application says of the health of the machine that runs it."""

import inspect
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from penstock.checks import check_name
from penstock.model.durations import Duration, seconds
from penstock.model.errors import TaskInvalid

__all__ = ["Check", "read_check"]

#: How long a check may take before it counts as failed.
DEFAULT_TIMEOUT = "10s"


class Check(Struct, frozen=True):
    """A function that fails where jobs had better not run; `timeout_s` bounds its time."""

    function: Callable[[], Any]
    timeout_s: float


def read_check(function: Any, name: str | None, timeout: Duration) -> tuple[str, Check]:
    """Give a check and its name.

    Raises:
        TaskInvalid: it cannot be called without arguments, is a coroutine function, or has no time.
    """
    if not callable(function):
        raise TaskInvalid(f"{function!r} cannot be called, so it checks nothing.")
    name = check_name(name or getattr(function, "__name__", ""))
    if inspect.iscoroutinefunction(function):
        raise TaskInvalid(f"Health check {name!r} is a coroutine function; make it a plain one.")
    if any(parameter.default is parameter.empty for parameter in _needed(function)):
        raise TaskInvalid(f"Health check {name!r} takes arguments; it is called without any.")
    timeout_s = seconds(timeout)
    if timeout_s <= 0:
        raise TaskInvalid(f"Health check {name!r} has timeout={timeout!r}; give it some time, as '10s'.")
    return name, Check(function, timeout_s)


def _needed(function: Callable[..., Any]) -> list[inspect.Parameter]:
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one for one in inspect.signature(function).parameters.values() if one.kind not in open_ended]
