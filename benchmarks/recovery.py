"""Recovery: a process is killed while it runs a job; how long until the store gives the job out again."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.counting import wait_for
from benchmarks.figures import Figure, percentile
from benchmarks.stores import Store
from benchmarks.tasks import hold, hold_child
from benchmarks.workers import Tree, worker
from penstock import JobHandle, Task
from penstock.model.states import State

__all__ = ["measure"]

_TICK_S = 0.001
#: The supervisor takes a dead process's claims over under a new number, and only then puts the jobs back.
_TAKEN_OVER = 1


def measure(bench: Bench) -> Iterator[Figure]:
    """Give recovery times after SIGKILL of a worker's process and of a child of its process lane."""
    kills = bench.pick(25, 4)
    store = Store(bench.place, "recovery")
    store.use()
    killed: tuple[tuple[str, str, Task[[str], int], int], ...] = (
        ("process", "killed process", hold, _TAKEN_OVER),
        ("child", "killed child of the process lane", hold_child, 0),
    )
    for key, title, task, taken_over in killed:
        bench.say(f"recovery: {kills} times, {title}")
        with worker(store.url) as tree:
            ready, started = zip(
                *(_kill_one(tree, task, bench.folder / f"held-{key}-{number}", taken_over) for number in range(kills)),
                strict=True,
            )
        note = f"{kills} kills"
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            value = percentile(ready, share)
            what = f"{title}: its job startable again, {name}"
            yield Figure.of(f"recovery.{key}.{name}", what, "ms", ready, value=value, note=note)
        yield Figure.of(f"recovery.{key}.started", f"{title}: its job started again", "ms", started, note=note)
    store.remove()


def _kill_one(tree: Tree, task: Task[[str], int], marker: Path, taken_over: int) -> tuple[float, float]:
    """Kill who runs a job; gives ms until the job was free again, and until its code had begun again."""
    job = task.enqueue(str(marker))
    wait_for(marker.exists, "the job's first attempt", tree=tree, tick_s=_TICK_S)
    claimed = job.info().claim_number
    killed_ns = time.monotonic_ns()
    os.kill(_pid_in(marker), signal.SIGKILL)
    wait_for(lambda: _is_free(job, claimed + taken_over), "the job to be free again", tree=tree, tick_s=_TICK_S)
    ready_ns = time.monotonic_ns()
    started_ns = job.result(timeout=30)
    return (ready_ns - killed_ns) / 1e6, (started_ns - killed_ns) / 1e6


def _pid_in(marker: Path) -> int:
    return int(marker.read_text())


def _is_free(job: JobHandle[Any], last_claim: int) -> bool:
    """Whether the job waits again, or was given out again before anybody looked."""
    found = job.info()
    return found.state is not State.RUNNING or found.claim_number > last_claim
