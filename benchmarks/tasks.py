"""The jobs that are measured, and the application that the workers load."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from penstock import Penstock

__all__ = ["Order", "anoop", "app", "hold", "hold_child", "noop", "receive", "spin", "stamp"]

app = Penstock()

SPIN_NS = 200_000
_HELD_S = 60.0


@dataclass
class Order:
    """What a shop might pass to a job."""

    customer: str
    amount: int
    express: bool = False


@app.task
def receive(order_id: int, order: Order) -> None:
    """Take one int and one dataclass; only ever enqueued."""


@app.task
def noop(number: int) -> int:
    """Do nothing, with a result to keep."""
    return number


@app.task
async def anoop(number: int) -> int:
    """Do nothing in a coroutine."""
    return number


@app.task
def spin(number: int) -> int:
    """Use 200 us of this thread's CPU time."""
    until = time.thread_time_ns() + SPIN_NS
    while time.thread_time_ns() < until:
        pass
    return number


@app.task
def stamp() -> int:
    """Say when it started, on the clock that all processes of a machine share."""
    return time.monotonic_ns()


@app.task
def hold(marker: str) -> int:
    """Run until it is killed; the next attempt ends at once and says when it started."""
    return wait_to_be_killed(Path(marker))


@app.task(runner="process")
def hold_child(marker: str) -> int:
    """Do the same in a child of its own."""
    return wait_to_be_killed(Path(marker))


def wait_to_be_killed(marker: Path) -> int:
    """Write this process's id to the marker and stay, unless an earlier attempt has done so."""
    if marker.exists():
        return time.monotonic_ns()
    half_written = marker.with_suffix(".new")
    half_written.write_text(str(os.getpid()))
    half_written.rename(marker)
    time.sleep(_HELD_S)
    return 0
