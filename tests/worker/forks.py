"""Jobs that leave a copy of their process behind, as daemons and careless forks do."""

import os
import time
from pathlib import Path

from penstock.client import Penstock

app = Penstock("sqlite:///unused.db")


def _leave_a_copy(path: Path) -> None:
    ended, told = os.pipe()
    copy = os.fork()
    if copy == 0:
        os.setsid()
        os.close(told)
        time.sleep(600)
        os._exit(0)
    os.close(told)
    os.read(ended, 1)  # comes to its end once the copy is in a group of its own
    path.write_text(str(copy))


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
