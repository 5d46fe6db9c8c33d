"""What every measured job writes down itself: its number and when it ran, in one file that only grows.

All contenders are counted by it, so that none is counted by a store that tells more or sooner than another's. A record
costs one system call of about a microsecond; appending is atomic among processes and threads (write(2), O_APPEND).
"""

import os
import struct
import time
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["JOURNAL", "What", "Written", "counted", "note", "read"]

JOURNAL = "BENCHMARK_JOURNAL"
_RECORD = struct.Struct("<qqq")


class What(IntEnum):
    """What a record says of its job."""

    STARTED = 0
    RAN = 1


class Written(NamedTuple):
    """One record; the time is that of the clock that all processes of a machine share."""

    number: int
    what: What
    at_ns: int


def note(number: int, what: What = What.RAN) -> None:
    """Write down what a job does now."""
    os.write(_file(), _RECORD.pack(number, what, time.monotonic_ns()))


def counted(file: Path) -> int:
    """Count the records."""
    return file.stat().st_size // _RECORD.size


def read(file: Path, *, after: int = 0) -> list[Written]:
    """Give all records but so many of the first, in the order of their times."""
    with file.open("rb") as opened:
        opened.seek(after * _RECORD.size)
        records = opened.read()
    found = [Written(number, What(what), at_ns) for number, what, at_ns in _RECORD.iter_unpack(records)]
    return sorted(found, key=lambda written: written.at_ns)


@cache
def _file() -> int:
    return os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
