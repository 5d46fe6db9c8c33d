"""Every option of client and worker: its meaning, unit, default, and where its value came from."""

import os
import re
import stat
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from penstock.alerts import Alert, read_alerts
from penstock.engines.open import check_outbox, check_url
from penstock.model.durations import seconds
from penstock.model.errors import DurationInvalid, EngineUnknown, SettingsInvalid, TaskInvalid
from penstock.model.job import QUEUE_NAME, QUEUE_NAME_IN_WORDS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["OPTIONS", "Option", "Settings", "find_file", "load", "read_size"]

DEFAULT_URL = "sqlite:///penstock.db"
FILE_NAME = "penstock.toml"
PREFIX = "PENSTOCK_"


class Settings(Struct, frozen=True, kw_only=True):
    """Checked values of all options; see `OPTIONS` for what each means.

    Attributes:
        queues: names, each with its weight if it has one, as `mail` or `mail:5`; None takes every queue.
        lease, start_timeout, shutdown_timeout, health_period, outbox_period: seconds.
        max_memory, max_payload: bytes.
        sources: where each value came from, by option: `argument`, `$PENSTOCK_URL`, a file's path, or `default`.
    """

    url: str = DEFAULT_URL
    app: str | None = None
    queues: tuple[str, ...] | None = None
    processes: int = 1
    slots: int = 8
    coroutines: int = 100
    children: int = 2
    lease: float = 30.0
    start_timeout: float = 120.0
    shutdown_timeout: float = 25.0
    burst: bool = False
    when_unfit: str = "exit"
    health_period: float = 30.0
    quarantine: bool = True
    max_jobs: int | None = None
    max_memory: int | None = None
    reload: bool = False
    log_level: str = "info"
    log_format: str = "text"
    max_payload: int = 1024 * 1024
    outbox: str | None = None
    outbox_period: float = 1.0
    alerts: tuple[Alert, ...] = ()
    sources: Mapping[str, str] = {}

    def source(self, option: str) -> str:
        """Say where the value of an option came from."""
        return self.sources.get(option, "default")


class Option(Struct, frozen=True):
    """One option, for `penstock config` and the reference.

    Attributes:
        unit: of its value, empty if it has none.
        default: as a person would write it.
        read: makes a value of what was written; raises ValueError, DurationInvalid, EngineUnknown or TaskInvalid
            saying what would be right, each but the first with what may be shown of the value.
    """

    name: str
    meaning: str
    unit: str
    default: str
    read: Callable[[Any], Any]

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.upper()


def read_size(value: object) -> int:
    """Read a number of bytes: a number, or text with K, M or G (each 1,024 times the one before).

    Raises:
        ValueError: it is no size.

    >>> read_size("512M"), read_size(1024)
    (536870912, 1024)
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(value).strip(), re.ASCII | re.IGNORECASE)
    size = round(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " ")) if found else 0
    if isinstance(value, bool) or size <= 0:
        raise ValueError("is no size; give a number of bytes above 0, or text such as 512M or 2G.")
    return size


def find_file(directory: "Path | None" = None) -> "Path | None":
    """Find the settings file for a directory (the working directory if not given): its own or the nearest above.

    That is `penstock.toml`, or a `pyproject.toml` with a table `[tool.penstock]`.
    """
    from pathlib import Path

    directory = directory or Path.cwd()
    for folder in (directory, *directory.parents):
        own, project = folder / FILE_NAME, folder / "pyproject.toml"
        if own.is_file():
            return own
        if project.is_file() and _mentions_penstock(project):
            return project
    return None


def load(arguments: Mapping[str, object], environ: Mapping[str, str], file: "Path | None") -> Settings:
    """Build the settings: arguments before PENSTOCK_* variables before the file before defaults.

    Args:
        arguments: by option name; None means that it was not given.
        environ: the environment. Variables with the prefix that resemble no option belong to somebody else.
        file: as `find_file` gives it.

    Raises:
        SettingsInvalid: lists all faults at once, each with its value, its source and the way out.

    >>> load({"slots": 4}, {"PENSTOCK_LEASE": "1m"}, None).lease
    60.0
    """
    faults: list[str] = []
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    layers = (_from_file(file, faults), _from_environment(environ, faults), _from_arguments(arguments, faults))
    for layer in layers:
        for name, (value, source) in layer.items():
            option = _BY_NAME[name]
            try:
                values[name], sources[name] = option.read(value), source
            except (ValueError, DurationInvalid, EngineUnknown, TaskInvalid) as error:
                faults.append(_fault(option, value, source, error))
    if faults:
        raise SettingsInvalid(faults)
    return Settings(**{"processes": _cpus(), **values}, sources=sources)


def _mentions_penstock(project: "Path") -> bool:
    try:
        return "[tool.penstock" in project.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False  # what may not be read here belongs to somebody else


_Layer = dict[str, tuple[object, str]]


def _from_arguments(arguments: Mapping[str, object], faults: list[str]) -> _Layer:
    given = {name: (value, "argument") for name, value in arguments.items() if value is not None}
    return _known(given, faults)


def _from_environment(environ: Mapping[str, str], faults: list[str]) -> _Layer:
    given: _Layer = {}
    for variable, value in environ.items():
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or not value:
            continue
        if name in _BY_NAME:
            given[name] = (value, f"${variable}")
        elif near := _near(name, 0.75):
            faults.append(f"${variable} is no option. Did you mean {_BY_NAME[near].variable}?")
    return given


def _from_file(file: "Path | None", faults: list[str]) -> _Layer:
    if file is None:
        return {}
    import tomllib

    try:
        if file.stat().st_mode & stat.S_IWOTH:
            faults.append(f"{file} can be written by everybody, so it is not read; run `chmod o-w {file}`.")
            return {}
        content: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        faults.append(f"{file} cannot be read: {error}. Correct it, or move it away.")
        return {}
    table = content if file.name == FILE_NAME else content.get("tool", {}).get("penstock", {})
    if not isinstance(table, dict):
        faults.append(f"tool.penstock in {file} is no table; write [tool.penstock] and the options below it.")
        return {}
    return _known({name.replace("-", "_"): (value, str(file)) for name, value in table.items()}, faults)


def _known(given: _Layer, faults: list[str]) -> _Layer:
    """Refuse what is no option, with the one that was meant."""
    for name, (_, source) in given.items():
        if name not in _BY_NAME:
            near = _near(name, 0.6)
            meant = f"Did you mean {near}?" if near else f"Known: {', '.join(_BY_NAME)}."
            faults.append(f"{name} ({source}) is no option. {meant}")
    return {name: entry for name, entry in given.items() if name in _BY_NAME}


def _near(name: str, likeness: float) -> str | None:
    """Give the option that was meant, if one is like enough (0 to 1)."""
    import difflib

    return next(iter(difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=likeness)), None)


def _fault(option: Option, value: object, source: str, error: Exception) -> str:
    if isinstance(error, DurationInvalid | EngineUnknown | TaskInvalid):  # they name what may be shown of the value
        return f"{option.name} ({source}): {error}"
    return f"{option.name} = {value!r} ({source}) {error}"


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("is no text; give text that is not empty.")
    return value


def _url(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is no URL of a store; give one such as sqlite:///penstock.db.")
    check_url(value)
    return value


def _outbox(value: object) -> str:
    check_outbox(_text(value))
    return _text(value)


def _app(value: object) -> str:
    if ":" not in _text(value):
        raise ValueError("names no application; give module:attribute, as shop.jobs:app.")
    return _text(value)


def _queues(value: object) -> tuple[str, ...]:
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, list | tuple):
        raise ValueError("is no list of queues; give names such as mail,default or weights such as mail:5,default:1.")
    found = tuple(str(entry).strip() for entry in entries)
    for entry in found:
        if not re.fullmatch(rf"{QUEUE_NAME}(:[1-9][0-9]{{0,5}})?", entry):
            raise ValueError(
                f"holds {entry!r}, which is no queue; use {QUEUE_NAME_IN_WORDS} and perhaps a weight, as mail:5."
            )
    if len({entry.partition(":")[0] for entry in found}) < len(found):
        raise ValueError("names a queue twice; leave one of them out.")
    if not found:
        raise ValueError("is empty; leave it out to take every queue.")
    return found


def _count(most: int) -> Callable[[object], int]:
    """Make a reader of whole numbers from 1 to a bound that no sensible value reaches, but a slip of the pen does."""

    def read(value: object) -> int:
        text = str(value).strip()
        whole = not isinstance(value, bool | float) and text.isascii() and text.isdecimal()
        if not whole or not 1 <= (count := int(text.lstrip("0")[:20] or 0)) <= most:
            raise ValueError(f"is no such count; give a whole number from 1 to {most:,}.")
        return count

    return read


def _span(shortest_s: float) -> Callable[[object], float]:
    def read(value: object) -> float:
        found = seconds(value)
        if found < shortest_s:
            raise ValueError(f"is too short; give at least {shortest_s:g} s.")
        return found

    return read


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ValueError("is neither yes nor no; give true or false.")


def _choice(*choices: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        text = str(value).strip().lower()
        if text not in choices:
            raise ValueError(f"is not known; give one of {', '.join(choices)}.")
        return text

    return read


def _cpus() -> int:
    """Count the CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


#: So many a worker may have: enough for any machine, and too few to take one down.
MOST_PROCESSES: Final = max(256, 64 * _cpus())
MOST_SLOTS: Final = 1_000
MOST_CHILDREN: Final = 1_000
MOST_COROUTINES: Final = 100_000
MOST_JOBS: Final = 1_000_000_000_000

OPTIONS: Final[tuple[Option, ...]] = (
    Option("url", "where the store is", "", DEFAULT_URL, _url),
    Option("app", "the application, as module:attribute or path/to/file.py:attribute", "", "none", _app),
    Option(
        "queues", "which queues to work on: in this order, or drawn by weight as mail:5,default:1", "", "all", _queues
    ),
    Option(
        "processes",
        "processes that run jobs; at most 256, or 64 for each CPU if that is more",
        "processes",
        "CPUs",
        _count(MOST_PROCESSES),
    ),
    Option(
        "slots", "threads that run plain functions, in each process; at most 1,000", "threads", "8", _count(MOST_SLOTS)
    ),
    Option(
        "coroutines",
        "coroutines at once, in each process; at most 100,000",
        "coroutines",
        "100",
        _count(MOST_COROUTINES),
    ),
    Option(
        "children",
        "children of the process lane, for each process; at most 1,000",
        "processes",
        "2",
        _count(MOST_CHILDREN),
    ),
    Option("lease", "how long a process may be silent before its jobs are handed on", "duration", "30s", _span(1.0)),
    Option("start_timeout", "how long a process may import the application", "duration", "2m", _span(1.0)),
    Option("shutdown_timeout", "how long running jobs may go on when a worker stops", "duration", "25s", _span(0.0)),
    Option("burst", "end when there is nothing left to do", "", "false", _switch),
    Option(
        "when_unfit",
        "what an unfit worker does: exit, or wait until its health checks pass",
        "",
        "exit",
        _choice("exit", "wait"),
    ),
    Option("health_period", "how often the health checks of the application run", "duration", "30s", _span(0.1)),
    Option("quarantine", "whether a worker that fails what others do well counts as unfit", "", "true", _switch),
    Option("max_jobs", "restart a process after so many jobs", "jobs", "none", _count(MOST_JOBS)),
    Option(
        "max_memory", "restart a process that uses more; at half as much again it is killed", "bytes", "none", read_size
    ),
    Option("reload", "restart when a source file changes", "", "false", _switch),
    Option("log_level", "debug, info, warning or error", "", "info", _choice("debug", "info", "warning", "error")),
    Option("log_format", "text or json", "", "text", _choice("text", "json")),
    Option("max_payload", "largest arguments, and largest result, of one job as JSON", "bytes", "1M", read_size),
    Option(
        "outbox",
        "your own database, from where workers fetch the jobs that were enqueued in its transactions",
        "",
        "none",
        _outbox,
    ),
    Option("outbox_period", "how often a worker looks into the outbox", "duration", "1s", _span(0.05)),
    Option("alerts", "whom to tell of buried jobs: URLs as apprise knows them", "", "none", read_alerts),
)

_BY_NAME = {option.name: option for option in OPTIONS}
