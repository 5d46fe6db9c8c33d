"""Jobs that leave a copy of their process behind, as daemons and careless forks do."""

import os
import time
from pathlib import Path

from penstock.client import Penstock

app = Penstock("sqlite:///unused.db")


def _leave_a_copy(path: Path) -> None:
    if os.fork() == 0:
        os.setsid()
        path.write_text(str(os.getpid()))
        time.sleep(600)
        os._exit(0)
    while not path.exists() or not path.read_text():
        time.sleep(0.01)


@app.task(runner="thread", max_attempts=1, max_crashes=0)
def die_in_thread(path: Path) -> None:
    _leave_a_copy(path)
    os._exit(7)


@app.task(runner="process", max_attempts=1, max_crashes=0)
def die_in_child(path: Path) -> None:
    _leave_a_copy(path)
    os._exit(7)


@app.task
def add(left: int, right: int) -> int:
    return left + right
