"""Which tasks take a job over when its own task has failed for good."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from penstock.checks import ExceptionOption, check_exceptions, check_name, check_queue, is_text
from penstock.model.errors import TaskInvalid
from penstock.model.failures import is_failure_class
from penstock.model.retry import DEFAULT_POLICY, Policy, Stage

__all__ = ["Fallback", "FallbackOption", "read_fallbacks"]


class Known(Protocol):
    """What is looked at of a task that is to take over."""

    @property
    def name(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def policy(self) -> Policy: ...


class Fallback(Struct, frozen=True):
    """A task that takes over, with what `fallback=` alone cannot say.

    Attributes:
        task: the task, or its name; another program may have it, if a queue is given.
        on: of which failures it takes jobs over: exceptions, or classes of failure as `timeout`, `crash` or
            `dependency:smtp`; None takes all.
        queue: where the jobs go then; None takes the task's.

    >>> Fallback("shop.send_plain", on=["timeout", ConnectionError], queue="slow").queue
    'slow'
    """

    task: Any
    on: ExceptionOption = None
    queue: str | None = None


FallbackOption = Known | str | Fallback | Iterable[Known | str | Fallback] | None


def read_fallbacks(given: Any, known: Mapping[str, Known]) -> tuple[Stage, ...]:
    """Give what is stored of the fallbacks of a task; those that these have themselves follow them.

    Args:
        known: the tasks that are registered so far, by name.

    Raises:
        TaskInvalid: one is no task, or not known here and without a queue.
    """
    if given is None:
        return ()
    several = not isinstance(given, str | Fallback) and not _is_task(given) and isinstance(given, Iterable)
    return tuple(stage for one in (given if several else (given,)) for stage in _stages(one, known))


def _stages(given: Any, known: Mapping[str, Known]) -> list[Stage]:
    fallback = given if isinstance(given, Fallback) else Fallback(given)
    task = fallback.task
    found = task if _is_task(task) else known.get(task) if isinstance(task, str) else None
    on, queue = _failures(fallback.on), None if fallback.queue is None else check_queue(fallback.queue)
    if found is not None:
        own = replace(found.policy, fallbacks=())
        return [Stage(found.name, queue or found.queue, own, on), *found.policy.fallbacks]
    if not is_text(task):
        raise TaskInvalid(f"fallback={given!r} is no task; give a task, its name, a Fallback, or a list of them.")
    if queue is None:
        raise TaskInvalid(
            f"fallback={task!r} is not registered here. Register it above the task that falls back on it, "
            "or, if another program has it, say where its jobs go: Fallback(name, queue=...)."
        )
    return [Stage(check_name(task), queue, DEFAULT_POLICY, on)]


def _is_task(given: Any) -> bool:
    return isinstance(getattr(given, "policy", None), Policy)


def _failures(on: ExceptionOption) -> tuple[str, ...] | None:
    if on is None:
        return None
    entries: tuple[Any, ...] = (on,) if isinstance(on, str | type) else tuple(on)
    classes = tuple(entry for entry in entries if isinstance(entry, str) and is_failure_class(entry))
    exceptions = [entry for entry in entries if entry not in classes]
    return (*classes, *(check_exceptions("on", exceptions) or ()))
