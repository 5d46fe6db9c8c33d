"""What the worker's tests share: claims made by hand, a runner with nothing around it, whole workers."""

import json
import os
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.client import Penstock
from penstock.engine import Engine
from penstock.engines.open import open_engine
from penstock.model.job import Claim, Fence, Job, JobId, Progress
from penstock.model.outcome import Outcome
from penstock.model.retry import Policy
from penstock.worker.board import Board
from penstock.worker.channel import Plan
from penstock.worker.execution import Runnable
from penstock.worker.runners.contract import Runner, Surroundings
from tests.polling import await_true
from tests.worker import jobs

ROOT = Path(__file__).parents[2]
PLACES = {"thread": 2, "loop": 5, "process": 1, "command": 2}

_numbers = iter(range(1, 1_000_000))


def claim(task: str, /, *args: Any, timeout: float | None = 60, **fields: Any) -> Claim:
    """A claim as an engine would give it out."""
    envelope, crc = jobs.app.tasks[task].pack(args, {})
    number = next(_numbers)
    timeout_ms = None if timeout is None else round(timeout * 1000)
    values: dict[str, Any] = {
        "id": JobId(f"01890a5d-ac96-774b-bcce-{number:012d}"),
        "fence": Fence(1, number),
        "task": task,
        "queue": "default",
        "envelope": envelope,
        "crc": crc,
        "policy": Policy(timeout_ms=timeout_ms),
    }
    return Claim(**values | fields)


def call_of(app: Penstock, task: str, /, *args: Any, **fields: Any) -> Claim:
    """A claim of a task of another application."""
    envelope, crc = app.tasks[task].pack(args, {})
    return claim("thread.tell", task=task, envelope=envelope, crc=crc, **fields)


def plan(**fields: Any) -> Plan:
    values: dict[str, Any] = {
        "app": "tests.worker.jobs:app",
        "url": None,
        "queues": None,
        "places": PLACES,
        "lease_ms": 30_000,
        "shutdown_ms": 1000,
    }
    return Plan(**values | fields)


class Stage:
    """A runner, and what comes out of it. Soft limits are checked as a process does it.

    Args:
        fields: of the runner's surroundings, where they differ from those of a worker.
    """

    def __init__(
        self,
        make: Callable[[Surroundings], Runner],
        tasks: Mapping[str, Runnable] = jobs.app.tasks,
        **fields: Any,
    ) -> None:
        self.outcomes: queue.SimpleQueue[tuple[Claim, Outcome]] = queue.SimpleQueue()
        self.notes: list[tuple[JobId, Progress | None, str]] = []
        self.board = Board.create(10)
        around = Surroundings(tasks=tasks, board=self.board, notes=self, deliver=self._deliver, home=jobs.app, **fields)
        self.runner = make(around)
        self._ended = threading.Event()
        threading.Thread(target=self._check, daemon=True).start()

    def put(self, claim: Claim, progress: Progress | None, log: str) -> None:
        self.notes.append((claim.id, progress, log))

    def run(self, claim: Claim, timeout: float = 20) -> Outcome:
        self.runner.start([claim])
        return self.next(timeout)[1]

    def next(self, timeout: float = 20) -> tuple[Claim, Outcome]:
        return self.outcomes.get(timeout=timeout)

    def await_running(self, count: int = 1) -> None:
        await_true(lambda: len(self.board.running()) >= count)

    def close(self) -> None:
        self._ended.set()
        self.runner.close()

    def _deliver(self, _runner: Runner, claim: Claim, outcome: Outcome) -> None:
        self.outcomes.put((claim, outcome))

    def _check(self) -> None:
        while not self._ended.wait(0.02):
            self.runner.check(time.monotonic_ns())


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process open no more than `count` files, above the lowest number that is free."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


_MAIN = """
import json, os, sys
from penstock.settings import load
from penstock.worker.entry import run
sys.exit(run(load(json.loads(sys.argv[1]), {}, None)))
"""


class Worker:
    """A whole worker in processes of its own, on a SQLite file.

    It writes to a file and not to a pipe, whose end would not come while a daemon of a job holds it.
    """

    def __init__(self, url: str, cwd: Path = ROOT, **settings: Any) -> None:
        values = {
            "app": "tests.worker.jobs:app",
            "url": url,
            "processes": 1,
            "slots": 4,
            "lease": "5s",
            "shutdown_timeout": "10s",
        }
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, json.dumps(values | settings)],
            cwd=cwd,
            env=environment,
            stderr=self._said,
        )
        self.pid = self._process.pid
        self._last_lines: list[str] = []

    @property
    def lines(self) -> list[str]:
        """What it has written, read without moving the place where it writes on."""
        if self._said.closed:
            return self._last_lines
        size = os.fstat(self._said.fileno()).st_size
        return os.pread(self._said.fileno(), size, 0).decode(errors="replace").splitlines()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def processes(self) -> list[int]:
        """The processes that the supervisor has started and not yet collected."""
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(word) for word in text.split()]

    def wait(self, timeout: float = 20) -> int:
        return self._process.wait(timeout)

    def has_said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        self._last_lines = self.lines
        self._said.close()


@contextmanager
def working(url: str, **settings: Any) -> Iterator[Worker]:
    worker = Worker(url, **settings)
    try:
        yield worker
    except BaseException:
        print(*worker.lines, sep="\n")
        raise
    finally:
        worker.end()


@contextmanager
def application(url: str) -> Iterator[Penstock]:
    """The application of the tests, on a store of its own."""
    jobs.app.redirect(url)
    try:
        yield jobs.app
    finally:
        jobs.app.close()


def stored(url: str, id: str) -> Job:
    engine: Engine = open_engine(url)
    try:
        job = engine.get([JobId(id)])[0]
    finally:
        engine.close()
    assert job is not None
    return job
