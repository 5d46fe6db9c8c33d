"""From a URL to an engine; the one place that knows which engines there are."""

import os
import re
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.engine import Clock, Engine, Examination
from penstock.model.durations import seconds
from penstock.model.errors import DurationInvalid, EngineUnknown
from penstock.outbox import Outbox

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = ["check_outbox", "check_url", "examine", "is_there", "open_engine", "open_outbox", "without_password"]

_PLANNED = ("http", "https")
_LONGEST_NAME = 255 - len("-penstock")
_LONGEST_TIMEOUT_S = 86_400
_MOST_KEPT = 10**12
_FILE_ENDINGS = (".db", ".sqlite", ".sqlite3")

_named_memory: dict[str, Engine] = {}
_naming = threading.Lock()


def open_engine(url: str, *, clock: Clock | None = None) -> Engine:
    """Open the engine that a URL names.

    - `sqlite:///relative.db`, `sqlite:////absolute/path.db`, with `?durability=full|normal`, `timeout=5s` (how long a
      call may wait for the file) and `keep_jobs=100000` (ended jobs kept per queue);
    - `postgresql://user:password@host:5432/database` (also `postgres://`), with `?schema=penstock` (where the tables
      are), `timeout=5s` (how long a call may take), `keep_jobs=100000`, `prepare=off` (for a pooler that does not bear
      prepared statements), and every option of libpq, as `sslmode=verify-full`;
    - `redis://[[user]:password@]host:6379/0`, `rediss://` (TLS), `unix:///path.sock?db=0`,
      `redis+sentinel://host1,host2/service/0`, `redis+cluster://host1,host2`, with `?prefix=penstock` (what all keys
      begin with), `timeout=5s`, `keep_jobs=100000`, `any_eviction=yes` (take a server that may throw jobs away), and
      where Sentinels want a password of their own `sentinel_password=...` and perhaps `sentinel_user=...`; with TLS
      also `tls_ca=/path/ca.pem`, `tls_cert=...`, `tls_key=...`;
    - `memory://` is a store of this call's own, `memory://name` one for all who ask for the name in this process.

    Raises:
        EngineUnknown: no engine answers to the URL, or an option is wrong; says what would be right.

    >>> open_engine("memory://").describe().kind
    'memory'
    """
    kind, parts, options = _read(url)
    return kind.open(parts, options, clock)


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
    kind, parts, options = _read(url)
    return kind.is_there(parts, options)


def examine(url: str, *, deep: bool = False) -> Examination:
    """Look at a store and what it stands on, without opening it as an engine; makes and changes nothing.

    Args:
        deep: read the whole store for damage, which takes as long as reading its file.

    Raises:
        EngineUnknown: the URL is wrong, as `open_engine` says.
    """
    kind, parts, options = _read(url)
    return kind.examine(parts, options, deep)


def open_outbox(url: str) -> Outbox:
    """Open the outbox in the user's own database: `sqlite:///app.db`, or `postgresql://...` as libpq takes it.

    Raises:
        EngineUnknown: no outbox can be there; says what would be right.
    """
    check_outbox(url)
    if _scheme(url) == "sqlite":
        from penstock.engines.sqlite.outbox import SqliteOutbox

        return SqliteOutbox(_path_in(_split(url)))
    shown = without_password(url)
    try:
        from penstock.engines.postgres.outbox import PostgresOutbox
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise EngineUnknown(shown, f"{shown!r} needs psycopg; install penstock[postgres].") from error
    return PostgresOutbox(url, shown)


def check_outbox(url: str) -> None:
    """Refuse a URL at which no outbox can be, without opening anything.

    Raises:
        EngineUnknown: says what would be right.
    """
    shown, scheme = without_password(url), _scheme(url)
    if scheme == "sqlite":
        parts = _split(url)
        _check_sqlite(url, parts)
        _options(url, parts, {})
    elif scheme not in ("postgresql", "postgres"):
        raise EngineUnknown(
            shown, f"{shown!r} names no database for an outbox; write sqlite:///app.db or postgresql://user@host/app."
        )


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


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
    path = _path_in(parts)
    if not path or path.endswith("/"):
        raise EngineUnknown(shown, f"{shown!r} names no file; write sqlite:///penstock.db.")
    if path == ":memory:" or not _could_be_a_file(path):
        raise EngineUnknown(shown, f"{path!r} names no file; write sqlite:///penstock.db, or memory:// for tests.")


def _open_sqlite(parts: "SplitResult", options: dict[str, Any], clock: Clock | None) -> Engine:
    from penstock.engines.sqlite import SqliteEngine

    return SqliteEngine(_path_in(parts), clock=clock, **options)


def _is_file(parts: "SplitResult", _: dict[str, Any]) -> bool:
    return os.path.exists(_path_in(parts))


def _examine_sqlite(parts: "SplitResult", _: dict[str, Any], deep: bool) -> Examination:
    from penstock.engines.sqlite.inspection import inspect

    return inspect(_path_in(parts), deep=deep)


def _check_redis(url: str, parts: "SplitResult") -> None:
    shown = without_password(url)
    _find_driver("hiredis", "redis", shown)
    from penstock.engines.redis.address import address_of

    try:
        address_of(parts)
    except ValueError as error:
        raise EngineUnknown(shown, f"{shown!r} cannot be used: {error}.") from error


def _open_redis(parts: "SplitResult", options: dict[str, Any], clock: Clock | None) -> Engine:
    from penstock.engines.redis.opening import open_redis

    return open_redis(parts, options, clock)


def _is_on_redis(parts: "SplitResult", options: dict[str, Any]) -> bool:
    from penstock.engines.redis.opening import is_there

    return is_there(parts, options)


def _examine_redis(parts: "SplitResult", options: dict[str, Any], deep: bool) -> Examination:
    from penstock.engines.redis.opening import examine

    return examine(parts, options, deep)


def _check_postgres(url: str, parts: "SplitResult") -> None:
    shown = without_password(url)
    if "/" in parts.path.removeprefix("/"):
        raise EngineUnknown(shown, f"{shown!r} names no database; write postgresql://user@host:5432/database.")
    if parts.netloc.count("@") > 1:  # libpq ends the password at the first, and would tell the rest as a host
        raise EngineUnknown(
            shown, f"{shown!r} has more than one @ before its database; write %40 for an @ in a password."
        )
    _find_driver("psycopg", "postgres", shown)


def _open_postgres(parts: "SplitResult", options: dict[str, Any], clock: Clock | None) -> Engine:
    from penstock.engines.postgres.opening import open_postgres

    return open_postgres(parts, options, clock)


def _is_on_postgres(parts: "SplitResult", options: dict[str, Any]) -> bool:
    from penstock.engines.postgres.opening import is_there

    return is_there(parts, options)


def _examine_postgres(parts: "SplitResult", options: dict[str, Any], deep: bool) -> Examination:
    from penstock.engines.postgres.opening import examine

    return examine(parts, options, deep)


def _find_driver(name: str, extra: str, shown: str) -> None:
    from importlib.util import find_spec

    if find_spec(name) is None:
        raise EngineUnknown(shown, f"{shown!r} needs {name}, which is not installed: pip install 'penstock[{extra}]'.")


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


def _path_in(parts: "SplitResult") -> str:
    from urllib.parse import unquote

    return unquote(parts.path.removeprefix("/"))


def _could_be_a_file(path: str) -> bool:
    try:
        names = os.fsencode(path).split(os.fsencode(os.sep))
    except UnicodeEncodeError:
        return False
    return b"\0" not in os.fsencode(path) and all(len(name) <= _LONGEST_NAME for name in names)


def _open_memory(parts: "SplitResult", _: dict[str, Any], clock: Clock | None) -> Engine:
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
        return f"{'What was given' if secret else repr(url)} is no URL of a store; write {_meant(url, secret)}."
    import difflib

    near = difflib.get_close_matches(scheme.lower(), _KINDS, n=1)
    meant = f" Did you mean {near[0]}://{shown.partition('://')[2]}?" if near else ""
    return f"No engine is called {scheme!r}.{meant} Known: {', '.join(f'{name}://' for name in _KINDS)}."


def _meant(url: str, secret: bool) -> str:
    """Give what would be a URL, from text that is none; of what may hold a password only its kind."""
    kind, colon, rest = url.partition(":")
    if colon and kind in _KINDS:
        front, example = ("sqlite:///", "penstock.db") if kind == "sqlite" else (f"{kind}://", "user@host")
        return front + (example if secret else rest.lstrip("/"))
    return f"sqlite:///{url if url.endswith(_FILE_ENDINGS) and not secret else 'penstock.db'}"


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
    found = seconds(text)
    if not 0 < found <= _LONGEST_TIMEOUT_S:
        raise ValueError("a call has at least a moment and at most a day, as 500ms, 5s, 1m.")
    return "timeout_s", found


def _keep_jobs(text: str) -> tuple[str, int]:
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(_MOST_KEPT)) or int(text) > _MOST_KEPT:
        raise ValueError(f"it is a whole number of jobs, at most {_MOST_KEPT:,}.")
    return "max_ended", int(text)


def _schema(text: str) -> tuple[str, str]:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,47}", text) or text.lower().startswith("pg_"):
        raise ValueError("it is 1 to 48 of the characters A-Z a-z 0-9 _, without a digit or pg_ at its beginning.")
    return "schema", text


def _prepare(text: str) -> tuple[str, bool]:
    if text not in ("on", "off"):
        raise ValueError("it is on or off.")
    return "prepare", text == "on"


def _text(argument: str) -> Callable[[str], tuple[str, str]]:
    return lambda text: (argument, text)


def _of_libpq(name: str) -> Callable[[str], tuple[str, Any]]:
    return lambda text: (f"libpq {name}", text)


def _prefix(text: str) -> tuple[str, str]:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        raise ValueError("it is 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    return "prefix", text


def _any_eviction(text: str) -> tuple[str, bool]:
    if text not in ("yes", "no"):
        raise ValueError("it is yes or no.")
    return "any_eviction", text == "yes"


def _db(text: str) -> tuple[str, int]:
    if not text.isascii() or not text.isdecimal():
        raise ValueError("it is the number of a database.")
    return "db", int(text)


def _always_there(_: "SplitResult", __: dict[str, Any]) -> bool:
    return True


def _nothing_to_examine(_: "SplitResult", __: dict[str, Any], ___: bool) -> Examination:
    return Examination(exists=True)


class _Kind(NamedTuple):
    """An engine as URLs name it.

    Attributes:
        check: refuses a URL that has not its form.
        options: what reads each option that may follow the `?`.
        open: opens it, with a clock of the caller's or its own.
        is_there: says whether there is a store, without making one.
        examine: looks at the store from outside, perhaps deeply.
    """

    check: Callable[[str, "SplitResult"], None]
    options: dict[str, Callable[[str], tuple[str, Any]]]
    open: Callable[["SplitResult", dict[str, Any], Clock | None], Engine]
    is_there: Callable[["SplitResult", dict[str, Any]], bool]
    examine: Callable[["SplitResult", dict[str, Any], bool], Examination]


_REDIS = _Kind(
    _check_redis,
    {"prefix": _prefix, "timeout": _timeout, "keep_jobs": _keep_jobs, "any_eviction": _any_eviction},
    _open_redis,
    _is_on_redis,
    _examine_redis,
)

_SENTINEL = _REDIS._replace(
    options={**_REDIS.options, "sentinel_user": _text("sentinel_user"), "sentinel_password": _text("sentinel_password")}
)


def _over_tls(kind: _Kind) -> _Kind:
    return kind._replace(options={**kind.options, **{name: _text(name) for name in ("tls_ca", "tls_cert", "tls_key")}})


#: Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
_LIBPQ = (
    *("host", "hostaddr", "port", "dbname", "user", "password", "passfile", "service", "application_name"),
    *("fallback_application_name", "client_encoding", "options", "connect_timeout", "tcp_user_timeout", "keepalives"),
    *("keepalives_idle", "keepalives_interval", "keepalives_count", "target_session_attrs", "load_balance_hosts"),
    *("sslmode", "sslcompression", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslcrldir", "sslsni"),
    *("sslcertmode", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version", "requirepeer"),
    *("requiressl", "require_auth", "channel_binding", "gssencmode", "gsslib", "gssdelegation", "krbsrvname"),
)

_POSTGRES = _Kind(
    _check_postgres,
    {"schema": _schema, "timeout": _timeout, "keep_jobs": _keep_jobs, "prepare": _prepare}
    | {name: _of_libpq(name) for name in _LIBPQ},
    _open_postgres,
    _is_on_postgres,
    _examine_postgres,
)

_KINDS = {
    "sqlite": _Kind(
        _check_sqlite,
        {"durability": _durability, "timeout": _timeout, "keep_jobs": _keep_jobs},
        _open_sqlite,
        _is_file,
        _examine_sqlite,
    ),
    **dict.fromkeys(("redis", "redis+cluster"), _REDIS),
    **dict.fromkeys(("rediss", "rediss+cluster"), _over_tls(_REDIS)),
    "redis+sentinel": _SENTINEL,
    "rediss+sentinel": _over_tls(_SENTINEL),
    "unix": _REDIS._replace(options={**_REDIS.options, "db": _db}),
    **dict.fromkeys(("postgresql", "postgres"), _POSTGRES),
    "memory": _Kind(lambda _url, _parts: None, {}, _open_memory, _always_there, _nothing_to_examine),
}
