"""What the pump asks of every runner, and what every runner is given."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from penstock.model.codec import DEFAULT_MAX_PAYLOAD
from penstock.model.failures import NO_RULES, Classes
from penstock.model.job import Claim, Fence
from penstock.model.outcome import Outcome
from penstock.worker.board import Board
from penstock.worker.execution import NoteSink, Runnable

#: How long after its soft limit a job is stopped by force.
HARD_LIMIT_AFTER_S = 5.0

Deliver = Callable[["Runner", Claim, Outcome], None]


class Surroundings(Struct, frozen=True, kw_only=True):
    """What the runners of one process share.

    Attributes:
        deliver: takes the outcome of a claim; called once for each claim, from any thread, returns at once.
        home: the application, known to its jobs.
        failures: whose fault the exceptions of its tasks are.
        max_payload: the most bytes of a result.
        hard_limit_s: how long after its soft limit a job is stopped by force.
    """

    tasks: Mapping[str, Runnable]
    board: Board
    notes: NoteSink
    deliver: Deliver
    home: object = None
    failures: Classes = NO_RULES
    max_payload: int = DEFAULT_MAX_PAYLOAD
    hard_limit_s: float = HARD_LIMIT_AFTER_S


class Runner(Protocol):
    """Runs claims. Every claim that is started or waits here is delivered or withdrawn exactly once.

    Every method is called by one thread at a time and returns without waiting for a job or a process.
    """

    @property
    def places(self) -> int:
        """How many jobs it runs at once."""
        ...

    def start(self, claims: Sequence[Claim]) -> None:
        """Run these, those first that come first; what finds no place waits."""
        ...

    def waits(self) -> bool:
        """Say whether a claim waits for a place."""
        ...

    def withdraw(self) -> list[Claim]:
        """Take back the claims that have not started."""
        ...

    def cancel(self, fence: Fence) -> None:
        """Ask the job under this fence to stop, if it runs here."""
        ...

    def check(self, now_ns: int) -> None:
        """Interrupt the jobs whose soft limit has passed."""
        ...

    def interrupt(self) -> None:
        """Interrupt every running job so that it can be given back."""
        ...

    def close(self) -> None:
        """Let its threads and children end; nothing runs here any more."""
        ...
