"""The application that the worker's tests run: one task for each thing a job may do, on each runner."""

import asyncio
import ctypes
import functools
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.client import Penstock
from penstock.context import current_job
from penstock.model.errors import Bury, Cancel, Retry, Snooze, WorkerUnfit

app = Penstock("sqlite:///unused.db")


class HostileError(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text for you")

    __repr__ = __str__


def give(value: Any) -> Any:
    return value


def fail(message: str) -> None:
    raise LookupError(message)


def fail_hard(kind: str) -> None:
    raise {"SystemExit": SystemExit(0), "KeyboardInterrupt": KeyboardInterrupt(), "GeneratorExit": GeneratorExit()}[
        kind
    ]


def fail_hostile() -> None:
    raise HostileError


def recurse() -> None:
    recurse()


def fail_many() -> None:
    raise ExceptionGroup("several", [ValueError("a \ud800 surrogate"), KeyError("b")])


def steer(how: str) -> None:
    raise {
        "retry": Retry("not yet", after="5s"),
        "snooze": Snooze(7),
        "bury": Bury("hopeless"),
        "cancel": Cancel("not needed"),
        "unfit": WorkerUnfit("disk is full"),
        "badly": Snooze("soon"),
    }[how]


def give_unserialisable() -> object:
    return object()


def tell() -> str:
    me = current_job()
    me.progress(1, 2, "half")
    me.log("a line of its own")
    logging.getLogger("shop").warning("a record of its own")
    return me.id


def linger(seconds: float) -> str:
    """Wait in short steps, so that an interrupt gets through; stop when asked to."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)
        current_job().check_cancelled()
    return "stayed"


def block() -> None:
    time.sleep(600)


async def linger_async(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "stayed"


async def stop_loop() -> None:
    asyncio.get_running_loop().stop()


def in_coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def run(*args: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args)

    return run


PLAIN: list[Callable[..., Any]] = [
    give,
    fail,
    fail_hard,
    fail_hostile,
    recurse,
    fail_many,
    steer,
    give_unserialisable,
    tell,
]
for function in [*PLAIN, linger]:
    app.task(name=f"thread.{function.__name__}", runner="thread")(function)
    app.task(name=f"process.{function.__name__}", runner="process")(function)
for function in PLAIN:
    app.task(name=f"loop.{function.__name__}")(in_coroutine(function))
app.task(name="loop.linger")(linger_async)
app.task(name="loop.stop_loop")(stop_loop)
app.task(name="process.block", runner="process")(block)

_COMMAND = """
import json, sys, time
job = json.load(sys.stdin)
what = job["task"].partition(".")[2]
if what == "give":
    print(json.dumps(*job["args"]))
elif what == "fail":
    sys.exit(job["args"][0])
elif what == "steer":
    sys.exit({"retry": 75, "bury": 100}[job["args"][0]])
elif what == "linger":
    time.sleep(job["args"][0])
elif what == "give_unserialisable":
    print("no json")
elif what == "ignore":
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
elif what == "flood":
    print("x" * 3_000_000)
    print("y" * 3_000_000, file=sys.stderr)
"""
for name in ("give", "fail", "steer", "linger", "give_unserialisable", "ignore", "flood"):
    app.command(f"command.{name}", [sys.executable, "-c", _COMMAND])
app.command("command.missing", ["/no/such/program"])
app.command("command.quiet", ["true"])


# -- for whole workers ------------------------------------------------------------------------------------------------


@app.task
def add(left: int, right: int) -> int:
    return left + right


@app.task
async def add_async(left: int, right: int) -> int:
    return left + right


@app.task
def wait_for(path: Path) -> str:
    """Run until a file appears; another file beside it tells that it runs."""
    path.with_suffix(".started").touch()
    while not path.exists():
        time.sleep(0.01)
    return "seen"


@app.task(name="process.wait_for", runner="process")
def wait_for_alone(path: Path) -> str:
    return wait_for(path)


@app.task(max_attempts=1, timeout="300ms")
def ignore_everything(path: Path) -> None:
    """Block in C without the interpreter lock, where no interrupt reaches."""
    path.with_suffix(".started").touch()
    time.sleep(600)


@app.task
def wait_in_c(path: Path) -> None:
    path.with_suffix(".started").touch()
    time.sleep(600)


@app.task
def kill_self(path: Path) -> None:
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def hold_the_lock(seconds: float) -> str:
    """Keep the interpreter lock in C."""
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    return "held"


@app.task(runner="process")
def add_later(a: int, b: int) -> str:
    return add.enqueue(a, b).id


@app.task(max_attempts=2)
def call_unfit() -> None:
    raise WorkerUnfit("the disk is full")


@app.task
def where() -> int:
    return os.getpid()


@app.task
def grow(megabytes: int) -> int:
    KEPT.append(bytearray(os.urandom(1024)) * 1024 * megabytes)
    return os.getpid()


@app.task
def leave_behind() -> int:
    """Start a program that outlives what started it."""
    return int(subprocess.run(["sh", "-c", "sleep 0.1 >&- & echo $!"], capture_output=True, check=True).stdout)


@app.task
def grow_once(path: Path, megabytes: int) -> str:
    """Grow and stay the first time."""
    if path.exists():
        return "small"
    path.touch()
    grow.function(megabytes)
    time.sleep(600)
    return "large"


KEPT: list[bytearray] = []
