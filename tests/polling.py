"""Waiting in tests for what happens elsewhere."""

import time
from collections.abc import Callable
from typing import Any


def comes_true(happens: Callable[[], object], within_s: float = 20.0) -> bool:
    """Look again and again, and say whether it happened in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if happens():
            return True
        time.sleep(0.005)
    return False


def await_true(condition: Callable[[], Any], what: str = "what was waited for happens", timeout_s: float = 30) -> Any:
    """Look again and again until the condition holds, and give what it gave; fail after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"within {timeout_s:.0f} s it did not happen that {what}"
        time.sleep(0.002)
    return found
