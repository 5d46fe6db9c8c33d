"""What a running job writes of itself, side effects, progress, log text, and what workers share."""

import msgspec

from penstock.engine import Begun, Note
from penstock.engines.postgres.adding import digest
from penstock.engines.postgres.store import Session
from penstock.model.errors import LeaseLost
from penstock.model.job import Fence, JobId, LedgerEntry
from penstock.model.log import LOGS_KEPT, kept_text


def begin(session: Session, id: JobId, fence: Fence, at: tuple[str, str], keep_ms: int | None, now_ms: int) -> Begun:
    """Let the first come begin; the same claim asking again is still the first, so a lost reply does no harm."""
    _check_fence(session, id, fence)
    key = digest(*at)
    until_ms = None if keep_ms is None else now_ms + keep_ms
    if session.do("ledger_begin", key, id, fence.number, fence.token, until_ms, now_ms):
        return Begun(first=True)
    by, number, token, value, _ = session.rows("ledger_entry", key)[0]
    if value is None and (by, number, token) == (id, fence.number, fence.token):
        return Begun(first=True)
    return Begun(first=False, by=JobId(by), value=value)


def record(session: Session, id: JobId, fence: Fence, at: tuple[str, str], value: bytes | None) -> bool:
    """Write what a side effect gave; it is kept as long as `begin` said, else as long as the job."""
    _check_fence(session, id, fence)
    if value is None:
        session.do("ledger_take_back", digest(*at), id)
    else:
        session.do("ledger_record", digest(*at), id, fence.number, fence.token, value)
    return True


def correct(session: Session, at: tuple[str, str], value: bytes | None, now_ms: int) -> bool:
    """Write what a person knows of a side effect that was begun."""
    key = digest(*at)
    if value is None:
        return bool(session.do("ledger_drop", key, now_ms))
    return bool(session.do("ledger_correct", value, key, now_ms))


def share(session: Session, kind: str, key: str, value: bytes | None, was: bytes | None) -> bool:
    """Change a shared value if it is still what the caller has seen."""
    if value is None and was is None:
        return session.row("shared_value", kind, key) is None
    if was is None:
        return bool(session.do("share_first", kind, key, value))
    if value is None:
        return bool(session.do("share_no_more", kind, key, was))
    return bool(session.do("share_next", value, kind, key, was))


def settle_entry(session: Session, id: JobId, fence: Fence, entry: LedgerEntry) -> None:
    """Write a side effect that came with the end of an attempt."""
    key = digest(entry.scope, entry.key)
    session.do("ledger_settle", key, id, fence.number, fence.token, entry.value)


def note(session: Session, note: Note) -> bool:
    """Store progress and log text, unless the fence is stale."""
    if not _is_held(session, note.id, note.fence):
        return False
    if note.progress is not None:
        session.do("set_progress", msgspec.json.encode(note.progress), note.id)
    if note.log:
        _append_log(session, note)
    return True


def _append_log(session: Session, note: Note) -> None:
    row = session.row("log_body", note.id, note.attempt)
    before = log_text(row[0]) if row else ""
    text = kept_text(before + note.log).encode("utf-8", "surrogatepass")
    session.do("set_log", note.id, note.attempt, text)
    if row is None and note.attempt > LOGS_KEPT:
        session.do("drop_old_logs", note.id, note.attempt - LOGS_KEPT)


def log_text(body: bytes) -> str:
    """Read the log text of an attempt."""
    return body.decode("utf-8", "surrogatepass")


def _check_fence(session: Session, id: JobId, fence: Fence) -> None:
    if not _is_held(session, id, fence):
        raise LeaseLost(f"that held job {id} with fence {fence}")


def _is_held(session: Session, id: JobId, fence: Fence) -> bool:
    return session.row("held", id, fence.number, fence.token) is not None
