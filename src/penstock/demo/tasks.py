"""The tasks of the demo. Where their jobs are stored comes from $PENSTOCK_URL."""

from pathlib import Path

from penstock.client import Penstock
from penstock.demo.counting import FileCount, count

__all__ = ["LockLeftBehind", "app", "count_file", "count_locked_file"]

QUEUE = "demo"

app = Penstock()


class LockLeftBehind(Exception):
    """A program that ended without tidying up has left its lock."""


@app.task(queue=QUEUE, max_attempts=2, backoff="200ms")
def count_file(path: str) -> FileCount:
    """Count what one file holds."""
    return count(Path(path))


@app.task(queue=QUEUE, max_attempts=3, backoff="200ms")
def count_locked_file(path: str, lock: str) -> FileCount:
    """Count what one file holds, under a lock; one that was left behind is removed for the next attempt."""
    try:
        Path(lock).touch(exist_ok=False)
    except FileExistsError:
        Path(lock).unlink()
        raise LockLeftBehind(f"{Path(lock).name} was left behind; it is removed now") from None
    try:
        return count(Path(path))
    finally:
        Path(lock).unlink()
