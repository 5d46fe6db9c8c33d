"""From a function or an executable to a task: what can be one, under which name, and run by which runner."""

import inspect
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from penstock.checks import check_name, is_text
from penstock.model.errors import TaskInvalid
from penstock.options import CommandOptions, TaskOptions, read_options, refuse_unknown
from penstock.signature import anything
from penstock.task import AsyncTask, Home, Remote, Task

__all__ = ["Application", "Registration", "is_same", "place_of", "register_command"]

P = ParamSpec("P")
R = TypeVar("R")

_RUNNERS = ("thread", "loop", "process")


class Application(Home, Protocol):
    """What a registration needs of its application."""

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]: ...

    def register(self, task: Task[Any, Any]) -> None:
        """Make a task known by its name."""
        ...


class Registration:
    """Makes tasks of functions; what `@app.task(...)` with options stands for."""

    def __init__(self, app: Application, options: TaskOptions) -> None:
        refuse_unknown(options, TaskOptions.__annotations__, "A task")
        name, runner = options.get("name"), options.get("runner")
        if runner is not None and runner not in _RUNNERS:
            raise TaskInvalid(f"runner={runner!r} is no runner of functions; give one of {', '.join(_RUNNERS)}.")
        self._app = app
        self._name = None if name is None else check_name(name)
        self._runner = runner
        self._traits = read_options(options, app.tasks, options.get("max_memory"))

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        _refuse_unfit(function)
        coroutine = _is(inspect.iscoroutinefunction, function)
        kind: type[Task[..., Any]] = AsyncTask if coroutine else Task
        name = self._name or _name_of(function)
        runner = _fitting_runner(name, self._runner, coroutine)
        task = kind(self._app, name, function, runner=runner, traits=self._traits)
        self._app.register(task)
        return task


def register_command(app: Application, name: str, command: Sequence[Any], options: CommandOptions) -> Task[..., Any]:
    """Make a task of an executable, and make it known."""
    refuse_unknown(options, CommandOptions.__annotations__, "A command")
    words = _words(check_name(name), command)
    task: Task[..., Any] = Task(
        app, name, anything, runner="command", traits=read_options(options, app.tasks), command=words
    )
    app.register(task)
    return task


def is_same(known: Task[Any, Any], new: Task[Any, Any]) -> bool:
    """Say whether a module was only imported again: the same definition, perhaps at another line."""
    return known.command == new.command and _definition(known) == _definition(new)


def place_of(task: Task[Any, Any]) -> str:
    """Say where a task was defined."""
    if task.command:
        return f"command {' '.join(task.command)}"
    file, qualname = _definition(task)
    return f"{qualname} in {file or 'an unknown file'}"


def _definition(task: Task[Any, Any]) -> tuple[str, str]:
    code = getattr(task.function, "__code__", None)
    return (code.co_filename if code else "", getattr(task.function, "__qualname__", repr(task.function)))


def _words(name: str, command: Any) -> tuple[str, ...]:
    words = tuple(command) if isinstance(command, Sequence) and not isinstance(command, str) else ()
    if words and all(is_text(word) for word in words):
        return words
    raise TaskInvalid(
        f"The command of task {name!r} is {command!r}; give a list of texts, as in ['./resize.sh', '--fast']."
    )


# -- what can be a task -----------------------------------------------------------------------------------------------


def _refuse_unfit(function: Any) -> None:
    """Refuse what a worker could not call, or what would do nothing when it is called."""
    why = _unfitness(function)
    if why is not None:
        raise TaskInvalid(f"{function!r} {why}")


def _unfitness(function: Any) -> str | None:
    if isinstance(function, Remote):
        return "is a task already; register the function it was made of."
    if isinstance(function, staticmethod):
        return "is wrapped for its class; write @staticmethod above @app.task, not below it."
    if isinstance(function, classmethod):
        return "takes its class, which no job can carry; register a function outside the class."
    if inspect.isclass(function):
        return "is a class; wrap it in a function of yours that makes and uses it."
    if not callable(function):
        return "cannot be called, so it makes no task; give options by name, as task(queue=...)."
    if _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function):
        return "is a generator function, whose jobs would do nothing; loop inside it, and return a list."
    return None


def _is(kind: Callable[[Any], bool], function: Any) -> bool:
    """Ask of a function, and of what an object with `__call__` does when it is called."""
    return kind(function) or kind(type(function).__call__)


def _fitting_runner(name: str, runner: str | None, coroutine: bool) -> str:
    if runner is None:
        return "loop" if coroutine else "thread"
    if coroutine and runner == "thread":
        raise TaskInvalid(f"Task {name!r} is a coroutine function, which runner='thread' cannot run; use 'loop'.")
    if not coroutine and runner == "loop":
        raise TaskInvalid(f"Task {name!r} is a plain function, which would block runner='loop'; use 'thread'.")
    return runner


# -- its name ---------------------------------------------------------------------------------------------------------


def _name_of(function: Callable[..., Any]) -> str:
    """Give the name under which a worker that imports the function's module will find it.

    Raises:
        TaskInvalid: it has no such name: a lambda, a nested function, a method of an object, a partial, or a function
            that was typed at a prompt.
    """
    qualname = getattr(function, "__qualname__", None)
    if qualname is None or "<" in qualname or _is_method_of_an_object(function):
        raise TaskInvalid(
            f"{function!r} has no name that a worker could find. Define it at the top of a module, or give name=."
        )
    module = function.__module__
    return f"{_main_module(qualname) if module == '__main__' else module}.{qualname}"


def _is_method_of_an_object(function: object) -> bool:
    """Two objects of one class would give their methods the same name."""
    return inspect.ismethod(function) and not inspect.isclass(function.__self__)


def _main_module(qualname: str) -> str:
    """Give the name that the program that was started would have if it were imported."""
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    stem, ending = os.path.splitext(os.path.basename(file or ""))
    if ending != ".py":
        raise TaskInvalid(
            f"{qualname!r} was defined at a prompt, where no worker can import it. Put it in a file, or give name=."
        )
    return stem
