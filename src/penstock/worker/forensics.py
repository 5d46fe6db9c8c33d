"""What is left of a process that ended: how, and with how much memory."""

import os
import signal
import sys
from collections.abc import Collection
from pathlib import Path

from msgspec import Struct


class Remains(Struct, frozen=True):
    """How a process ended; `peak_bytes` is the most memory it ever had resident."""

    status: int
    peak_bytes: int = 0

    @property
    def code(self) -> int:
        """Its exit status, or the negative number of the signal that killed it."""
        return os.waitstatus_to_exitcode(self.status)

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exited with status {self.code}"
        hint = ", likely out of memory" if self.code == -signal.SIGKILL and self.peak_bytes > _MUCH else ""
        peak = spell_bytes(self.peak_bytes)
        return f"killed by signal {-self.code} ({_signal_name(-self.code)}{hint}); peak memory {peak}"

    def story(self) -> str:
        """Say the same as the rest of a sentence about the process."""
        return f"was {self}" if self.code < 0 else str(self)


_MUCH = 1024**3


def reap(pid: int) -> Remains | None:
    """Collect a child that has ended; None if it has not, or was collected before."""
    try:
        found, status, usage = os.wait4(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return _remains(status, usage.ru_maxrss) if found else None


def collect_strays(own: Collection[int]) -> None:
    """Collect ended processes that were handed to this one because whoever had started them ended first.

    Args:
        own: children that somebody else here collects; behind one of these that has ended the rest wait.
    """
    try:
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and found.si_pid not in own:
            os.waitpid(found.si_pid, 0)
    except ChildProcessError:
        return


def wait_for(pid: int) -> Remains:
    """Wait until a child has ended and collect it."""
    _, status, usage = os.wait4(pid, 0)
    return _remains(status, usage.ru_maxrss)


def _remains(status: int, maxrss: int) -> Remains:
    return Remains(status, maxrss if sys.platform == "darwin" else maxrss * 1024)


def resident_bytes(pid: int) -> int:
    """Give the memory that a process has resident, 0 where that cannot be told."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def is_stopped(pid: int) -> bool:
    """Say whether a process was stopped by a signal or a debugger."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in {"T", "t"}


def spell_bytes(size: int) -> str:
    return f"{size / 1024**3:.1f} GB" if size >= 1024**3 else f"{size / 1024**2:.0f} MB"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


_PAGE = os.sysconf("SC_PAGE_SIZE")
