"""The locks in front of a SQLite store's transactions, looked at from outside."""

import fcntl
from pathlib import Path


def holders(folder: Path) -> set[int]:
    """Give the processes that write to a folder's store.db, or are about to. Source: proc_locks(5)."""
    locks = folder / "store.db-penstock"
    held = {str(lock.stat().st_ino) for lock in (locks / "turn", locks / "gate") if lock.exists()}
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {int(words[4]) for words in lines if words[1] == "FLOCK" and words[5].rpartition(":")[2] in held}


def is_gate_held(folder: Path) -> bool:
    """Say whether somebody writes to a folder's store.db, or is about to; frozen then, he keeps it from everybody."""
    return any(_is_held(folder / "store.db-penstock" / name) for name in ("turn", "gate"))


def _is_held(lock: Path) -> bool:
    with open(lock, "rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
