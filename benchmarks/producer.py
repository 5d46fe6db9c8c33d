"""Keeps a number of jobs ready: `python -m benchmarks.producer URL BACKLOG`, until it is told to end."""

import sys
import time

from benchmarks.tasks import app, noop

__all__ = ["hold_backlog"]

_PORTION = 1000
_PAUSE_S = 0.002


def hold_backlog(backlog: int) -> None:
    """Add a thousand jobs whenever fewer than `backlog` are ready."""
    while True:
        if app.counts()["default"]["ready"] < backlog:
            noop.enqueue_many((7,) for _ in range(_PORTION))
        else:
            time.sleep(_PAUSE_S)


if __name__ == "__main__":
    app.redirect(sys.argv[1])
    hold_backlog(int(sys.argv[2]))
