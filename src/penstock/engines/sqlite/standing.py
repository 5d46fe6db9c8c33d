"""Which file stands at a path, asked for without its times.

A plain stat asks for the times too. On Linux 6.13 and newer the next write must then note a finer time in the inode,
and the sync after it costs some 20 µs more, which matters to a queue that looks at its files before every commit.
Sources: statx(2); Documentation/filesystems/multigrain-ts.rst in the kernel.
"""

import ctypes
import os
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

_AT_FDCWD = -100
_STATX_INO, _STATX_SIZE = 0x100, 0x200
_Buffer = ctypes.c_char * 256
_INO_SIZE, _DEV = struct.Struct("=QQ"), struct.Struct("=II")
_INO_SIZE_AT, _DEV_AT = 32, 136


class Standing(NamedTuple):
    """A file: its device, inode and size in bytes."""

    device: tuple[int, int]
    inode: int
    size: int


def standing_by_stat(path: bytes) -> Standing:
    """Look with stat, where there is nothing better.

    Raises:
        FileNotFoundError: nothing stands there.
    """
    found = os.stat(path)
    return Standing((os.major(found.st_dev), os.minor(found.st_dev)), found.st_ino, found.st_size)


def _find() -> Callable[[bytes], Standing]:
    try:
        # PyDLL keeps the interpreter's lock: giving it up and taking it again costs more than a look at a local disk.
        statx: Any = ctypes.PyDLL(None).statx
    except (AttributeError, OSError):
        return standing_by_stat

    def standing_by_statx(path: bytes) -> Standing:
        buffer = _Buffer()
        if statx(_AT_FDCWD, path, 0, _STATX_INO | _STATX_SIZE, buffer) != 0:
            return standing_by_stat(path)
        inode, size = _INO_SIZE.unpack_from(buffer, _INO_SIZE_AT)
        return Standing(_DEV.unpack_from(buffer, _DEV_AT), inode, size)

    return standing_by_statx


#: Look at what stands at a path; raises FileNotFoundError if nothing does.
standing: Callable[[bytes], Standing] = _find()
