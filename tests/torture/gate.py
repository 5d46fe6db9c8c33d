"""The lock in front of a SQLite store's transactions, looked at from outside."""

import fcntl
from pathlib import Path


def is_gate_held(folder: Path) -> bool:
    """Say whether somebody writes to the store.db of a folder; who is frozen then keeps it from everybody."""
    with open(folder / "store.db-penstock" / "gate", "rb") as gate:
        try:
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
