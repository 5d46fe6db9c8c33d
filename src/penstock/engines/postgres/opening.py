"""From the parts of a URL to an engine on PostgreSQL, or to what can be said of the store without one."""

from typing import TYPE_CHECKING, Any

from penstock.engine import Clock, Engine, Examination
from penstock.model.errors import EngineUnknown

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from penstock.engines.postgres.engine import PostgresEngine

__all__ = ["examine", "is_there", "open_postgres"]

_LIBPQ = "libpq "


def open_postgres(parts: "SplitResult", options: dict[str, Any], clock: Clock | None) -> Engine:
    """Open the engine; no connection is made yet."""
    return _engine(parts, options, clock)


def is_there(parts: "SplitResult", options: dict[str, Any]) -> bool:
    """Say whether there is a store, without making one; raises as `holds_store` does."""
    engine = _engine(parts, options, None)
    from penstock.engines.postgres.inspection import holds_store

    return holds_store(engine.store)


def examine(parts: "SplitResult", options: dict[str, Any], deep: bool) -> Examination:
    """Look at the store and its server, without making or changing anything."""
    engine = _engine(parts, options, None)
    from penstock.engines.postgres.inspection import inspect

    return inspect(engine.store, deep=deep)


def _engine(parts: "SplitResult", options: dict[str, Any], clock: Clock | None) -> "PostgresEngine":
    shown = _shown(parts, options)
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import make_conninfo

        from penstock.engines.postgres.engine import PostgresEngine
    except ImportError as error:
        raise EngineUnknown(
            shown, f"{shown} needs psycopg 3, which is not here: {error}. Run `pip install 'penstock[postgres]'`."
        ) from error
    words = {name.removeprefix(_LIBPQ): value for name, value in options.items() if name.startswith(_LIBPQ)}
    own = {name: value for name, value in options.items() if not name.startswith(_LIBPQ)}
    plain = f"postgresql://{parts.netloc}{parts.path}"
    try:
        conninfo = make_conninfo(plain, **({"application_name": "penstock"} | words))
    except ProgrammingError as error:
        said = " ".join(str(error).split()).replace(plain, shown)
        raise EngineUnknown(
            shown, f"{shown} cannot be read: {said}. Write postgresql://user@host:5432/database."
        ) from None
    return PostgresEngine(conninfo, shown=shown, clock=clock, **own)


def _shown(parts: "SplitResult", options: dict[str, Any]) -> str:
    """Give the URL without passwords and without options that say nothing of where the store is."""
    user, at, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    netloc = f"{name}:***{at}{host}" if ":" in user else parts.netloc
    kept = [f"schema={options['schema']}"] if "schema" in options else []
    kept += [f"{name}={options[_LIBPQ + name]}" for name in ("host", "port", "dbname") if _LIBPQ + name in options]
    return f"postgresql://{netloc}{parts.path}" + ("?" + "&".join(kept) if kept else "")
