"""What the figures were measured on: processor, memory, disk, versions."""

import os
import platform
import sqlite3
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from penstock.version import VERSION

__all__ = ["describe", "filesystem_of", "fsync_us", "real_disk"]

_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_SYNCS = 200


def describe(folder: Path) -> dict[str, object]:
    """Say what this machine is; `folder` is where the stores of the measurement stand."""
    kind = filesystem_of(folder)
    return {
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "penstock": VERSION,
        "huey": _version("huey"),
        "msgspec": _version("msgspec"),
        "filesystem": kind,
        "real_disk": kind not in _IN_MEMORY,
        "fsync_us": round(fsync_us(folder)),
    }


def real_disk() -> Path:
    """Give a folder for temporary files that is on a disk if there is one; in memory a sync costs nothing."""
    candidates = [Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()]
    found = [folder for folder in candidates if os.access(folder, os.W_OK)]
    return next((folder for folder in found if filesystem_of(folder) not in _IN_MEMORY), found[0])


def filesystem_of(folder: Path) -> str:
    """Give the type of the filesystem that a folder is on, as /proc/mounts names it."""
    folder = folder.resolve()
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [(place, kind) for place, kind in mounts if folder.is_relative_to(place.replace("\\040", " "))]
    return max(holding, key=lambda mount: len(mount[0]), default=("", "unknown"))[1]


def fsync_us(folder: Path) -> float:
    """Measure how long appending 4 KiB and syncing it takes here, in microseconds: the price of a commit."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        started = time.perf_counter()
        for _ in range(_SYNCS):
            os.write(file.fileno(), b"x" * 4096)
            os.fdatasync(file.fileno())
        return (time.perf_counter() - started) / _SYNCS * 1e6


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
