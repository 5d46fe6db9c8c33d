"""Waking up when another process has written: inotify on small files beside the database, polling elsewhere.

After each commit the writer touches a file for each kind of news. A touch costs some microseconds however many listen.
Source for the flags: inotify(7), <sys/inotify.h>.
"""

import ctypes
import os
import select
import struct
import threading
import time
from pathlib import Path

NEWS = ("work", "done", "due", "steer")

_IN_MODIFY, _IN_NONBLOCK, _IN_CLOEXEC = 0x2, 0o4000, 0o2000000
_EVENT = struct.Struct("iIII")  # a watch on a file has no name behind it
_READ_BYTES = 256 * _EVENT.size
_POLL_S = 0.02
_KEPT = 8


class Bell:
    """The wake files of one store, rung by writers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pid = os.getpid()
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()

    def ring(self, news: str) -> None:
        """Touch the file of this news; a lost touch only means that listeners find out by polling."""
        if self._pid != os.getpid():
            self._pid, self._files, self._lock = os.getpid(), {}, threading.Lock()
        with self._lock:
            try:
                descriptor = self._files.get(news)
                if descriptor is None:
                    descriptor = self._files[news] = open_wake_file(self._folder, news)
                os.pwrite(descriptor, b"!", 0)
            except OSError:
                # A full disk, or no descriptor left: what the news are about is committed, so its writer must not fail.
                return

    def close(self) -> None:
        if self._pid != os.getpid():
            self._lock = threading.Lock()
        with self._lock:
            if self._pid == os.getpid():
                for descriptor in self._files.values():
                    os.close(descriptor)
            self._files = {}


class Ear:
    """What one waiting thread listens with; news of other kinds do not wake it."""

    def __init__(self, folder: Path, news: tuple[str, ...] = NEWS) -> None:
        self.news = news
        self._watched: dict[int, str] = {}
        self._descriptor = _watch(folder, news, self._watched)
        if self._descriptor is not None:
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLIN)

    def forget(self) -> None:
        """Let news that came before now count as known."""
        self._heard()

    def listen(self, timeout_s: float) -> set[str]:
        """Give the next news, none after the timeout; without inotify, none after a short while."""
        if self._descriptor is None:
            time.sleep(min(timeout_s, _POLL_S))
        elif self._poll.poll(max(0.0, timeout_s) * 1000):
            return self._heard()
        return set()

    def _heard(self) -> set[str]:
        heard: set[str] = set()
        size = _READ_BYTES
        while self._descriptor is not None and size == _READ_BYTES:
            try:
                events = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                break
            size = len(events)
            for watch, mask, _, _ in _EVENT.iter_unpack(events):
                if mask & _IN_MODIFY:
                    heard.add(self._watched[watch])
        return heard

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


class Ears:
    """Ears for the threads of a process: borrowed while waiting, a few kept for the next."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._free: dict[tuple[str, ...], list[Ear]] = {}

    def borrow(self, news: tuple[str, ...]) -> Ear:
        if self._pid != os.getpid():
            self._start()  # after a fork the lock may be held by a thread that is not here
        with self._lock:
            if self._free.get(news):
                return self._free[news].pop()
        return Ear(self._folder, news)

    def give_back(self, ear: Ear) -> None:
        with self._lock:
            kept = self._free.setdefault(ear.news, [])
            if len(kept) < _KEPT:
                kept.append(ear)
                return
        ear.close()

    def close(self) -> None:
        if self._pid != os.getpid():
            self._start()
        with self._lock:
            for ear in (ear for kept in self._free.values() for ear in kept):
                ear.close()
            self._free = {}


def open_wake_file(folder: Path, news: str) -> int:
    folder.mkdir(mode=0o700, exist_ok=True)
    return os.open(folder / news, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _watch(folder: Path, news: tuple[str, ...], watched: dict[int, str]) -> int | None:
    """Give an inotify descriptor on the files of these news, and write down which watch is whose.

    None where there is no inotify, or no more of it.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor: int = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
    except (AttributeError, OSError):
        return None
    if descriptor < 0:
        return None
    for one in news:
        watch = _add_watch(libc, descriptor, folder, one)
        if watch < 0:
            os.close(descriptor)
            return None
        watched[watch] = one
    return descriptor


def _add_watch(libc: ctypes.CDLL, descriptor: int, folder: Path, news: str) -> int:
    try:
        os.close(open_wake_file(folder, news))
    except OSError:
        # Read-only, full, or gone: a file that stands there already can still be watched.
        if not (folder / news).exists():
            return -1
    return int(libc.inotify_add_watch(descriptor, os.fsencode(folder / news), _IN_MODIFY))
