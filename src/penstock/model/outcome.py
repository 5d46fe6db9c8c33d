"""How an attempt ended, before any policy has looked at it."""

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from penstock.model.job import Avoid, ErrorInfo


class Ending(StrEnum):
    """The eight ways in which an attempt ends."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    CRASHED = "crashed"
    LOST = "lost"
    SNOOZED = "snoozed"
    RELEASED = "released"
    CANCELLED = "cancelled"


class Outcome(Struct, frozen=True, gc=False, kw_only=True):
    """One ended attempt.

    Attributes:
        result: JSON of what the task returned, only when it succeeded.
        error: what went wrong, as text.
        names: qualified names of the exception's class and its bases, for `retry_on` and `give_up_on`.
        verdict: what the task itself asked for; None leaves it to the policy.
        after_ms: when the task asked to run again; None leaves it to the policy.
        started: whether its code had begun; a released job that never started costs nothing at all.
        cancel_requested: whether the job had been asked to stop before it ended.
        ran_us: how long it ran, in microseconds.
        avoid: the worker that it shall pass by from now on.
    """

    ending: Ending
    result: bytes | None = None
    error: ErrorInfo | None = None
    names: tuple[str, ...] = ()
    verdict: Literal["retry", "bury"] | None = None
    after_ms: int | None = None
    started: bool = True
    cancel_requested: bool = False
    ran_us: int = 0
    avoid: Avoid | None = None
