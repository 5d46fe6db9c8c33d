"""Jobs that do to a worker what jobs do: they exit, hang, leak, shout, and leave things lying about."""

import asyncio
import contextlib
import ctypes
import functools
import locale
import logging
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from penstock.client import Penstock
from penstock.context import current_job
from penstock.worker.offspring import children

app = Penstock("sqlite:///unused.db")
log = logging.getLogger("shop")


def where() -> int:
    return os.getpid()


# -- how a process is taken down --------------------------------------------------------------------------------------


def leave(status: int) -> None:
    log.warning("about to leave")
    print("with", status)
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
    while not path.with_suffix(".over").exists():
        with contextlib.suppress(asyncio.CancelledError):
            await stay_at_the_door()


async def stay_at_the_door() -> None:
    await asyncio.sleep(600)


async def block_the_loop(path: Path) -> None:
    """Block until a file is there, as any other call that waits; first let others begin."""
    await asyncio.sleep(0.1)
    path.touch()
    while not path.with_suffix(".over").exists():
        time.sleep(0.01)


async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def nap() -> str:
    await asyncio.sleep(0.3)
    return "slept"


async def exit_in_a_task() -> None:
    """Let SystemExit through the loop, which asyncio does with those of its Tasks."""

    async def leave_now() -> None:
        raise SystemExit(3)

    await asyncio.gather(asyncio.create_task(leave_now()))


# -- what is left behind ----------------------------------------------------------------------------------------------


def state() -> dict[str, Any]:
    """Give what jobs of one process share."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "pid": os.getpid(),
        "folder": os.getcwd(),
        "umask": umask,
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "variable": os.environ.get("ILL_MANNERED", ""),
        "path": os.environ["PATH"],
        "term": str(signal.getsignal(signal.SIGTERM)),
        "locale": locale.setlocale(locale.LC_ALL),
        "streams": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)],
    }


def rearrange(folder: Path) -> int:
    """Change what can be put back."""
    os.chdir(folder)
    os.umask(0o777)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ["ILL_MANNERED"] = "yes"
    os.environ["PATH"] = "/nowhere"
    locale.setlocale(locale.LC_ALL, "C")
    return os.getpid()


def close_streams() -> int:
    for number in range(3):
        os.close(number)
    return os.getpid()


def change_root(folder: Path) -> int:
    os.chroot(folder)
    return os.getpid()


def daemonise() -> int:
    """Start a program that leaves its parent, its group and its session."""
    program = "setsid sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!'"
    return int(subprocess.run(["sh", "-c", program], capture_output=True, check=True).stdout)


def compute_in_processes() -> int:
    """Start processes and let them end, as jobs should; multiprocessing keeps one for itself."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(abs, [-1, 2])) == [1, 2]
    assert children(os.getpid()), "it keeps none: this test shows nothing"
    return os.getpid()


def orphan(count: int) -> int:
    """Leave programs that have ended, and that nobody collects."""
    before = len(children(os.getpid()))
    subprocess.run(["sh", "-c", f"for i in $(seq {count}); do (true &); done"], check=True)
    until = time.monotonic() + 20
    while len(children(os.getpid())) > before and time.monotonic() < until:
        time.sleep(0.01)
    return os.getpid()


def daemonise_and_hang(path: Path) -> None:
    path.write_text(str(daemonise()))
    time.sleep(600)


def leave_a_thread() -> int:
    threading.Thread(target=threading.Event().wait, name="left-behind").start()
    return os.getpid()


def exhaust(megabytes: int) -> int:
    """Ask for more memory than the process may have."""
    resource.setrlimit(resource.RLIMIT_AS, (megabytes * 1024**2, resource.RLIM_INFINITY))
    return len(b"x" * (megabytes * 1024**2))


def fill_group(group: Path, megabytes: int) -> int:
    """Grow beyond what a group of the kernel's may have."""
    (group / "cgroup.procs").write_text(str(os.getpid()))
    return len(os.urandom(1024) * 1024 * megabytes)


def leak(megabytes: int) -> int:
    LEAKED.append(os.urandom(1024) * 1024 * megabytes)
    return os.getpid()


LEAKED: list[bytes] = []


# -- what is said, raised and given -----------------------------------------------------------------------------------


def shout(megabytes: int) -> str:
    """Print much, without a newline and not as text."""
    for _ in range(megabytes):
        os.write(1, b"\xff" * 1024**2)
    print("x" * 1024**2)
    return "said"


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def raise_mute() -> None:
    raise Mute


def raise_at_length() -> None:
    raise ValueError("x" * 50_000_000)


def raise_in_a_chain() -> None:
    """Raise with more causes behind it than Python has frames."""
    error: Exception = ValueError("the first")
    for number in range(5000):
        try:
            raise ValueError(number) from error
        except ValueError as next_one:
            error = next_one
    raise error


def give_generator() -> Any:
    return (number for number in range(3))


def give_coroutine() -> Any:
    return stay_at_the_door()


def give_much() -> str:
    return "x" * 100_000_000


def give_nan() -> float:
    return float("nan")


PLAIN: list[Callable[..., Any]] = [
    where,
    leave,
    touch_nothing,
    abort,
    kill_self,
    match_for_ever,
    block,
    refuse_signals,
    state,
    rearrange,
    close_streams,
    change_root,
    daemonise,
    compute_in_processes,
    orphan,
    daemonise_and_hang,
    leave_a_thread,
    exhaust,
    fill_group,
    leak,
    shout,
    raise_mute,
    raise_at_length,
    raise_in_a_chain,
    give_generator,
    give_coroutine,
    give_much,
    give_nan,
]


def in_coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def run(*args: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args)

    return run


#: Those that do not come to an end have a limit of their own.
HANGS = {match_for_ever, block, refuse_signals, swallow_cancellation}


def terms(function: Callable[..., Any]) -> dict[str, Any]:
    timeout = "300ms" if function in HANGS else "1s" if function is nap else "1h"
    return {"max_crashes": 1, "max_attempts": 1, "timeout": timeout}


for function in PLAIN:
    for runner in ("thread", "process"):
        app.task(name=f"{runner}.{function.__name__}", runner=runner, **terms(function))(function)
    app.task(name=f"loop.{function.__name__}", **terms(function))(in_coroutine(function))
for coroutine in (swallow_cancellation, block_the_loop, sleep, nap, exit_in_a_task):
    app.task(name=f"loop.{coroutine.__name__}", **terms(coroutine))(coroutine)


@app.task(name="thread.enqueue_and_die", max_crashes=3)
def enqueue_and_die(path: Path) -> None:
    """Add a job to the same store, then die, the first time."""
    app.using(idempotency_key=f"{current_job().id}:where").enqueue("process.where")
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
