"""Rates from outside: how fast a count in a store rises while workers work."""

import time
from collections.abc import Callable

from benchmarks.workers import Tree

__all__ = ["NotReached", "rate", "wait_for"]

_TICK_S = 0.01


class NotReached(Exception):
    """A measurement did not come to its end in time."""


def wait_for(
    condition: Callable[[], bool], what: str, *, tree: Tree, timeout_s: float = 60.0, tick_s: float = _TICK_S
) -> float:
    """Look until a condition holds and give the time of that look; the tree must stay alive meanwhile."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        tree.check()
        if time.monotonic() > deadline:
            raise NotReached(f"{what}: not reached within {timeout_s:g} s.")
        time.sleep(tick_s)
    return time.monotonic()


def rate(completed: Callable[[], int], count: int, *, tree: Tree, after: int = 0, timeout_s: float = 120.0) -> float:
    """Give completions per second, from the first look that finds more than `after` until `count` more are there."""
    wait_for(lambda: completed() > after, "the first completion", tree=tree, timeout_s=timeout_s)
    first, began = completed(), time.monotonic()
    wait_for(lambda: completed() >= after + count, f"{count:,} completions", tree=tree, timeout_s=timeout_s)
    last, ended = completed(), time.monotonic()
    return (last - first) / (ended - began)
