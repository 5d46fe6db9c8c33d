"""From a URL to an engine; the one place that knows which engines there are."""

import os
import re
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.engine import Clock, Engine, Examination
from penstock.model.durations import seconds
from penstock.model.errors import DurationInvalid, EngineUnknown

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = ["check_url", "examine", "is_there", "open_engine", "without_password"]

_PLANNED = ("redis", "rediss", "unix", "postgresql", "postgres", "http", "https")
_LONGEST_NAME = 255 - len("-penstock")
_FILE_ENDINGS = (".db", ".sqlite", ".sqlite3")

_named_memory: dict[str, Engine] = {}
_naming = threading.Lock()


def open_engine(url: str, *, clock: Clock | None = None) -> Engine:
    """Open the engine that a URL names.

    - `sqlite:///relative.db`, `sqlite:////absolute/path.db`, with `?durability=full|normal`, `timeout=5s` (how long a
      call may wait for the file) and `keep_jobs=100000` (ended jobs kept per queue);
    - `memory://` is a store of this call's own, `memory://name` one for all who ask for the name in this process.

    Raises:
        EngineUnknown: no engine answers to the URL, or an option is wrong; says what would be right.

    >>> open_engine("memory://").describe().kind
    'memory'
    """
    kind, parts, options = _read(url)
    from penstock.engines.clock import SystemClock

    return kind.open(parts, options, clock or SystemClock())


def check_url(url: str) -> None:
    """Refuse a URL that `open_engine` would refuse, without opening, making or importing a store.

    Raises:
        EngineUnknown: as `open_engine` says.
    """
    _read(url)


def _read(url: str) -> "tuple[_Kind, SplitResult, dict[str, Any]]":
    scheme, separator, _ = url.partition("://")
    kind = _KINDS.get(scheme.lower()) if separator else None
    if kind is None:
        raise EngineUnknown(without_password(url), _unknown(url, scheme if separator else ""))
    parts = _split(url)
    kind.check(url, parts)
    return kind, parts, _options(url, parts, kind.options)


def is_there(url: str) -> bool:
    """Say whether there is a store at a URL, without making one; it may still be unfit for use.

    Raises:
        EngineUnknown: the URL is wrong, as `open_engine` says.
    """
    if url.lower().startswith("memory:"):
        return True
    check_url(url)
    return os.path.exists(_path_in(url))


def examine(url: str, *, deep: bool = False) -> Examination:
    """Look at a store and what it stands on, without opening it as an engine; makes and changes nothing.

    Args:
        deep: read the whole store for damage, which takes as long as reading its file.

    Raises:
        EngineUnknown: the URL is wrong, as `open_engine` says.
    """
    if url.lower().startswith("memory:"):
        return Examination(exists=True)
    check_url(url)
    from penstock.engines.sqlite.inspection import inspect

    return inspect(_path_in(url), deep=deep)


def without_password(url: str) -> str:
    """Give a URL that may be shown: its password, and secrets among its options, are replaced by `***`."""
    url = re.sub(r"(://[^/@:]*):[^/]*@", r"\1:***@", url)
    return re.sub(r"(?i)([?&][^=&]*(?:password|secret|token|key)[^=&]*=)[^&]*", r"\1***", url)


def _check_sqlite(url: str, parts: "SplitResult") -> None:
    shown = without_password(url)
    if parts.netloc:
        meant = shown.partition("?")[0].replace("//", "///", 1)
        raise EngineUnknown(
            shown, f"{shown!r} has two slashes; write three for a relative path: {meant}, four for an absolute one."
        )
    path = _path_in(url)
    if not path or path.endswith("/"):
        raise EngineUnknown(shown, f"{shown!r} names no file; write sqlite:///penstock.db.")
    if path == ":memory:" or not _could_be_a_file(path):
        raise EngineUnknown(shown, f"{path!r} names no file; write sqlite:///penstock.db, or memory:// for tests.")


def _open_sqlite(parts: "SplitResult", options: dict[str, Any], clock: Clock) -> Engine:
    from urllib.parse import unquote

    from penstock.engines.sqlite import SqliteEngine

    return SqliteEngine(unquote(parts.path.removeprefix("/")), clock=clock, **options)


def _split(url: str) -> "SplitResult":
    from urllib.parse import urlsplit

    shown = without_password(url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise EngineUnknown(shown, f"{shown!r} is no URL: {error}. Write sqlite:///penstock.db.") from None
    if "#" in url:
        raise EngineUnknown(shown, f"{shown!r} holds a #, after which URLs name no more of a store; write it as %23.")
    return parts


def _path_in(url: str) -> str:
    from urllib.parse import unquote

    return unquote(_split(url).path.removeprefix("/"))


def _could_be_a_file(path: str) -> bool:
    try:
        names = os.fsencode(path).split(os.fsencode(os.sep))
    except UnicodeEncodeError:
        return False
    return b"\0" not in os.fsencode(path) and all(len(name) <= _LONGEST_NAME for name in names)


def _open_memory(parts: "SplitResult", _: dict[str, Any], clock: Clock) -> Engine:
    from penstock.engines.memory import MemoryEngine

    name = parts.netloc + parts.path
    if not name:
        return MemoryEngine(clock)
    with _naming:
        if name not in _named_memory:
            _named_memory[name] = MemoryEngine(clock, name=name)
        return _named_memory[name]


def _unknown(url: str, scheme: str) -> str:
    shown = without_password(url)
    if scheme.lower() in _PLANNED:
        return f"This version of penstock has no engine for {shown!r} yet; use sqlite:///penstock.db."
    if not scheme:
        secret = any(mark in url for mark in "@?")  # there may be a password anywhere in it
        path = url if url.endswith(_FILE_ENDINGS) and not secret else "penstock.db"
        return f"{'What was given' if secret else repr(url)} is no URL of a store; write sqlite:///{path}."
    import difflib

    near = difflib.get_close_matches(scheme.lower(), _KINDS, n=1)
    meant = f" Did you mean {near[0]}://{shown.partition('://')[2]}?" if near else ""
    return f"No engine is called {scheme!r}.{meant} Known: {', '.join(f'{name}://' for name in _KINDS)}."


def _options(url: str, parts: "SplitResult", known: dict[str, Callable[[str], tuple[str, Any]]]) -> dict[str, Any]:
    """Read the part after `?` as arguments of the engine."""
    from urllib.parse import parse_qsl

    found = {}
    shown = without_password(url)
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            raise EngineUnknown(shown, f"{shown!r} has an option {name!r}, which is not known.{_known(name, known)}")
        try:
            argument, read = known[name](value)
        except (ValueError, DurationInvalid) as error:
            raise EngineUnknown(shown, f"{name}={value!r} in {shown!r} cannot be used: {error}") from error
        found[argument] = read
    return found


def _known(name: str, known: Iterable[str]) -> str:
    import difflib

    listed = ", ".join(known)
    if not listed:
        return " It takes none."
    near = difflib.get_close_matches(name, known, n=1)
    return (f" Did you mean {near[0]!r}?" if near else "") + f" Known: {listed}."


def _durability(text: str) -> tuple[str, str]:
    if text not in ("full", "normal"):
        raise ValueError("it is full (survives power loss) or normal (survives crashes of programs).")
    return "durability", text


def _timeout(text: str) -> tuple[str, float]:
    return "timeout_s", seconds(text)


def _keep_jobs(text: str) -> tuple[str, int]:
    if not text.isascii() or not text.isdecimal():
        raise ValueError("it is a whole number of jobs.")
    return "max_ended", int(text)


class _Kind(NamedTuple):
    """An engine as URLs name it.

    Attributes:
        check: refuses a URL that has not its form.
        options: what reads each option that may follow the `?`.
    """

    check: Callable[[str, "SplitResult"], None]
    options: dict[str, Callable[[str], tuple[str, Any]]]
    open: Callable[["SplitResult", dict[str, Any], Clock], Engine]


_KINDS = {
    "sqlite": _Kind(
        _check_sqlite, {"durability": _durability, "timeout": _timeout, "keep_jobs": _keep_jobs}, _open_sqlite
    ),
    "memory": _Kind(lambda _url, _parts: None, {}, _open_memory),
}
