"""Real workers as subprocesses: started, looked at from outside, and ended whatever happens."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

__all__ = ["ROOT", "Tree", "WorkerEnded", "consumer", "producer", "worker"]

ROOT = Path(__file__).resolve().parent.parent

_END_S = 10.0
_LAST_WORDS = 2000
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class WorkerEnded(Exception):
    """What was measured ended by itself."""


class Tree:
    """A process and all its descendants, as /proc shows them.

    Args:
        said: where its output goes; shown only if it ends by itself.
    """

    def __init__(self, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self.process, self._said = process, said
        self._killed = False

    def pids(self) -> list[int]:
        """List the living ones, the root first."""
        found = [self.process.pid]
        for pid in found:
            found += _children(pid)
        return found

    def pss_bytes(self) -> int:
        """Add up the memory of all, shared pages divided among those who share them."""
        return sum(_pss_bytes(pid) for pid in self.pids())

    def cpu_s(self) -> float:
        """Add up the time on a CPU of all living threads, by the scheduler's own account in nanoseconds."""
        return sum(_cpu_s(pid) for pid in self.pids())

    def check(self) -> None:
        """Raise if it is no longer at work."""
        if self.process.poll() is not None and not self._killed:
            self._said.seek(0)
            last_words = self._said.read()[-_LAST_WORDS:].decode(errors="replace")
            raise WorkerEnded(f"{self.process.args!r} ended with status {self.process.returncode}:\n{last_words}")

    def end(self) -> None:
        """Ask it to end, and kill all of it if it does not."""
        pids = self.pids()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            _signal(pids, signal.SIGKILL)
            self.process.wait()

    def kill(self) -> None:
        """Kill all of it at once; frozen first, so that none can start another meanwhile."""
        self._killed = True
        frozen: list[int] = []
        while found := [pid for pid in self.pids() if pid not in frozen]:
            _signal(found, signal.SIGSTOP)
            frozen += found
        _signal(frozen, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def worker(url: str, *, processes: int = 1) -> Iterator[Tree]:
    """Run a penstock worker on a store."""
    command = [sys.executable, "-m", "penstock", "worker", "--processes", str(processes), "--log-level", "warning"]
    with running(command, {"PENSTOCK_APP": "benchmarks.tasks:app", "PENSTOCK_URL": url}) as tree:
        yield tree


@contextlib.contextmanager
def consumer(environment: Mapping[str, str]) -> Iterator[Tree]:
    """Run a huey consumer with one thread worker, its default; quiet, its other options as they come."""
    command = [sys.executable, "-m", "huey.bin.huey_consumer", "benchmarks.rival.huey", "-k", "thread", "-q"]
    with running(command, environment) as tree:
        yield tree


@contextlib.contextmanager
def producer(url: str, backlog: int) -> Iterator[Tree]:
    """Run what keeps so many jobs ready."""
    with running([sys.executable, "-m", "benchmarks.producer", url, str(backlog)], {}) as tree:
        yield tree


@contextlib.contextmanager
def running(command: list[str], environment: Mapping[str, str], *, gently: bool = True) -> Iterator[Tree]:
    """Run a command from the root of the repository and end it, with all its descendants, at the end of the block.

    Args:
        gently: ask it to end first.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, **environment},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        tree = Tree(process, said)
        try:
            yield tree
            tree.check()
        finally:
            if gently:
                tree.end()
            else:
                tree.kill()


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _cpu_s(pid: int) -> float:
    """Source: Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat": the first field is time on the CPU."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
