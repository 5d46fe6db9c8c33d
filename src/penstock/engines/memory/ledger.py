"""What a running job writes of itself: side effects, progress, log text."""

from msgspec.structs import replace

from penstock.engine import Begun, Note
from penstock.engines.memory.store import Entry, Store
from penstock.model.errors import LeaseLost
from penstock.model.job import Fence, JobId
from penstock.model.log import LOGS_KEPT, kept_text


def begin(store: Store, id: JobId, fence: Fence, at: tuple[str, str], keep_ms: int | None) -> Begun:
    """Let the first come begin; the same claim asking again is still the first, so a lost reply does no harm."""
    _check_fence(store, id, fence)
    now = store.clock.wall_ms()
    entry = _live(store, at)
    if entry is None:
        store.ledger[at] = Entry(id, fence, None if keep_ms is None else now + keep_ms)
        return Begun(first=True)
    if entry.value is None and (entry.by, entry.fence) == (id, fence):
        return Begun(first=True)
    return Begun(first=False, by=entry.by, value=entry.value)


def record(store: Store, id: JobId, fence: Fence, at: tuple[str, str], value: bytes | None) -> bool:
    """Write what a side effect gave; it is kept as long as `begin` said, else as long as the job."""
    _check_fence(store, id, fence)
    begun = store.ledger.get(at)
    if value is not None:
        store.ledger[at] = Entry(id, fence, begun.until_ms if begun is not None else None, value)
    elif begun is not None and begun.by == id and begun.value is None:
        del store.ledger[at]
    return True


def correct(store: Store, at: tuple[str, str], value: bytes | None) -> bool:
    """Write what a person knows of a side effect that was begun."""
    entry = _live(store, at)
    if entry is None:
        return False
    if value is None:
        del store.ledger[at]
    else:
        entry.value = value
    return True


def _live(store: Store, at: tuple[str, str]) -> Entry | None:
    entry = store.ledger.get(at)
    is_over = entry is not None and entry.until_ms is not None and entry.until_ms <= store.clock.wall_ms()
    return None if is_over else entry


def note(store: Store, note: Note) -> bool:
    """Store progress and log text, unless the fence is stale."""
    if not store.holds_claim(note.id, note.fence):
        return False
    if note.progress is not None:
        store.put(replace(store.jobs[note.id], progress=note.progress))
    if note.log:
        log = store.logs[note.id]
        log[note.attempt] = kept_text(log.get(note.attempt, "") + note.log)
        store.logs[note.id] = {attempt: text for attempt, text in log.items() if attempt > note.attempt - LOGS_KEPT}
    return True


def _check_fence(store: Store, id: JobId, fence: Fence) -> None:
    if not store.holds_claim(id, fence):
        raise LeaseLost(f"that held job {id} with fence {fence}")
