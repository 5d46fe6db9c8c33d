"""The machine's own clocks, as an engine reads them."""

import time
from functools import cache
from pathlib import Path


class SystemClock:
    """Time of day, time since boot (suspended time included), and the identity of the boot."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def steady_ms(self) -> int:
        return _steady_ns() // 1_000_000

    def boot(self) -> str:
        return _boot()


if hasattr(time, "CLOCK_BOOTTIME"):

    def _steady_ns() -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

else:

    def _steady_ns() -> int:
        return time.monotonic_ns()


@cache
def _boot() -> str:
    """Source: proc(5), /proc/sys/kernel/random/boot_id; elsewhere the boot time to the minute serves."""
    path = Path("/proc/sys/kernel/random/boot_id")
    if path.exists():
        return path.read_text().strip()
    return f"boot-{round((time.time() - time.monotonic()) / 60)}"
