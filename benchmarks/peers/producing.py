"""The frame of each contender's program: answers what the benchmark asks of a producer, or becomes the worker.

It runs in the contender's environment, so it imports the standard library alone. `PROGRAM produce` reads a request
for each line, as `{"do": "one", "first": 0, "seconds": 1}`, and answers with a line; `PROGRAM work PROCESSES [tuned]`
turns into the worker itself. PROGRAM is a module of `benchmarks.peers.programs`.
"""

import asyncio
import importlib
import inspect
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

__all__ = ["HOLD_S", "PORTION", "URL", "Program", "tool"]

URL = "BENCHMARK_URL"
HOLD_S = 0.05
PORTION = 1000
_PAUSE_S = (0.03, 0.09)


class Program(Protocol):
    """What each program gives; all but `commands` may be coroutine functions."""

    def prepare(self) -> Any:
        """Connect, and make what the queue needs in its store."""

    def enqueue(self, number: int) -> Any:
        """Enqueue one job that does nothing, and wait until the store has it."""

    def enqueue_many(self, numbers: Sequence[int]) -> Any:
        """Enqueue many by the queue's own call for it; if it has none, by its quickest documented way."""

    def enqueue_hold(self, number: int) -> Any:
        """Enqueue one job that takes `HOLD_S`."""

    def commands(self, processes: int, tuned: bool) -> list[list[str]]:
        """Give the commands that together are the worker with so many processes."""


def tool(name: str) -> str:
    """Give the path of a command of this environment."""
    return str(Path(sys.executable).parent / name)


def main(name: str, words: list[str]) -> None:
    """Do what the command line says with a program."""
    program: Program = importlib.import_module(f"benchmarks.peers.programs.{name}").Program()
    match words:
        case ["produce"]:
            _produce(program)
        case ["work", processes, *words]:
            _become(program.commands(int(processes), words == ["tuned"]))
        case _:
            sys.exit(f"{words!r} is neither `produce` nor `work PROCESSES [tuned]`.")


def _become(commands: list[list[str]]) -> None:
    """Turn into the first command, with a child for each further one: nothing of ours stays in the worker's memory."""
    first, *others = commands
    for command in others:
        if os.fork() == 0:
            os.execv(command[0], command)
    os.execv(first[0], first)


def _produce(program: Program) -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a queue prints is no reply
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            request = json.loads(line)
            did = runner.run(_DOINGS[request.pop("do")](program, **request))
            replies.write(json.dumps(did) + "\n")
            replies.flush()


async def _prepare(program: Program) -> dict[str, object]:
    await _done(program.prepare())
    return {}


async def _one(program: Program, first: int, seconds: float) -> dict[str, object]:
    """Enqueue one after the other for so long."""
    return await _timed(program.enqueue, (first + added for added in range(10**9)), seconds, 1)


async def _many(program: Program, first: int, seconds: float) -> dict[str, object]:
    portions = (range(start, start + PORTION) for start in range(first, 10**9, PORTION))
    return await _timed(program.enqueue_many, portions, seconds, PORTION)


async def _timed(enqueue: Callable[[Any], Any], of: Any, seconds: float, step: int) -> dict[str, object]:
    """Call until the time is over. The two loops differ by `await` alone, so that no call pays for the other kind."""
    count, began = 0, time.perf_counter()
    until = began + seconds
    if inspect.iscoroutinefunction(enqueue):
        while time.perf_counter() < until:
            await enqueue(next(of))
            count += step
    else:
        while time.perf_counter() < until:
            enqueue(next(of))
            count += step
    return {"count": count, "seconds": time.perf_counter() - began}


async def _fill(program: Program, first: int, count: int) -> dict[str, object]:
    for start in range(first, first + count, PORTION):
        await _done(program.enqueue_many(range(start, min(start + PORTION, first + count))))
    return {}


async def _hold(program: Program, first: int, count: int) -> dict[str, object]:
    for number in range(first, first + count):
        await _done(program.enqueue_hold(number))
    return {}


async def _spaced(program: Program, first: int, count: int) -> dict[str, object]:
    """Enqueue one job now and then; gives when each call began."""
    enqueue = getattr(program, "enqueue_awake", program.enqueue)
    sent_ns = []
    for number in range(first, first + count):
        await asyncio.sleep(random.uniform(*_PAUSE_S))
        sent_ns.append(time.monotonic_ns())
        await _done(enqueue(number))
    return {"sent_ns": sent_ns}


async def _done(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


_DOINGS: dict[str, Callable[..., Any]] = {
    "prepare": _prepare,
    "one": _one,
    "many": _many,
    "fill": _fill,
    "hold": _hold,
    "spaced": _spaced,
}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
