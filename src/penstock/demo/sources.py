"""The files to count: those of a folder, and the two that the demo adds to have some trouble."""

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from penstock.demo.counting import UNREADABLE, read_source

__all__ = ["Found", "Trouble", "find_sources", "make_trouble", "standard_library"]

_NOT_ENTERED = {"site-packages", "dist-packages", "node_modules", "__pycache__"}

_UNREADABLE_FILE = b"""# This file was saved in the wrong encoding.

def greet() -> str:
    return "caf\xe9"
"""


class Found(Struct, frozen=True):
    """Files whose text can be read, and how many were left out because theirs cannot."""

    files: tuple[Path, ...]
    left_out: int


class Trouble(Struct, frozen=True):
    """A file that cannot be read, and a lock that a program which is long gone has left behind."""

    unreadable: Path
    lock: Path


def standard_library() -> Path:
    """Give the folder of the running Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def find_sources(folder: Path) -> Found:
    """Find the Python files below a folder, in order of their paths. Hidden folders and packages are not entered."""
    every = sorted(_python_files(folder))
    readable = tuple(path for path in every if _can_be_read(path))
    return Found(readable, len(every) - len(readable))


def make_trouble(folder: Path) -> Trouble:
    """Write what the demo wants to see go wrong."""
    trouble = Trouble(unreadable=folder / "unreadable.py", lock=folder / "left-behind.lock")
    trouble.unreadable.write_bytes(_UNREADABLE_FILE)
    trouble.lock.touch()
    return trouble


def _python_files(folder: Path) -> Iterator[Path]:
    for where, below, names in os.walk(folder):
        below[:] = [name for name in below if name not in _NOT_ENTERED and not name.startswith(".")]
        yield from (Path(where, name) for name in names if name.endswith(".py"))


def _can_be_read(path: Path) -> bool:
    try:
        str(path).encode()  # a name that is no text cannot be an argument of a job
        if path.is_file():
            read_source(path)
            return True
    except (*UNREADABLE, UnicodeEncodeError):
        return False
    return False
