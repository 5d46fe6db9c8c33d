"""Jobs that do to a worker what jobs do: they exit, hang, leak, shout, and leave things lying about."""

import asyncio
import contextlib
import ctypes
import logging
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.client import Penstock

app = Penstock("sqlite:///unused.db")
log = logging.getLogger("shop")


def where() -> int:
    return os.getpid()


# -- how a process is taken down --------------------------------------------------------------------------------------


def leave(status: int) -> None:
    log.warning("about to leave")
    os._exit(status)


def touch_nothing() -> None:
    """Read from an address where nothing is, as a C extension with a fault does."""
    log.warning("about to fault")
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# -- how one does not come to an end ----------------------------------------------------------------------------------


def match_for_ever(path: Path) -> None:
    """Hold the interpreter lock in C, as a bad regular expression does."""
    log.warning("about to match")
    path.touch()
    re.match(r"(a+)+$", "a" * 60 + "b")


def block(path: Path) -> None:
    log.warning("about to sleep")
    path.touch()
    time.sleep(600)


def refuse_signals(path: Path) -> None:
    """Block every signal, have a handler for the rest, and swallow whatever is raised in here."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    path.touch()
    while True:
        with contextlib.suppress(BaseException):
            while True:
                time.sleep(0.01)


async def swallow_cancellation(path: Path) -> None:
    log.warning("about to wait")
    path.touch()
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await stay_at_the_door()


async def stay_at_the_door() -> None:
    await asyncio.sleep(600)


async def block_the_loop(path: Path) -> None:
    """Block until a file is there, as any other call that waits."""
    path.touch()
    while not path.with_suffix(".over").exists():
        time.sleep(0.01)


async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def exit_in_a_task() -> None:
    """Let SystemExit through the loop, which asyncio does with those of its Tasks."""

    async def leave_now() -> None:
        raise SystemExit(3)

    await asyncio.gather(asyncio.create_task(leave_now()))


PLAIN: list[Callable[..., Any]] = [
    where,
    leave,
    touch_nothing,
    abort,
    kill_self,
    match_for_ever,
    block,
    refuse_signals,
]


def in_coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args)

    run.__signature__ = __import__("inspect").signature(function)  # type: ignore[attr-defined]
    return run


for function in PLAIN:
    for runner in ("thread", "process"):
        app.task(name=f"{runner}.{function.__name__}", runner=runner, max_crashes=1, max_attempts=1)(function)
for coroutine in (swallow_cancellation, block_the_loop, sleep, exit_in_a_task):
    app.task(name=f"loop.{coroutine.__name__}", max_crashes=1, max_attempts=1)(coroutine)
