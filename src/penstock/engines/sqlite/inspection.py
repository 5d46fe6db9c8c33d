"""A look at the file from outside: what it stands on, who may use it, who holds it, and whether it is whole.

Nothing of the store is changed here, though SQLite may leave an empty log beside it. The database file itself is only
ever opened by SQLite: closing another descriptor of it would drop the locks that this process holds on it.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from penstock.engine import Examination, Finding
from penstock.engines.sqlite.engine import version_notes
from penstock.engines.sqlite.schema import APPLICATION_ID, schema_version

__all__ = ["inspect"]

_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"})
_MEMORY = frozenset({"tmpfs", "ramfs"})
_LITTLE_ROOM_BYTES, _NO_ROOM_BYTES = 1024**3, 64 * 1024**2
_LONG_LOG_BYTES = 64 * 1024**2
_MIB = 1024**2
_OVERDUE_MS = 10_000
_CLOCK_SLACK_MS = 60_000
#: Before this version of penstock was made, 2025-01-01.
_PAST_MS = 1_735_689_600_000
_LOCK_PATIENCE_S = 2.0

_OWN_FILE = "Give penstock a file of its own, as in sqlite:///penstock.db."
_RESTORE = "Stop all workers, keep a copy of the file and what stands beside it, and restore a backup."


def inspect(path: str | Path, *, deep: bool = False) -> Examination:
    """Examine the store at a path.

    Args:
        deep: also let SQLite read the whole file for damage, on a connection of its own.
    """
    file = Path(path).absolute()
    around = [*_library(), *_place(file.parent)]
    if not os.path.exists(file):
        missing = Finding("file", "ok", f"{file} does not exist yet; it is made when it is first used")
        return Examination(exists=False, findings=(*around, missing), known_schema=schema_version())
    schema, inside = _content(file, deep)
    return Examination(
        exists=True,
        findings=(*around, *_file(file), *_log(file), *_holder(file), *inside),
        schema=schema,
        known_schema=schema_version(),
    )


def _library() -> Iterator[Finding]:
    notes = list(version_notes(sqlite3.sqlite_version_info))
    if notes:
        yield Finding("sqlite", "warning", notes[0], "SQLite 3.51.3 and newer have no such bug.")
    else:
        yield Finding("sqlite", "ok", f"SQLite {sqlite3.sqlite_version}")


# -- what it stands on ------------------------------------------------------------------------------------------------


def _place(folder: Path) -> Iterator[Finding]:
    if not folder.is_dir():
        yield Finding("folder", "fault", f"{folder} does not exist", f"Make it: mkdir -p {folder}")
        return
    if os.access(folder, os.W_OK | os.X_OK):
        yield Finding("folder", "ok", f"{folder} can be written")
    else:
        yield Finding(
            "folder",
            "fault",
            f"{folder} cannot be written by {_user(os.geteuid())}; SQLite keeps its log beside the file",
            f"Give {_user(os.geteuid())} the right to write to {folder}.",
        )
    yield _filesystem(folder)
    yield _room(folder)


def _filesystem(folder: Path) -> Finding:
    kind = _filesystem_of(folder)
    if kind in _NETWORK:
        return Finding(
            "filesystem",
            "fault",
            f"{kind}, a network filesystem: locks do not hold between machines, so the file can be ruined",
            "Put the file on a local disk.",
        )
    if kind in _MEMORY:
        return Finding(
            "filesystem", "warning", f"{kind}: kept in memory, gone after a restart", "Put the file on a disk."
        )
    return Finding("filesystem", "ok", kind)


def _filesystem_of(folder: Path) -> str:
    """Give the type that /proc/mounts names; the last mount on the deepest place covers the others."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "of unknown type"
    deepest, kind = -1, "of unknown type"
    for line in lines:
        place, this_kind = line.split()[1:3]
        place = place.replace("\\040", " ")
        if folder.resolve().is_relative_to(place) and len(place) >= deepest:
            deepest, kind = len(place), this_kind
    return kind


def _room(folder: Path) -> Finding:
    disk = os.statvfs(folder)
    free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    found = f"{_size(free)} free of {_size(whole)}"
    if free < _NO_ROOM_BYTES:
        return Finding("disk", "fault", found, "Free space: new jobs are refused when there is none left.")
    if free < _LITTLE_ROOM_BYTES:
        return Finding("disk", "warning", found, "Free space before it runs out.")
    return Finding("disk", "ok", found)


def _size(count: int) -> str:
    return f"{count / 1024**3:,.1f} GiB" if count >= 1024**3 else f"{count / _MIB:,.1f} MiB"


# -- the file ---------------------------------------------------------------------------------------------------------


def _file(file: Path) -> Iterator[Finding]:
    status = file.stat()
    owner, me = _user(status.st_uid), _user(os.geteuid())
    if not file.is_file():
        yield Finding("file", "fault", f"{file} is no file", "Give the path of a file.")
        return
    if not os.access(file, os.R_OK | os.W_OK):
        yield Finding(
            "file",
            "fault",
            f"{file} belongs to {owner} and cannot be read and written by {me}",
            f"Run this, and all workers, as {owner}.",
        )
    elif status.st_uid != os.geteuid():
        yield Finding(
            "file",
            "warning",
            f"{file} belongs to {owner}, not to {me}: what {me} makes beside it, {owner} may not be able to use",
            f"Run all of penstock as {owner}.",
        )
    else:
        yield Finding("file", "ok", f"{file}, {status.st_size / _MIB:,.1f} MiB, of {owner}")
    yield _mode(file, status.st_mode & 0o777)


def _mode(file: Path, mode: int) -> Finding:
    if mode & 0o077:
        return Finding(
            "mode", "warning", f"{mode:04o}: others may read or change what jobs hold", f"Run `chmod 600 {file}`."
        )
    return Finding("mode", "ok", f"{mode:04o}")


def _log(file: Path) -> Iterator[Finding]:
    try:
        size = os.stat(f"{file}-wal").st_size
    except FileNotFoundError:
        size = 0
    found = f"{size / _MIB:,.1f} MiB not yet moved into the file"
    if size > _LONG_LOG_BYTES:
        yield Finding(
            "log", "warning", found, "A program that reads without end keeps it from shrinking; end that program."
        )
    else:
        yield Finding("log", "ok", found)


def _holder(file: Path) -> Iterator[Finding]:
    """Wait for the right to write as every writer does, and name who does not give it up."""
    folder = file.with_name(f"{file.name}-penstock")
    opened: list[int] = []
    try:
        try:
            opened += [os.open(folder / name, os.O_RDWR | os.O_CLOEXEC) for name in ("turn", "gate")]
        except OSError:
            return  # nobody has written yet, or we may not: the folder's own finding says so
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        blocked = next((place for place, one in enumerate(opened) if not _comes_free(one, deadline)), None)
        if blocked is not None:
            # Who holds the turn waits for the gate, and who holds the gate may wait for SQLite's own lock.
            yield _held(_writer(file) or _flocked_by(*map(os.fstat, reversed(opened[blocked:]))))
        elif foreign := _foreign_writer(file, deadline):
            yield _held(foreign)
        else:
            yield Finding("lock", "ok", "free")
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _held(holder: str) -> Finding:
    return Finding(
        "lock",
        "fault",
        f"held by {holder} for more than {_LOCK_PATIENCE_S:g} s, so nobody else can write",
        "If that process is stopped or stuck, continue it (kill -CONT) or end it.",
    )


def _comes_free(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        else:
            return True


def _foreign_writer(file: Path, deadline: float) -> str | None:
    """Name a program that holds SQLite's own write lock although no penstock process can be writing now."""
    while holder := _writer(file):
        if time.monotonic() > deadline:
            return holder
        time.sleep(0.001)
    return None


def _writer(file: Path) -> str | None:
    """Name who holds SQLite's own write lock; whoever has only come through the gate may be waiting for it.

    Source: https://www.sqlite.org/walformat.html, section 2.3: the write lock is byte 120 of the shared-memory file.
    """
    try:
        status = os.stat(f"{file}-shm")
    except FileNotFoundError:
        return None
    pid = _lock_holder(status, "POSIX", byte=120)
    return _process(pid) if pid else None


def _flocked_by(*files: os.stat_result) -> str:
    pids = (_lock_holder(status, "FLOCK") for status in files)
    return next((_process(pid) for pid in pids if pid), "an unknown process")


def _lock_holder(status: os.stat_result, kind: str, byte: int | None = None) -> str | None:
    """Give the pid that holds a write lock on a file, from /proc/locks (see proc(5))."""
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if len(words) != 8 or words[1] != kind or words[3] != "WRITE" or words[5] != wanted:
            continue  # who only waits has an arrow as its second word, so one word more
        if byte is None or int(words[6]) <= byte <= int(words[7].replace("EOF", "9" * 18)):
            return words[4]
    return None


def _process(pid: str) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return f"process {pid}"
    command = " ".join(b" ".join(words).decode(errors="replace").split())
    return f"process {pid} ({command[:200]})"


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


# -- its content ------------------------------------------------------------------------------------------------------


def _content(file: Path, deep: bool) -> tuple[int | None, list[Finding]]:
    """Look inside with a connection that only reads."""
    try:
        with _reading(file) as db:
            schema, findings = _schema(db, file)
            if schema == schema_version():
                findings += [*_journal(db), *_clock(db), *_overdue(db)]
            if deep and schema:
                findings.append(_integrity(db))
            return schema, findings
    except sqlite3.Error as error:
        return None, [_unreadable(file, error)]


def _unreadable(file: Path, error: sqlite3.Error) -> Finding:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return Finding("content", "fault", f"{file} is not an SQLite database", _OWN_FILE)
    if code == sqlite3.SQLITE_CORRUPT:
        return Finding("content", "fault", f"{file} is damaged: {error}", _RESTORE)
    name = getattr(error, "sqlite_errorname", "")
    return Finding("content", "fault", f"SQLite cannot read {file}: {error} {name}".rstrip(), "Mend the faults above.")


@contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    """Open the file so that not even closing it writes: a reader's close takes no checkpoint."""
    address = f"file:{quote(str(file))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=5.0, isolation_level=None)) as db:
        db.execute("PRAGMA query_only = 1")
        yield db


def _schema(db: sqlite3.Connection, file: Path) -> tuple[int | None, list[Finding]]:
    known = schema_version()
    application = db.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            return 0, [Finding("schema", "ok", f"{file} is empty; schema {known} is made when it is first used")]
        return None, [Finding("schema", "fault", f"{file} is an SQLite database of another program", _OWN_FILE)]
    found = int(db.execute("PRAGMA user_version").fetchone()[0])
    if found > known:
        text = f"{found}, written by a newer penstock; this one knows up to {known}"
        return found, [Finding("schema", "fault", text, "Upgrade penstock here.")]
    if found < known:
        text = f"{found}; this version has {known}"
        return found, [Finding("schema", "warning", text, "Run `penstock migrate`, or start a worker.")]
    return found, [Finding("schema", "ok", str(found))]


def _journal(db: sqlite3.Connection) -> Iterator[Finding]:
    mode = db.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        text = f"{mode}, not wal: every write blocks all readers"
        yield Finding("journal", "fault", text, "Stop everything, then `sqlite3 FILE 'PRAGMA journal_mode = wal'`.")
    else:
        yield Finding("journal", "ok", "wal")


def _clock(db: sqlite3.Connection) -> Iterator[Finding]:
    """Compare the time of day with what was written last: retention, due times and deadlines go by it."""
    now_ms = time.time_ns() // 1_000_000
    last_ms = max(
        *db.execute("SELECT coalesce(max(created_ms), 0) FROM (SELECT created_ms FROM jobs ORDER BY id DESC LIMIT 1)"),
        *db.execute("SELECT coalesce(max(ended_ms), 0) FROM (SELECT ended_ms FROM ended ORDER BY ended DESC LIMIT 1)"),
    )[0]
    if now_ms < _PAST_MS:
        yield Finding("clock", "fault", "this machine's date lies in the past", "Set the clock; use NTP.")
    elif last_ms > now_ms + _CLOCK_SLACK_MS:
        ahead_s = (last_ms - now_ms) // 1000
        text = f"the store was written {ahead_s:,} s in the future: the clock was set back"
        yield Finding("clock", "warning", text, "Check the clock; due times and retention go by it.")
    else:
        yield Finding("clock", "ok", "agrees with what was written last")


def _overdue(db: sqlite3.Connection) -> Iterator[Finding]:
    """Due jobs become ready when somebody tends the store; jobs long overdue show that nobody does."""
    now_ms = time.time_ns() // 1_000_000
    count, first_ms = db.execute(
        "SELECT count(*), min(due_ms) FROM jobs WHERE due_ms < ?", (now_ms - _OVERDUE_MS,)
    ).fetchone()
    if count:
        late_s = (now_ms - first_ms) // 1000
        text = f"{count:,} scheduled jobs are overdue, the first by {late_s:,} s: nobody tends the store"
        yield Finding("due", "fault", text, "Start a worker; every worker tends the store.")
    else:
        yield Finding("due", "ok", "no scheduled job is overdue")


def _integrity(db: sqlite3.Connection) -> Finding:
    rows = [row[0] for row in db.execute("PRAGMA quick_check(10)").fetchall()]
    if rows == ["ok"]:
        return Finding("integrity", "ok", "the whole file was read and is sound")
    return Finding("integrity", "fault", f"damaged: {'; '.join(rows)}", _RESTORE)
