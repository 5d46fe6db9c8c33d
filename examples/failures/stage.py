"""What the examples share: a store, workers that may be killed and frozen, and words for what the store knows."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from penstock import JobHandle, Penstock

PATIENCE_S = 60
BEGAN = time.monotonic()


@contextmanager
def stage(app: Penstock) -> Iterator[Path]:
    """Give a folder for this program and its workers, with a store in it unless $PENSTOCK_URL names one."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        os.environ.setdefault("PENSTOCK_URL", f"sqlite:///{folder}/store.db")
        os.environ["FOLDER"] = folder
        with app:
            yield Path(folder)


def folder() -> Path:
    """Give the same folder in a job."""
    return Path(os.environ["FOLDER"])


class Worker:
    """A `penstock worker` that runs the tasks of the program; use it as a context.

    Args:
        options: of the command line.
        variables: of its environment.
    """

    count = 0

    def __init__(self, *options: str, **variables: str) -> None:
        Worker.count += 1
        self.name = f"worker {Worker.count}"
        self._log = folder() / f"{self.name}.log"
        words = ["worker", "-A", f"{sys.argv[0]}:app", "--processes", "1", "--shutdown-timeout", "1s", *options]
        with self._log.open("wb") as log:
            self._program = subprocess.Popen(
                [sys.executable, "-m", "penstock", *words], env=os.environ | variables, stdout=log, stderr=log
            )

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def has_logged(self, words: str) -> bool:
        return words in self.log

    def kill(self) -> None:
        """Kill it with SIGKILL, as the kernel does when memory runs out; its processes end with it."""
        self._program.kill()
        self._program.wait()

    def freeze(self) -> None:
        """Stop its supervisor, which renews its lease."""
        self._program.send_signal(signal.SIGSTOP)

    def thaw_processes(self) -> None:
        """Let those go on that run jobs; the supervisor, which would end what is late, sleeps on."""
        self._resume(self._processes())

    def thaw(self) -> None:
        self._resume([*self._processes(), self._program.pid])

    def wait(self) -> int:
        """Wait until it has ended by itself, and give its exit status."""
        return self._program.wait(PATIENCE_S)

    def _processes(self) -> list[int]:
        pid = self._program.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def _resume(self, pids: list[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._program.poll() is None:
            self.thaw()
            self._program.terminate()
            self._program.wait(PATIENCE_S)


def say(text: str) -> None:
    """Print a line with the seconds since the program began."""
    print(f"{time.monotonic() - BEGAN:5.1f} s  {text}", flush=True)


def follow(job: JobHandle[Any]) -> None:
    """Say each failed attempt as the store learns of it, and how the job ended."""
    told = len(job.info().history)
    while not job.state().is_final:
        told += say_failures(job, told)
        time.sleep(0.05)
    say_failures(job, told)
    tell(job)


def say_failures(job: JobHandle[Any], told: int = 0) -> int:
    """Say what the history of a job has beyond what was told; give how much that was."""
    news = job.info().history[told:]
    for error in news:
        say(f"attempt {error.attempt} {error.kind}, class {error.failure_class}: {error.message}")
        if error.evidence is not None:
            say(f"    likely cause: {error.evidence.cause}")
    return len(news)


def tell(job: JobHandle[Any]) -> None:
    """Say how a job stands, and what it has been through."""
    seen = job.info()
    names = ("attempts", "failures", "crashes", "interruptions", "losses")
    counts = [f"{name} {getattr(seen.counters, name)}" for name in names if getattr(seen.counters, name)]
    say(f"{seen.task} is {seen.state}: {', '.join(counts) or 'not tried'}")


def wait_for(jobs: Iterable[JobHandle[Any]]) -> None:
    """Wait until jobs have ended, also if no worker is there yet."""
    for job in jobs:
        until(lambda job=job: job.state().is_final, f"{job.task} ends")


def until(happens: Callable[[], Any], what: str) -> Any:
    """Look again and again until something is so; give what the last look gave."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := happens()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"in {PATIENCE_S} s it did not happen that {what}")
        time.sleep(0.02)
    return found
