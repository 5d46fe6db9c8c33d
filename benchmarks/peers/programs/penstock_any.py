"""penstock on the store that the URL names; results are kept, every job is fenced and leased. Nothing is tuned."""

import os
import sys
import time
from collections.abc import Sequence

from benchmarks.peers.journal import What, note
from benchmarks.peers.producing import HOLD_S, URL
from penstock import Penstock

app = Penstock(os.environ[URL])


@app.task
def noop(number: int) -> int:
    note(number)
    return number


@app.task
def hold(number: int) -> int:
    note(number, What.STARTED)
    time.sleep(HOLD_S)
    note(number)
    return number


class Program:
    def prepare(self) -> None:
        app.counts()

    def enqueue(self, number: int) -> None:
        noop.enqueue(number)

    def enqueue_many(self, numbers: Sequence[int]) -> None:
        noop.enqueue_many((number,) for number in numbers)

    def enqueue_hold(self, number: int) -> None:
        hold.enqueue(number)

    def commands(self, processes: int, tuned: bool) -> list[list[str]]:  # noqa: ARG002
        application = ["-A", f"{__name__}:app", "--url", os.environ[URL]]
        options = ["--processes", str(processes), "--log-level", "warning"]
        return [[sys.executable, "-m", "penstock", "worker", *application, *options]]
