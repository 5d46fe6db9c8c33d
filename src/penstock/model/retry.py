"""How often and when a failed job runs again."""

from typing import Literal

from msgspec import Struct

_FARTHEST_EXPONENT = 64


class Exponential(Struct, frozen=True, tag="exponential", tag_field="kind"):
    """Wait `base_s * factor ** (failures - 1)`, at most `max_s`.

    With full jitter (the default) the wait is drawn evenly between 0 and that bound, which spreads a herd best.
    Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    base_s: float = 1.0
    factor: float = 2.0
    max_s: float = 3600.0
    jitter: Literal["full", "none"] = "full"

    def delay_s(self, failures: int, luck: float) -> float:
        exponent = min(max(failures, 1) - 1, _FARTHEST_EXPONENT)
        try:
            bound = min(self.max_s, self.base_s * self.factor**exponent)
        except OverflowError:
            bound = self.max_s
        return bound * luck if self.jitter == "full" else bound


class Fixed(Struct, frozen=True, tag="fixed", tag_field="kind"):
    """Wait the same time before every attempt."""

    every_s: float

    def delay_s(self, failures: int, luck: float) -> float:  # noqa: ARG002
        return self.every_s


class Linear(Struct, frozen=True, tag="linear", tag_field="kind"):
    """Wait `step_s` longer after each failure, at most `max_s`."""

    step_s: float
    max_s: float = 3600.0

    def delay_s(self, failures: int, luck: float) -> float:  # noqa: ARG002
        return min(self.max_s, self.step_s * max(failures, 1))


class Table(Struct, frozen=True, tag="table", tag_field="kind"):
    """Wait as long as the table says for each failure; its last entry serves all later ones.

    An empty table never waits.
    """

    delays_s: tuple[float, ...]

    def delay_s(self, failures: int, luck: float) -> float:  # noqa: ARG002
        return self.delays_s[min(max(failures, 1), len(self.delays_s)) - 1] if self.delays_s else 0.0


Backoff = Exponential | Fixed | Linear | Table

DEFAULT_BACKOFF = Exponential()


class Stage(Struct, frozen=True, omit_defaults=True):
    """A simpler task that takes a job over when the task before it has failed for good.

    Attributes:
        task, queue: whose code goes on, and where the job then waits.
        policy: what becomes of the job from then on; its own fallbacks and retention are not looked at.
        on: names of exceptions, or classes of failure, of which the last failure must be one; None takes all.
    """

    task: str
    queue: str
    policy: "Policy"
    on: tuple[str, ...] | None = None

    def takes(self, failures: tuple[str, ...]) -> bool:
        """Say whether it takes over after a failure, told by its class and the names of its exception and bases."""
        return self.on is None or any(failure in self.on for failure in failures)


class Policy(Struct, frozen=True, omit_defaults=True):
    """What becomes of a job that does not succeed, and how long it may run and is kept.

    It is stored with the job, so that whoever finds a lost job can settle it without knowing its task.

    Attributes:
        max_attempts: failures it may have in all, the first run included. 1 means no retry.
        max_crashes: crashes after which it is buried as a poison pill; 0 and 1 both bury at the first.
        timeout_ms: longest run of one attempt; None lifts the bound.
        backoff: how long to wait after a failure.
        retry_on: names of exceptions that are retried; None retries all. A name matches its subclasses.
        give_up_on: names of exceptions that bury the job at once; stronger than `retry_on`.
        fallbacks: tasks that take the job over when it has failed for good, each when those before it have too.
        keep_ms: how long the ended job and its result are kept.
    """

    max_attempts: int = 5
    max_crashes: int = 3
    timeout_ms: int | None = 3_600_000
    backoff: Backoff = DEFAULT_BACKOFF
    retry_on: tuple[str, ...] | None = None
    give_up_on: tuple[str, ...] = ()
    fallbacks: tuple[Stage, ...] = ()
    keep_ms: int = 86_400_000

    @property
    def at_most_once(self) -> bool:
        """Started once, then buried, never repeated, not even where its task asks for that."""
        return self.max_attempts == 1 and self.max_crashes == 0

    def at(self, stage: int) -> "Policy":
        """Give what holds while the fallback of this number, from 1, has the job; 0 is the task itself."""
        return self.fallbacks[stage - 1].policy if 0 < stage <= len(self.fallbacks) else self

    def next_stage(self, stage: int, failures: tuple[str, ...]) -> int | None:
        """Give the next stage whose fallback takes over after such a failure, None if there is none."""
        later = range(stage + 1, len(self.fallbacks) + 1)
        return next((number for number in later if self.fallbacks[number - 1].takes(failures)), None)

    def retries(self, names: tuple[str, ...]) -> bool:
        """Say whether an exception is retried, from the names of its class and its bases."""
        if any(name in self.give_up_on for name in names):
            return False
        return self.retry_on is None or any(name in self.retry_on for name in names)


DEFAULT_POLICY = Policy()
