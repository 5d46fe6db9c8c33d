"""What the jobs of one child find and leave: the state of its process, the programs and threads that they have started.

A job may change its working directory, file mask, signals, limits, environment, locale and streams. What can be put
back is, so that the next job finds the child as the application left it; what cannot makes it unfit for a next job.
"""

import contextlib
import locale
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from typing import Any

from penstock.worker.offspring import command_of, lives, uncollected

log = logging.getLogger("penstock.worker")

#: How long a thread that a job has left running may go on before its child ends.
LINGER_S = 5.0
#: A child inherits what daemons of its jobs leave behind. It cannot collect them, because it cannot tell them from
#: programs that the application has started and will collect; so many may stay until the child is replaced.
MOST_UNCOLLECTED = 100
_MOST_NAMED = 3

#: Those for which programs set handlers; to look at all would treble what a look at these premises costs.
_SIGNALS = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE),
    *(signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2),
)


_LIMITED = (
    resource.RLIMIT_AS,
    resource.RLIMIT_DATA,
    resource.RLIMIT_CPU,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
)


class Premises:
    """The state of this process as it is now, to which it is brought back after each job.

    Made by the main thread when the application has been imported and no job has run yet.
    """

    def __init__(self) -> None:
        self._folder = os.getcwd()
        self._root = _root()
        self._umask = os.umask(0)
        os.umask(self._umask)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._handlers = _handlers()
        self._environment, self._raw_environment = dict(os.environ), dict(_raw_environment())
        self._locale, self._limits = locale.setlocale(locale.LC_ALL), _limits()
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        self._descriptors = [_identity(number) for number in range(3)]
        self._threads = set(threading.enumerate())
        self._programs = frozenset(uncollected(os.getpid()))
        self._lingering: dict[threading.Thread, int] = {}

    def tidy(self) -> str:
        """Restore what the job that has ended here has changed; called by the thread that ran it.

        Returns:
            why no other job shall run here, empty if one may.
        """
        try:
            self._count_threads()
            return ", ".join(self._restored())
        except Exception as error:  # noqa: BLE001 - a job can leave a process in which nothing works
            return f"what it has changed cannot be looked at ({error})"

    def lingers(self) -> str:
        """Name the threads that a job left running too long ago, empty if there is none."""
        now_ns = time.monotonic_ns()
        names = [
            thread.name
            for thread, since_ns in self._lingering.items()
            if thread.is_alive() and now_ns - since_ns > LINGER_S * 1e9
        ]
        return ", ".join(names[:_MOST_NAMED])

    def _restored(self) -> Iterator[str]:
        """Give what could not be restored."""
        os.umask(self._umask)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        sys.stdin, sys.stdout, sys.stderr = self._streams
        if _root() != self._root:
            yield "its root directory was changed"
        if not self._is_at_home() and not self._returns():
            yield "its working directory was changed"
        if [_identity(number) for number in range(3)] != self._descriptors:
            yield "its standard streams were closed or replaced"
        if locale.setlocale(locale.LC_ALL) != self._locale:
            locale.setlocale(locale.LC_ALL, self._locale)
        if _limits() != self._limits and not self._restore_limits():
            yield "its limits of resources were lowered"
        if _raw_environment() != self._raw_environment:
            self._restore_environment()
        if (handlers := _handlers()) != self._handlers and not self._restore_handlers(handlers):
            yield "its handlers of signals were changed"
        if living := _programs(self._programs):
            yield living

    def _returns(self) -> bool:
        with contextlib.suppress(OSError):
            os.chdir(self._folder)
        return self._is_at_home()

    def _is_at_home(self) -> bool:
        try:
            return os.getcwd() == self._folder
        except OSError:  # it was deleted
            return False

    def _restore_limits(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            for kind, limits in zip(_LIMITED, self._limits, strict=True):
                resource.setrlimit(kind, limits)
        return _limits() == self._limits

    def _restore_environment(self) -> None:
        for name in set(os.environ) - set(self._environment):
            del os.environ[name]
        os.environ.update(self._environment)

    def _restore_handlers(self, handlers: dict[int, Any]) -> bool:
        """Only the main thread may; a handler that was not set from Python cannot be set anew."""
        changed = [number for number, handler in handlers.items() if handler != self._handlers[number]]
        if threading.current_thread() is not threading.main_thread():
            return False
        if any(self._handlers[number] is None for number in changed):
            return False
        for number in changed:
            signal.signal(number, self._handlers[number])
        return True

    def _count_threads(self) -> None:
        """Note the threads that would keep a program from ending; daemons are made to be left."""
        now_ns = time.monotonic_ns()
        left = [thread for thread in threading.enumerate() if not thread.daemon and thread not in self._threads]
        self._lingering = {thread: self._lingering.get(thread, now_ns) for thread in left}


def _programs(known: Collection[int]) -> str:
    """Name the programs that a job has left running, beside those of the application; one system call for none."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return ""
    all_of_them = [pid for pid in uncollected(os.getpid()) if pid not in known]
    living = [pid for pid in all_of_them if lives(pid) and pid not in _helpers_of_python()]
    if not living:
        return "too many programs have ended uncollected" if len(all_of_them) > MOST_UNCOLLECTED else ""
    named = ", ".join(f"{command_of(pid)} (process {pid})" for pid in living[:_MOST_NAMED])
    more = f" and {len(living) - _MOST_NAMED} more" if len(living) > _MOST_NAMED else ""
    return f"programs were left running, which are ended: {named}{more}"


def _helpers_of_python() -> set[object]:
    """Give the processes that multiprocessing starts for itself and keeps; they hold nothing of a job's."""
    tracker, server = (sys.modules.get(f"multiprocessing.{name}") for name in ("resource_tracker", "forkserver"))
    return {
        getattr(getattr(tracker, "_resource_tracker", None), "_pid", None),
        getattr(getattr(server, "_forkserver", None), "_forkserver_pid", None),
    }


def _root() -> tuple[int, int, int] | None:
    """Tell the root directory from others, where the user is one who may change it."""
    return _identity("/") if os.geteuid() == 0 else None


def _limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(kind) for kind in _LIMITED]


def _raw_environment() -> dict[bytes, bytes]:
    """Give the environment as it is kept: to decode all of it costs fifty times as much as to compare it."""
    raw: dict[bytes, bytes] = vars(os.environ)["_data"]
    return raw


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in _SIGNALS}


def _identity(place: str | int) -> tuple[int, int, int] | None:
    """Tell a file or folder from any other; None if there is none."""
    try:
        found = os.stat(place)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_rdev
