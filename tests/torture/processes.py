"""Other processes as a killer handles them: found, stopped, killed and awaited, without mistaking one for another."""

import os
import select
import signal
from pathlib import Path
from typing import Self

from tests.polling import await_true


class Process:
    """A process by its descriptor, which never comes to mean another one."""

    def __init__(self, pid: int, role: str) -> None:
        self.pid, self.role = pid, role
        self.descriptor = os.pidfd_open(pid)

    @classmethod
    def found(cls, pid: int, role: str, program: str = "") -> Self | None:
        """Give a process of which only the pid is known, if it lives and its command line has `program` in it."""
        try:
            process = cls(pid, role)
        except ProcessLookupError:
            return None
        if program in _read(pid, "cmdline") and not process.has_ended():
            return process
        process.close()
        return None

    def has_ended(self) -> bool:
        return bool(select.select([self.descriptor], [], [], 0)[0])

    def is_stopped(self) -> bool:
        return _read(self.pid, "stat").rpartition(")")[2].split()[:1] == ["T"]

    def send(self, number: signal.Signals) -> None:
        """Send a signal; whoever has ended needs none."""
        if not self.has_ended():
            signal.pidfd_send_signal(self.descriptor, number)

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)
        await_true(lambda: self.is_stopped() or self.has_ended(), f"{self} stops")

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        await_true(self.has_ended, f"{self} ends")

    def children(self) -> list[int]:
        return [int(word) for word in _read(self.pid, f"task/{self.pid}/children").split()]

    def close(self) -> None:
        os.close(self.descriptor)

    def __repr__(self) -> str:
        return f"{self.role} {self.pid}"


def workers_processes(supervisor: Process) -> list[Process]:
    """Give the processes that work for a supervisor."""
    found = [Process.found(pid, "process", "penstock.worker.process") for pid in supervisor.children()]
    return [process for process in found if process is not None]


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
