"""The schema: bringing it to this version, telling it from others' tables, and noticing that it was moved."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from penstock.engines.postgres.queries import placed, quoted
from penstock.model.errors import SchemaMismatch, StoreInvalid
from penstock.model.retry import DEFAULT_POLICY

__all__ = ["found_schema", "prepare", "schema_version", "settle_isolation"]

# Where the store stands: the cluster, its timeline (which a failover or a restore to a point in time changes), the
# database and the table itself, whose number is another after it was restored from a dump, also into the same database.
_IDENTITY = """
SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
    CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
    (SELECT oid FROM pg_database WHERE datname = current_database()), 'penstock.meta'::regclass::oid)
"""


def settle_isolation(db: psycopg.Connection[Any], shown: str) -> None:
    """Let every statement see what has been committed before it, as all that locks and then reads relies on.

    Raises:
        StoreInvalid: a pooler stands between, which would give the setting to another of its clients.
    """
    query = "SELECT current_setting('default_transaction_isolation'), pg_backend_pid()"
    level, pid = db.execute(query).fetchone() or ("", 0)
    if level == "read committed":
        return
    if pid != db.info.backend_pid:
        raise StoreInvalid(
            f"{shown} begins transactions as {level}, which a pooler lets nobody change for long. "
            "Run ALTER ROLE ... SET default_transaction_isolation = 'read committed' for the role of penstock."
        )
    db.execute("SET default_transaction_isolation = 'read committed'")


def schema_version() -> int:
    """Give the schema that this version writes."""
    return len(_migrations())


def found_schema(db: psycopg.Connection[Any], schema: str, shown: str) -> int:
    """Give the schema that is there, 0 for none; refuse tables of others.

    Raises:
        StoreInvalid: something else has tables by penstock's names.
    """
    name = quoted(schema)
    query = "SELECT to_regclass(%s), to_regclass(%s)"
    migrations, jobs = db.execute(query, (f"{name}.migrations", f"{name}.jobs")).fetchone() or (None, None)
    if migrations is None and jobs is None:
        return 0
    if migrations is None or jobs is None:
        raise StoreInvalid(
            f"The schema {schema!r} of {shown} has tables of another program. "
            "Give penstock a schema of its own, as in ?schema=penstock; nothing was changed."
        )
    row = db.execute(f"SELECT coalesce(max(version), 0) FROM {name}.migrations").fetchone()
    return int(row[0]) if row else 0


def prepare(db: psycopg.Connection[Any], schema: str, shown: str) -> str:
    """Bring a schema to this version's, begin a new epoch if the store was moved, and give the epoch.

    Raises:
        StoreInvalid: something else has tables by penstock's names.
        SchemaMismatch: it is newer than this version.
    """
    settle_isolation(db, shown)
    found, known = found_schema(db, schema, shown), schema_version()
    if found > known:
        raise SchemaMismatch(
            found,
            known,
            f"{shown} has schema {found}, written by a newer penstock; this one knows up to {known}. "
            "Upgrade penstock here; nothing was changed.",
        )
    if found < known:
        _migrate(db, schema, shown)
    return _check_identity(db, schema)


def _migrate(db: psycopg.Connection[Any], schema: str, shown: str) -> None:
    """Run the missing scripts, each in a transaction under one lock: a second migrator finds nothing to do."""
    name = quoted(schema)
    for version, (title, script) in enumerate(_migrations(), start=1):
        with db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(hashtext(%s), 0)", (f"{name}.migrate",))
            if found_schema(db, schema, shown) >= version:
                continue
            if version == 1:
                _begin(db, name)
            db.execute(placed(script, schema))
            if version == 1:
                _fill(db, schema)
            insert = f"INSERT INTO {name}.migrations (version, name) VALUES (%s, %s)"
            db.execute(insert, (version, title))


def _begin(db: psycopg.Connection[Any], name: str) -> None:
    # IF NOT EXISTS asks for the right to create even where the schema is there.
    if db.execute("SELECT to_regnamespace(%s)", (name,)).fetchone() == (None,):
        db.execute(f"CREATE SCHEMA {name}")
    db.execute(
        f"CREATE TABLE {name}.migrations (version integer PRIMARY KEY, name text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )


def _fill(db: psycopg.Connection[Any], schema: str) -> None:
    name = quoted(schema)
    db.execute(
        f"INSERT INTO {name}.meta (epoch, identity, created_ms)"
        f" SELECT %s, ({placed(_IDENTITY, schema)}), extract(epoch FROM now()) * 1000",
        (os.urandom(8).hex(),),
    )
    body = msgspec.json.encode(DEFAULT_POLICY)
    insert = f"INSERT INTO {name}.policies (keep_ms, body) VALUES (%s, %s)"
    db.execute(insert, (DEFAULT_POLICY.keep_ms, body))


def _check_identity(db: psycopg.Connection[Any], schema: str) -> str:
    """Void all leases of a store that was restored, copied or failed over: they belong to another history."""
    name = quoted(schema)
    query = f"SELECT identity, ({placed(_IDENTITY, schema)}), epoch FROM {name}.meta"
    row = db.execute(query).fetchone()
    if row is None:
        raise StoreInvalid(f"The schema {schema!r} has lost what it is; restore a backup, or drop it to begin anew.")
    if row[0] == row[1]:
        return str(row[2])
    with db.transaction():
        changed = db.execute(
            f"UPDATE {name}.meta SET epoch = %s, identity = %s WHERE identity = %s",
            (os.urandom(8).hex(), row[1], row[0]),
        )
        if changed.rowcount:
            db.execute(f"UPDATE {name}.processes SET void = true")
    return _check_identity(db, schema)


@cache
def _migrations() -> tuple[tuple[str, str], ...]:
    scripts = sorted(Path(__file__).with_name("migrations").glob("*.sql"))
    return tuple((script.stem, script.read_text(encoding="utf-8")) for script in scripts)
