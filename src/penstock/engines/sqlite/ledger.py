"""What a running job writes of itself, side effects, progress, log text, and what workers share."""

import msgspec

from penstock.engine import Begun, Note
from penstock.engines.sqlite.queries import SQL
from penstock.engines.sqlite.step import Step
from penstock.model.errors import LeaseLost
from penstock.model.job import Fence, JobId
from penstock.model.log import LOGS_KEPT, kept_text


def begin(step: Step, id: JobId, fence: Fence, at: tuple[str, str], keep_ms: int | None) -> Begun:
    """Let the first come begin; the same claim asking again is still the first, so a lost reply does no harm."""
    _check_fence(step, id, fence)
    row = step.db.execute(SQL["ledger_entry"], at).fetchone()
    if row is None or (row[4] is not None and row[4] <= step.now_ms):
        until_ms = None if keep_ms is None else step.now_ms + keep_ms
        step.db.execute(SQL["set_entry"], (*at, id, fence.number, fence.token, None, until_ms))
        return Begun(first=True)
    if row[3] is None and row[:3] == (id, fence.number, fence.token):
        return Begun(first=True)
    return Begun(first=False, by=JobId(row[0]), value=row[3])


def record(step: Step, id: JobId, fence: Fence, at: tuple[str, str], value: bytes | None) -> bool:
    """Write what a side effect gave; it is kept as long as `begin` said, else as long as the job."""
    _check_fence(step, id, fence)
    if value is None:
        step.db.execute(SQL["take_back_entry"], (*at, id))
        return True
    row = step.db.execute(SQL["ledger_entry"], at).fetchone()
    step.db.execute(SQL["set_entry"], (*at, id, fence.number, fence.token, value, row[4] if row else None))
    return True


def correct(step: Step, at: tuple[str, str], value: bytes | None) -> bool:
    """Write what a person knows of a side effect that was begun."""
    row = step.db.execute(SQL["ledger_entry"], at).fetchone()
    if row is None or (row[4] is not None and row[4] <= step.now_ms):
        return False
    if value is None:
        step.db.execute(SQL["drop_entry"], at)
    else:
        step.db.execute(SQL["set_entry"], (*at, *row[:3], value, row[4]))
    return True


def share(step: Step, kind: str, key: str, value: bytes | None, was: bytes | None) -> bool:
    """Change a shared value if it is still what the caller has seen."""
    row = step.db.execute(SQL["shared_value"], (kind, key)).fetchone()
    if (row[0] if row else None) != was:
        return False
    if value is None:
        step.db.execute(SQL["drop_shared"], (kind, key))
    else:
        step.db.execute(SQL["set_shared"], (kind, key, value))
    return True


def note(step: Step, note: Note) -> bool:
    """Store progress and log text, unless the fence is stale."""
    if not _held(step, note.id, note.fence):
        return False
    if note.progress is not None:
        step.db.execute(SQL["set_progress"], (msgspec.json.encode(note.progress), note.id))
    if note.log:
        _append_log(step, note)
    return True


def _append_log(step: Step, note: Note) -> None:
    row = step.db.execute(SQL["log_body"], (note.id, note.attempt)).fetchone()
    step.db.execute(SQL["set_log"], (note.id, note.attempt, kept_text((row[0] if row else "") + note.log)))
    if row is None and note.attempt > LOGS_KEPT:
        step.db.execute(SQL["drop_old_logs"], (note.id, note.attempt - LOGS_KEPT))


def _check_fence(step: Step, id: JobId, fence: Fence) -> None:
    if not _held(step, id, fence):
        raise LeaseLost(f"that held job {id} with fence {fence}")


def _held(step: Step, id: JobId, fence: Fence) -> bool:
    row = step.db.execute(SQL["noted"], (fence.token, id)).fetchone()
    return row is not None and row[0] == fence.number
