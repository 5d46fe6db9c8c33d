"""A look at a store and its server from outside; makes and changes nothing."""

import time
from collections.abc import Iterator

import psycopg

from penstock.engine import Examination, Finding
from penstock.engines.postgres.queries import quoted
from penstock.engines.postgres.schema import found_schema, schema_version, settle_isolation
from penstock.engines.postgres.store import Session, Store
from penstock.model.errors import EngineError

__all__ = ["durability", "holds_store", "inspect"]

_OLDEST_SERVER = 130_000


def durability(fsync: str, full_page_writes: str, synchronous_commit: str, standby_names: str, standbys: int) -> str:
    """Give the class of durability that the server's live settings make."""
    if fsync == "off" or full_page_writes == "off":
        return "D0"
    if synchronous_commit == "off":
        return "D1"
    if standby_names and standbys and synchronous_commit != "local":
        return "D3"
    return "D2"


def holds_store(store: Store) -> bool:
    """Say whether the schema is there.

    Raises:
        EngineUnavailable: the server cannot be reached, so nobody knows.
        StoreInvalid: there is no such database, or it may not be looked at.
    """
    with store.translated(), store.connect(time.monotonic() + store.timeout_s) as link:
        return found_schema(link, store.schema, store.shown) > 0


def inspect(store: Store, *, deep: bool = False) -> Examination:
    """Examine a store.

    Args:
        deep: also count the rows of every table against the counts that are kept.
    """
    known = schema_version()
    try:
        with store.translated():
            link = store.connect(time.monotonic() + store.timeout_s)
    except EngineError as error:
        finding = Finding("server", "fault", _first(str(error)), _rest(str(error)))
        return Examination(exists=False, findings=(finding,), known_schema=known)
    try:
        with store.translated():
            settle_isolation(link, store.shown)
            found = found_schema(link, store.schema, store.shown)
            session = store.session(link)
            findings = [*_server(session), *_standing(store, session, found)]
            if found:
                findings += _tables(store, session)
            if found and deep:
                findings += _recount(session)
    except EngineError as error:
        fault = Finding("schema", "fault", _first(str(error)), _rest(str(error)))
        return Examination(exists=True, findings=(fault,), known_schema=known)
    finally:
        link.close()
    return Examination(exists=found > 0, findings=tuple(findings), schema=found or None, known_schema=known)


def _first(text: str) -> str:
    return text.partition(". ")[0].removesuffix(".")


def _rest(text: str) -> str:
    return text.partition(". ")[2]


# -- the server -------------------------------------------------------------------------------------------------------


def _server(session: Session) -> Iterator[Finding]:
    (version, number, in_recovery, fsync, full_pages, commits, standby_names, vacuums, counts, standbys, open_now, most,
     notified, may_create, user, sees_all, only_reads) = session.rows("server")[0]  # fmt: skip
    if number < _OLDEST_SERVER:
        yield Finding("server", "fault", f"PostgreSQL {version}", "penstock needs PostgreSQL 13 or newer.")
    elif in_recovery:
        yield Finding("server", "fault", f"PostgreSQL {version}, a standby", "Name the primary in the URL.")
    elif only_reads == "on":
        yield Finding(
            "server",
            "fault",
            f"PostgreSQL {version}, which only reads",
            "Set default_transaction_read_only off for this server, database and role.",
        )
    else:
        yield Finding("server", "ok", f"PostgreSQL {version}")
    yield _durable(fsync, full_pages, commits, standby_names, standbys, sees_all=sees_all)
    if "off" in (vacuums, counts):
        off = "autovacuum" if vacuums == "off" else "track_counts"
        yield Finding("vacuum", "warning", f"{off} is off: deleted rows pile up", f"Set {off} = on in postgresql.conf.")
    if open_now > most * 0.9:
        yield Finding(
            "connections",
            "warning",
            f"{open_now} of {most} are in use",
            "Raise max_connections, or put a pooler in front; each process takes up to 11.",
        )
    if notified > 0.25:
        yield Finding(
            "notifications",
            "warning",
            f"the queue is {notified:.0%} full: a session that listens is inside a long transaction",
            "End that transaction; workers poll until then.",
        )
    if not may_create:
        yield Finding("role", "ok", f"{user}, which may not make a schema; its owner runs `penstock migrate`")
    yield from _old_transactions(session, user, sees_all=sees_all)


def _durable(
    fsync: str, full_pages: str, commits: str, standby_names: str, standbys: int, *, sees_all: bool
) -> Finding:
    level = durability(fsync, full_pages, commits, standby_names, standbys)
    told = f"{level}: fsync {fsync}, full_page_writes {full_pages}, synchronous_commit {commits}"
    if level == "D0":
        return Finding(
            "durability", "warning", told, "A power cut can ruin the database; set fsync and full_page_writes on."
        )
    if level == "D1":
        return Finding(
            "durability", "warning", told, "A crash of the server can lose the last commits; set synchronous_commit on."
        )
    if standby_names and not sees_all:
        return Finding("durability", "ok", f"{told}; whether a synchronous standby is connected cannot be seen")
    if standby_names and not standbys:
        return Finding(
            "durability",
            "warning",
            f"{told}, and no synchronous standby is connected: commits wait for one",
            "Start the standby, or empty synchronous_standby_names.",
        )
    return Finding("durability", "ok", told)


def _old_transactions(session: Session, user: str, *, sees_all: bool) -> Iterator[Finding]:
    rows = session.rows("old_transactions")
    for pid, name, application, state, age_s in rows:
        yield Finding(
            "transactions",
            "warning",
            f"process {pid} ({' '.join(filter(None, (name, application, state)))}) holds one open for {age_s:,} s: "
            "deleted rows cannot be removed",
            f"End it where it began, or with SELECT pg_terminate_backend({pid}).",
        )
    if not sees_all:
        yield Finding(
            "transactions",
            "warning",
            f"{user} does not see those of other roles, nor the standbys",
            f"GRANT pg_read_all_stats TO {quoted(user)}, or examine the store as a member of pg_monitor.",
        )
    elif not rows:
        yield Finding("transactions", "ok", "none is open for longer than a minute")


# -- the schema -------------------------------------------------------------------------------------------------------


def _standing(store: Store, session: Session, found: int) -> Iterator[Finding]:
    if not found:
        yield Finding("schema", "ok", f"{store.schema} does not exist yet; it is made when it is first used")
        return
    known = schema_version()
    if found > known:
        yield Finding("schema", "fault", f"{found}, newer than this version's {known}", "Upgrade penstock here.")
    elif found < known:
        yield Finding("schema", "ok", f"{found}; it goes to {known} when it is next used")
    else:
        yield Finding("schema", "ok", f"{store.schema}, {found}")
    blocked = session.value("held_locks", quoted(store.schema))
    if blocked:
        yield Finding(
            "locks",
            "warning",
            f"{blocked} tables are locked as a whole",
            "Look at pg_locks for who alters, dumps or vacuums them fully.",
        )


def _tables(store: Store, session: Session) -> Iterator[Finding]:
    for (index,) in session.rows("broken_indexes", quoted(store.schema)):
        yield Finding("indexes", "fault", f"{index} is invalid", f"Run REINDEX INDEX CONCURRENTLY {index}.")
    swollen = session.rows("swollen_tables", store.schema)
    for table, live, dead in swollen:
        yield Finding(
            "tables",
            "warning",
            f"{table} has {dead:,} deleted rows beside {live:,} live ones",
            f"End old transactions, then VACUUM {quoted(store.schema)}.{table}; REINDEX TABLE CONCURRENTLY shrinks it.",
        )
    for (table,) in session.rows("unvacuumed", quoted(store.schema)):
        yield Finding(
            "tables", "warning", f"autovacuum is off for {table}", f"ALTER TABLE {table} RESET (autovacuum_enabled)."
        )
    if not swollen:
        yield Finding("tables", "ok", "no pile of deleted rows")


def _recount(session: Session) -> Iterator[Finding]:
    try:
        wrong = session.rows("recount")
    except psycopg.errors.QueryCanceled:
        yield Finding("counts", "warning", "counting every job took too long", "Try again with a longer ?timeout=.")
        return
    if wrong:
        yield Finding("counts", "fault", f"{len(wrong)} lines hold other numbers of jobs than are kept", "Report this.")
    else:
        yield Finding("counts", "ok", "as kept")
