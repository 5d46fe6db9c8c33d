"""A real `penstock worker` beside the demo: started, watched, robbed of a process, stopped."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.demo.tasks import QUEUE
from penstock.model.errors import PenstockError

__all__ = ["DemoFailed", "HiredWorker"]

PROCESSES = 2
SLOTS = 4

_STOPS_WITHIN_S = 5.0
_HURRIES_WITHIN_S = 1.0
_LAST_WORDS = 20


class DemoFailed(PenstockError):
    """The demo could not come to its end."""


class HiredWorker:
    """A worker in a session of its own, so that Ctrl-C reaches the demo alone, which then stops it.

    Args:
        folder: where it writes its log, `worker.log`.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._log = folder / "worker.log"

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._worker = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it. Were it killed at once, the store would keep its leases until they lapse."""
        try:
            self._stop(_STOPS_WITHIN_S if kind is None else _HURRIES_WITHIN_S)
        finally:
            if self._worker.poll() is None:
                self._worker.kill()
                self._worker.wait()

    def check(self) -> None:
        """See that it still lives.

        Raises:
            DemoFailed: it has ended.
        """
        status = self._worker.poll()
        if status is not None:
            raise DemoFailed(f"The worker ended with exit status {status}. {self.last_words()}")

    def last_words(self) -> str:
        """Give the end of its log, as the end of a message."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_WORDS:]
        if not lines:
            return "It wrote nothing."
        return "Its last words:\n" + "\n".join(f"  {line}" for line in lines)

    def processes(self) -> list[int]:
        """Give the pids of its processes, oldest first."""
        command = "penstock.worker.process"
        return [pid for pid, words in _children(self._worker.pid) if command in words]

    def _stop(self, patience_s: float) -> None:
        """Ask twice: a worker gives back what it still runs when it is asked for the second time."""
        for _ in range(2):
            if self._worker.poll() is None:
                self._worker.terminate()
            try:
                self._worker.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
            return

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "penstock", "worker", "--app", "penstock.demo.tasks:app", "--url", self._url),
            *("--queues", QUEUE, "--processes", str(PROCESSES), "--slots", str(SLOTS), "--log-level", "warning"),
        ]


def _environment() -> dict[str, str]:
    """Give an environment without other options of penstock. Newer Pythons warn of what older source files do."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return {**kept, "PYTHONWARNINGS": "ignore::SyntaxWarning"}


def _children(parent: int) -> Iterator[tuple[int, str]]:
    """Give pid and command line of a process's children, oldest first."""
    listed = _listed_by_proc() if sys.platform == "linux" else _listed_by_ps()
    return ((pid, words) for pid, parent_pid, words in sorted(listed) if parent_pid == parent)


def _listed_by_proc() -> Iterator[tuple[int, int, str]]:
    """Read what `ps` would show; small Linux systems come without it. Source: proc(5)."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat, words = (entry / "stat").read_text(errors="replace"), (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        _state, parent, *_ = stat.rpartition(")")[2].split()
        yield int(entry.name), int(parent), words.replace(b"\0", b" ").decode(errors="replace")


def _listed_by_ps() -> Iterator[tuple[int, int, str]]:
    listed = subprocess.run(["ps", "-axo", "pid=,ppid=,command="], stdout=subprocess.PIPE, check=True)
    for line in listed.stdout.decode(errors="replace").splitlines():
        pid, parent, words = line.split(None, 2)
        yield int(pid), int(parent), words
