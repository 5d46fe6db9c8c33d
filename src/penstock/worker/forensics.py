"""What is left of a process that ended: how, and with how much memory."""

import contextlib
import os
import resource  # noqa: F401 - or `os.wait4` imports it, which takes a descriptor, and there may be none when it must
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path

from msgspec import Struct


class Remains(Struct, frozen=True):
    """How a process ended, and with how much memory.

    Attributes:
        peak_bytes: the most memory that it was ever seen to have resident; 0 if nobody looked in time.
        bound_bytes: what the kernel says after the end; no more than this, but it may be another's: it begins at the
            peak of the process that spawned this one, and includes the programs that this one ran.
        starved: whether the kernel killed a process for want of memory since the look before the last: one that it
            kills may take so long to end that it is looked at once more.
    """

    status: int
    peak_bytes: int = 0
    bound_bytes: int = 0
    starved: bool = False

    @property
    def code(self) -> int:
        """Its exit status, or the negative number of the signal that killed it."""
        return os.waitstatus_to_exitcode(self.status)

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exited with status {self.code}"
        hint = self._hint()
        name = _signal_name(-self.code) + (f", {hint}" if hint else "")
        return f"killed by signal {-self.code} ({name}); {self._peak()}"

    def story(self) -> str:
        """Say the same as the rest of a sentence about the process."""
        return f"was {self}" if self.code < 0 else str(self)

    def cause(self) -> str:
        """Say in words what it likely died of."""
        if self.code >= 0:
            return "its code ended the process, as os._exit does"
        return self._hint() or _CAUSES.get(-self.code, "it was killed from outside")

    def _hint(self) -> str:
        if self.code != -signal.SIGKILL:
            return _HINTS.get(-self.code, "")
        if self.starved:
            return "out of memory"
        return "likely out of memory" if self.peak_bytes > memory_bytes() * _MUCH else ""

    def _peak(self) -> str:
        least, most = spell_bytes(self.peak_bytes), spell_bytes(self.bound_bytes)
        if not self.peak_bytes:
            return f"peak memory at most {most}"
        if self.bound_bytes > self.peak_bytes * _ALIKE:
            return f"peak memory between {least} and {most}"
        return f"peak memory {least}"


_IN_C = "often a fault in a C extension"
#: What signals tell that a process brings upon itself.
_HINTS: dict[int, str] = {
    signal.SIGSEGV: _IN_C,
    signal.SIGBUS: f"{_IN_C}, or a mapped file that was cut off",
    signal.SIGILL: _IN_C,
    signal.SIGFPE: _IN_C,
    signal.SIGABRT: "abort was called, often by a C library that found its memory damaged",
    signal.SIGSYS: "a system call that is forbidden here",
    signal.SIGXCPU: "over its limit of CPU time",
    signal.SIGXFSZ: "over its limit of file size",
}
#: The same where it may have come from anywhere.
_CAUSES: dict[int, str] = {
    signal.SIGKILL: "it was killed from outside: by a person, a program, or the kernel for want of memory",
}
#: The part of the memory there is from which on a process counts as a likely victim of its want. Whoever kills for want
#: of memory picks the largest, and one that has less than a quarter is seldom that, or other things are wrong.
_MUCH = 0.25
#: How far the two figures of a peak may lie apart and still be told as one.
_ALIKE = 1.1


class Gauge:
    """Measures one process while it lives: what the kernel tells after the end is not the process's own alone.

    Source: getrusage(2), proc(5) on VmHWM, exec_mmap in Linux fs/exec.c, which hands the peak of the memory that a
    process gives up at its exec, its parent's, on to ru_maxrss.

    Args:
        count_kills: gives how many processes the kernel has killed for want of memory so far.
    """

    def __init__(self, pid: int, count_kills: Callable[[], int] | None = None) -> None:
        self.pid = pid
        self._count_kills = count_kills or out_of_memory_kills
        self._peak_bytes = 0
        self._kills = self._kills_before = self._count_kills()
        self.look()

    def look(self) -> None:
        """Take its figures; more often is more exact."""
        self._peak_bytes = peak_bytes(self.pid) or self._peak_bytes
        self._kills_before, self._kills = self._kills, self._count_kills()

    def ends_within(self, timeout_s: float) -> bool:
        """Say whether it ends by itself so soon; it is not collected."""
        until = time.monotonic() + timeout_s
        while not os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        return True

    def wait(self) -> Remains:
        """Wait until the process has ended and collect it."""
        _, status, usage = os.wait4(self.pid, 0)
        return self._remains(status, usage.ru_maxrss)

    def reap(self) -> Remains | None:
        """Collect the process if it has ended; None if it has not, or was collected before."""
        try:
            found, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            return None
        return self._remains(status, usage.ru_maxrss) if found else None

    def _remains(self, status: int, maxrss: int) -> Remains:
        bound = maxrss if sys.platform == "darwin" else maxrss * 1024
        return Remains(status, self._peak_bytes, bound, self._count_kills() > self._kills_before)


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


@contextlib.contextmanager
def subreaper() -> Iterator[None]:
    """Become the parent of what ended processes leave behind, so that it can be ended too.

    Source: prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    keep_orphans()
    try:
        yield
    finally:
        keep_orphans(False)


def keep_orphans(keep: bool = True) -> None:
    """Become the parent of what ended processes leave behind, or no longer."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(keep), 0, 0, 0)


_PR_SET_CHILD_SUBREAPER = 36


def peak_bytes(pid: int) -> int:
    """Give the most memory that a living process ever had resident, 0 where that cannot be told."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:")


def resident_bytes(pid: int) -> int:
    """Give the memory that a process has resident, 0 where that cannot be told."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


@cache
def memory_bytes(root: Path = Path("/")) -> int:
    """Give the memory that this process and its children may use together: the machine's, or less in a container."""
    machine = _kilobytes(root / "proc/meminfo", "MemTotal:") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_group_limits(root)])


def _group_limits(root: Path) -> Iterator[int]:
    """Give the limits of this process's control groups, of version 1 and 2, with those of the groups around them."""
    for line in _lines(root / "proc/self/cgroup"):
        _, kinds, path = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / kinds
        name = "memory.limit_in_bytes" if kinds else "memory.max"
        inside = Path(path.lstrip("/"))
        for group in (inside, *inside.parents):
            yield from (int(limit) for limit in _lines(top / group / name) if limit.isdecimal())


def out_of_memory_kills(path: Path = Path("/proc/vmstat")) -> int:
    """Give how many processes the kernel has killed for want of memory since it started, 0 where it does not tell."""
    return next((int(line.split()[1]) for line in _lines(path) if line.startswith("oom_kill ")), 0)


def _kilobytes(path: Path, name: str) -> int:
    return next((int(line.split()[1]) * 1024 for line in _lines(path) if line.startswith(name)), 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


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
