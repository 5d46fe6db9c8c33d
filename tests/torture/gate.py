"""The locks in front of a SQLite store's transactions, looked at from outside."""

import fcntl
from pathlib import Path


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
