"""Processes that other processes have started: found in the kernel's tree, also when they have left their group."""

import contextlib
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

#: How often descendants are looked for while they are ended; each round finds what the last one's had just forked.
_ROUNDS = 20


def children(pid: int) -> list[int]:
    """Give the living children of a process; none where the system does not tell."""
    return [child for child in uncollected(pid) if lives(child)]


def uncollected(pid: int) -> list[int]:
    """Give all children of a process, also those that have ended and were not collected."""
    found: list[int] = []
    for task in _entries(f"/proc/{pid}/task"):
        found += [int(word) for word in _text(f"/proc/{pid}/task/{task}/children").split()]
    return found


def descendants(pid: int) -> list[int]:
    """Give the living children of a process, their children, and so on."""
    found = children(pid)
    for child in found:
        found += children(child)
    return found


def end_descendants(pid: int) -> None:
    """Kill whatever a process has started, in whatever group or session, and stop it before, that it starts no more.

    Source: proc(5) on /proc/PID/task/TID/children, which is exact while the parent is stopped.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGSTOP)
    for _ in range(_ROUNDS):
        found = descendants(pid)
        if not found:
            return
        for one in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(one, signal.SIGKILL)
        time.sleep(0.001)


class Strays:
    """Processes that were handed to this one because whoever had started them has ended, and that live on.

    Args:
        known: children that were there before; they are nobody's strays.
    """

    def __init__(self) -> None:
        self._known = set(children(os.getpid()))
        self._seen: set[int] = set()

    def look(self, own: Collection[int]) -> list[tuple[int, str]]:
        """Give each that two looks in a row have found, once, with what it runs."""
        found = set(children(os.getpid())).difference(own, self._known)
        news = sorted(found & self._seen)
        self._known |= set(news)
        self._seen = found
        return [(pid, command_of(pid)) for pid in news]


def lives(pid: int) -> bool:
    """Say whether a process has not ended, collected or not."""
    return _text(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] not in ([], ["Z"], ["X"])


def command_of(pid: int) -> str:
    """Name the program that a process runs, without its arguments: there may be a password among them."""
    program = _text(f"/proc/{pid}/cmdline").partition("\0")[0]
    return os.path.basename(program)[:100] or "its program is not told"


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
