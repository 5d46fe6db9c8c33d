"""Room kept back on the disk, so that jobs which run can still finish when it is full."""

import os
import time
from contextlib import suppress
from pathlib import Path

_BYTES = 8 * 1024 * 1024
_STALE_S = 0.05
_CHUNK_BYTES = 64 * 1024


class Ballast:
    """A file of 8 MiB that stands beside the store until the disk is full.

    Once given up it stays behind empty. As long as it is empty, new work has to wait: the room that it made is for what
    was accepted before.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ballast"
        self._looked_s = -1.0
        self._was_spent = False

    @property
    def is_spent(self) -> bool:
        """Whether it was given up, as of at most 50 ms ago: whoever adds jobs asks this each time."""
        now_s = time.monotonic()
        if now_s - self._looked_s > _STALE_S:
            self._looked_s, self._was_spent = now_s, self._bytes() == 0
        return self._was_spent

    def give_up(self) -> None:
        """Free its room if the disk lets it; harmless when another process did, or when there never was one."""
        self._looked_s = -1.0
        if self._bytes() and os.access(self.path, os.W_OK):
            with suppress(OSError):  # whoever needed the room tries again, and tells what he finds
                os.truncate(self.path, 0)

    def rebuild(self) -> bool:
        """Take the room back if as much again stays free; answers whether the ballast stands."""
        self._looked_s = -1.0
        if self._bytes() == _BYTES:
            return True
        try:
            return self._has_room() and self._build()
        except OSError:
            return False

    def _bytes(self) -> int | None:
        try:
            return os.stat(self.path).st_size
        except OSError:
            return None

    def _has_room(self) -> bool:
        disk = os.statvfs(self.path.parent)
        return disk.f_bavail * disk.f_frsize >= 2 * _BYTES

    def _build(self) -> bool:
        """Write it beside its place, so that a ballast which fails half way is not taken for a whole one."""
        draft = self.path.with_name(f"ballast-{os.getpid()}")
        descriptor = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            _allocate(descriptor)
            os.replace(draft, self.path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return True


def _allocate(descriptor: int) -> None:
    """Make the disk give real blocks; a sparse file would free nothing."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, _BYTES)
        return
    for _ in range(_BYTES // _CHUNK_BYTES):
        os.write(descriptor, bytes(_CHUNK_BYTES))
