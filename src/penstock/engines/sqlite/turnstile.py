"""The turnstile: two file locks through which the writers of all processes pass one at a time, so that none starves."""

import fcntl
import os
import random
import time
from pathlib import Path

from penstock.engines.sqlite.errors import cannot_create

_PATIENCE_S = 0.0001
_MOST_PATIENCE_S = 0.0005


class Turnstile:
    """Lets one writer of all processes through the gate at a time.

    Whoever waits for the gate holds the turn, and who has just written must take the turn again. A process that dies
    leaves both. Used by one thread at a time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = self._gate = -1

    def enter(self, deadline: float) -> bool:
        """Take the gate; false when that did not succeed until `deadline` on the monotonic clock.

        Raises:
            EngineUnavailable: the files of the locks cannot be made.
        """
        if self._gate < 0:
            self._open()
        try:
            return _lock(self._turn, deadline) and _lock(self._gate, deadline)
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def leave(self) -> None:
        """Give the gate back; nothing if it is not held."""
        if self._gate >= 0:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the files. In a forked child this leaves the parent's locks alone, as long as it holds them."""
        for descriptor in (self._turn, self._gate):
            if descriptor >= 0:
                os.close(descriptor)
        self._turn = self._gate = -1

    def remove(self) -> None:
        """Remove the files of the locks, and their folder if nothing else is in it."""
        for name in ("turn", "gate"):
            (self._folder / name).unlink(missing_ok=True)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _open(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._turn = self._open_lock("turn")
            self._gate = self._open_lock("gate")
        except OSError as error:
            self.close()
            raise cannot_create(self._folder, error) from error

    def _open_lock(self, name: str) -> int:
        return os.open(self._folder / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int, deadline: float) -> bool:
    """Lock a file; flock has no timeout, so it is tried again until the deadline."""
    patience_s = _PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(patience_s * random.uniform(0.5, 1.0))
            patience_s = min(patience_s * 1.5, _MOST_PATIENCE_S)
        else:
            return True
