"""A server as a process: started, asked whether it answers, stopped, killed, frozen, started again."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

DEADLINE_S = 30.0


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # Source: prctl(2)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess(ABC):
    """One private server, whose data outlive its process, but which does not outlive the thread that started it.

    Attributes:
        account: user and group that run it; None runs it as we are.
    """

    account: tuple[int, int] | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "server.log"

    @property
    @abstractmethod
    def url(self) -> str:
        """Give the URL under which penstock opens it."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Give the words that start it in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Say whether it takes calls now."""

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert self._process is None, "the server runs already"
        user, group = self.account or (None, None)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=user,
                group=group,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        deadline = time.monotonic() + DEADLINE_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(
                    f"{self.command()[0]} did not start:\n{self._log.read_text(errors='replace')[-4000:]}"
                )
            time.sleep(0.02)

    def log(self) -> str:
        """Give all that the server wrote, in all its runs."""
        return self._log.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it as its manual says, and wait until it has ended."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it and all that it started without a word, as a crash does."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self.pid, signal.SIGSTOP)  # so that it starts no more
        deadline = time.monotonic() + DEADLINE_S
        while state_of(self.pid) not in ("T", "Z", "X", None):  # it may be about to start one
            assert time.monotonic() < deadline, f"{self.pid} did not stop"
            time.sleep(0.001)
        children = children_of(self.pid)
        _send(signal.SIGKILL, [*children, self.pid])
        self._process.wait()
        self._process = None
        while any(state_of(child) not in ("Z", "X", None) for child in children):
            assert time.monotonic() < deadline, f"{children} outlived SIGKILL"
            time.sleep(0.01)

    def freeze(self) -> None:
        """Stop it and all that it started, which PostgreSQL puts into groups of their own."""
        os.killpg(self.pid, signal.SIGSTOP)
        _send(signal.SIGSTOP, children_of(self.pid))

    def thaw(self) -> None:
        _send(signal.SIGCONT, children_of(self.pid))
        os.killpg(self.pid, signal.SIGCONT)

    def restart(self, *, gently: bool = True) -> None:
        """End and start it again, on the same port with the same data."""
        if gently:
            self.stop()
        else:
            self.kill()
        self.start()


def children_of(pid: int) -> list[int]:
    """Give the processes that a process started and that have not ended."""
    return [int(one) for one in os.listdir("/proc") if one.isdecimal() and _facts(int(one))[1:] == [str(pid)]]


def state_of(pid: int) -> str | None:
    """Give the letter of a process's state (T: stopped, Z: ended), None if it is gone."""
    return next(iter(_facts(pid)), None)


def _facts(pid: int) -> list[str]:
    """Give state and parent of a process. Source: proc(5), /proc/pid/stat: the name before them may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _send(number: int, pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.kill(pid, number)
