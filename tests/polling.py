"""Waiting in tests for what happens elsewhere."""

import time
from collections.abc import Callable


def comes_true(happens: Callable[[], object], within_s: float = 20.0) -> bool:
    """Look again and again, and say whether it happened in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if happens():
            return True
        time.sleep(0.005)
    return False
