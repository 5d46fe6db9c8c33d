"""Signals as events of a loop: taken when they come, obeyed when the loop comes round to them."""

import contextlib
import faulthandler
import os
import signal
import socket
from collections import deque
from collections.abc import Iterator

__all__ = ["Signals"]

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTIN)


class Signals:
    """What wakes a loop that selects on this: signals, and other threads.

    Attributes:
        got: numbers of the signals that came and were not obeyed yet.
    """

    def __init__(self) -> None:
        self.got: deque[int] = deque()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        # `nohup` has the signal ignored
        self._follows_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def fileno(self) -> int:
        return self._wake_in.fileno()

    def wake(self) -> None:
        """Wake the loop, from any thread."""
        with contextlib.suppress(BlockingIOError):
            self._wake_out.send(b".")

    def woken(self) -> None:
        """Take note in the loop that it was woken."""
        with contextlib.suppress(BlockingIOError):
            while self._wake_in.recv(4096):
                continue

    def has_lost_terminal(self) -> bool:
        """Tell a hangup from an order: a worker that was started by hand ends with its terminal."""
        return self._follows_terminal and not _has_terminal()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Take signals in place of whoever did before. SIGTTIN also writes all stacks, at once."""
        before = {number: signal.signal(number, lambda got, _: self.got.append(got)) for number in NUMBERS}
        wakeup = signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        faulthandler.register(signal.SIGTTIN, all_threads=True, chain=True)
        try:
            yield
        finally:
            faulthandler.unregister(signal.SIGTTIN)
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)


def _has_terminal() -> bool:
    """Say whether this process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
