"""Where the threads of a process stand, written by the process itself behind its board, which outlives it.

faulthandler writes from a signal handler in C, without the interpreter lock: a process that hangs in one tells as well,
and so does one that dies of a fault in C.
"""

import contextlib
import faulthandler
import fcntl
import os
import re
import signal
import time
from collections.abc import Iterator

from penstock.worker.board import Board
from penstock.worker.execution import bounded
from penstock.worker.forensics import is_stopped

#: What asks a process to write where it stands. No program uses the last of the real-time signals for anything else.
SHOW = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
#: How long a process may take to write.
SHOWING_S = 0.3
LONGEST_STACKS = 16 * 1024
#: From here on the kernel looks for a free descriptor: jobs that close "all" descriptors seldom go so far, and a number
#: that is used again would let a stack be written into a file of theirs.
_FAR = 1000

_FRAME = re.compile(r'  File "(?P<file>[^"\n]*)", line (?P<line>\d+) in (?P<name>.*)')


def offer(board: Board) -> None:
    """Write the stacks of this process behind its board when it dies of a fault in C, and when it is asked to."""
    descriptor = _far_away(board.descriptor)
    faulthandler.enable(descriptor)
    faulthandler.register(SHOW, descriptor)
    os.register_at_fork(after_in_child=lambda: faulthandler.enable(2))  # its faults are not those of this process


def _far_away(descriptor: int) -> int:
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FAR)
    except (OSError, ValueError):  # fewer descriptors are allowed
        return descriptor


def ask(pid: int, board: Board) -> None:
    """Let a process write its stacks, and wait until it has; one that was stopped goes on for that moment."""
    before = size = board.size_behind
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, SHOW)
        if is_stopped(pid):
            os.kill(pid, signal.SIGCONT)
    until = time.monotonic() + SHOWING_S
    while time.monotonic() < until:
        time.sleep(0.01)
        size, last = board.size_behind, size
        if size == last > before:
            return


def arrange(text: str, *, thread: int = 0, job: str = "") -> str:
    """Put the stacks that a job is to blame for first, and bound the whole."""
    parts = sorted(_parts(text), key=lambda part: _distance(part, thread, job))
    return bounded("\n\n".join(parts), LONGEST_STACKS)


def where(stacks: str) -> str:
    """Say in words where the first of some stacks stands: in which function, and where the job called it.

    Returns:
        nothing if it does not tell.
    """
    frames = [found for line in next(iter(_parts(stacks)), "").splitlines() if (found := _FRAME.fullmatch(line))]
    if not frames:
        return ""
    own = next((frame for frame in frames if "/lib/python" not in frame["file"]), frames[0])
    last = "" if own is frames[0] else f"{_place(frames[0])}, called from "
    return f"in {last}{_place(own)}"


def _place(frame: "re.Match[str]") -> str:
    return f"{frame['name']} ({os.path.basename(frame['file'])}:{frame['line']})"


def _parts(text: str) -> Iterator[str]:
    """Give the stacks of single threads and coroutines, each with its heading, without what else faulthandler says."""
    for part in text.strip("\n").split("\n\n"):
        if not part.startswith(("Fatal Python error", "Extension modules")):
            yield part.strip("\n")


def _distance(part: str, thread: int, job: str) -> int:
    """Say how far a stack is from a job: its coroutine, the thread that runs it, or another."""
    head = part.partition("\n")[0]
    if job and head.startswith(f"Coroutine of job {job} "):
        return 0
    return 1 if thread and f"hread 0x{thread:016x} " in head else 2
