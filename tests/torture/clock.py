"""The time of day of a machine, as all that a test starts sees it: it can be set."""

import mmap
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SetClock:
    """Moves the time of day of every process that was started with `environment`; steady clocks go on.

    Attributes:
        environment: what such a process finds in its environment.
        jumps: when it was set, in ns of CLOCK_MONOTONIC.
    """

    def __init__(self, folder: Path, library: Path) -> None:
        moved = folder / "moved"
        moved.write_bytes(struct.pack("q", 0))
        moved.chmod(0o644)
        with moved.open("r+b") as file:
            self._moved = mmap.mmap(file.fileno(), 8)
        self._ns = 0
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_MOVED": str(moved)}
        self.jumps: list[int] = []

    def turn(self, seconds: float) -> None:
        """Set it forward, or back."""
        self._ns += round(seconds * 1e9)
        self.jumps.append(time.monotonic_ns())
        self._moved[:] = struct.pack("q", self._ns)


@contextmanager
def clock_that_can_be_set() -> Iterator[SetClock | None]:
    """Build what it takes; without a compiler there is none."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="penstock-clock-") as folder:
        os.chmod(folder, 0o755)  # a server may run under an account of its own
        library, source = Path(folder) / "set_clock.so", Path(__file__).with_name("set_clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True)
        yield SetClock(Path(folder), library)
