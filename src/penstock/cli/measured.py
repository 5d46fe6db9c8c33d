"""The tasks that `penstock bench` lets a worker run."""

import time

from penstock.client import Penstock

__all__ = ["QUEUE", "app", "noop", "stamp"]

QUEUE = "penstock-bench"

app = Penstock()


@app.task(queue=QUEUE, name="penstock.bench.noop", keep="10m")
def noop(number: int) -> int:
    """Do nothing, and give something back."""
    return number


@app.task(queue=QUEUE, name="penstock.bench.stamp", keep="10m")
def stamp() -> int:
    """Give the moment of the first line, on a clock that all processes of a machine share."""
    return time.monotonic_ns()
