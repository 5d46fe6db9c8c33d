"""Jobs for children: what they start, how large they grow, what they say while they are interrupted."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

from penstock.client import Penstock
from penstock.context import current_job

app = Penstock("sqlite:///unused.db")

KEPT: list[bytes] = []


@app.task(runner="process")
def where() -> int:
    return os.getpid()


@app.task(runner="process")
def grow(megabytes: int) -> int:
    """Fill the process, and stay."""
    KEPT.append(os.urandom(1024) * 1024 * megabytes)
    return os.getpid()


@app.task(runner="process", max_memory="150M")
def stay_small() -> int:
    return os.getpid()


@app.task(runner="process")
def start_a_program(path: Path) -> None:
    """Start a program that would go on for long, then end neither in time nor when asked to."""
    path.write_text(str(subprocess.Popen(["sleep", "1000"]).pid))
    time.sleep(600)


@app.task(runner="process")
def leave_a_program() -> tuple[int, int]:
    """Leave a program behind in a child that lives on."""
    return os.getpid(), subprocess.Popen(["sleep", "1000"]).pid


@app.task(runner="process")
def close_everything() -> None:
    """Close what is not one's own, as careless daemons do."""
    os.closerange(3, 256)
    time.sleep(600)


@app.task(runner="process")
def talk_until_cancelled() -> None:
    me = current_job()
    while True:
        me.check_cancelled()
        me.log("still here")


@app.task(runner="process")
def ignore_cancel(path: Path) -> None:
    path.touch()
    while True:
        time.sleep(0.01)


@app.task(runner="process")
def talk_for_ever() -> None:
    """Talk on, whatever comes from outside."""
    while True:
        with contextlib.suppress(BaseException):
            while True:
                current_job().log("still here")
